"""Join the records of every stage to the paper's tables, as CSV, Markdown, LaTeX and HTML.

It also writes `tables.json`, which has all tables for the figures and the report, and
`measurements.parquet`, the long table of all measurements, for people who plot.

python -m workflow_scripts.tables.build --fidelity results/fidelity/*/*.json
    --privacy results/privacy/*.json --downstream results/downstream/classification/*/*.json
    --models '[{"key": "sd_v1_4", "family": "stable_diffusion", ...}]' --dataset MIMIC-CXR
    --protocol sound --manifest results/cohort/manifest.parquet
    --attrition results/cohort/attrition.csv --out results/tables
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.measurement import write_measurements
from workflow_scripts.tables.all_tables import results_of
from workflow_scripts.tables.cohort_counts import read_attrition
from workflow_scripts.tables.render.files import write_tables
from workflow_scripts.tables.results import MEASUREMENTS, RESULTS, write_results
from workflow_scripts.tables.run import add_arguments, read_run

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--out", required=True, help="folder to write the tables to")
    args = parser.parse_args(argv)
    run = read_run(args)
    results = results_of(run, read_attrition(args.attrition, args.dataset))
    write_tables(results.tables, args.out)
    write_results(results, Path(args.out) / RESULTS)
    write_measurements(run.measurements.rows, Path(args.out) / MEASUREMENTS)
    log.info(
        "%d tables of %d measurements in %s",
        len(results.tables),
        len(run.measurements.rows),
        args.out,
    )


if __name__ == "__main__":
    run_script(main)
