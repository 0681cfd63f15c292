"""Write the table of the run's costs, from all attempts of all jobs.

python -m workflow_scripts.tables.build_costs --jobs results/costs/jobs.csv
    --models '[{"key": "sd_v1_4", "family": "stable_diffusion", ...}]' --dataset MIMIC-CXR
    --out results/tables

Writes costs.{csv,md,tex,html}, which name no node of the cluster.
"""

import argparse
import logging
from collections.abc import Sequence

from workflow_scripts.common.errors import run_script
from workflow_scripts.costs.attempts import read_attempts
from workflow_scripts.tables.costs import COSTS, cost_table
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.render.files import write_tables

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--jobs", required=True, help="CSV of attempts, as costs.build wrote it")
    add("--models", required=True, help="JSON list of models, in table order")
    add("--dataset", required=True, help="name of the data")
    add("--out", required=True, help="folder to write the table to")
    args = parser.parse_args(argv)
    table = cost_table(read_attempts(args.jobs), parse_models(args.models), args.dataset)
    write_tables({COSTS.stem: table}, args.out)
    log.info("%d rows in %s", len(table.rows), args.out)


if __name__ == "__main__":
    run_script(main)
