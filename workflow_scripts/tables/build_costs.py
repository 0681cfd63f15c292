"""Count what the run cost: from benchmark files and, on a cluster, SLURM's accounting.

python -m workflow_scripts.tables.build_costs --rules '[{"name": "finetune_train", ...}]'
    --models '[{"key": "sd_v1_4", "family": "stable_diffusion", ...}]' --dataset MIMIC-CXR
    --benchmarks benchmarks --job-logs logs --slurm-logs .snakemake/slurm_logs
    --jobs results/tables/jobs.csv --out results/tables

Runs where sacct is. Writes the table as costs.{csv,md,tex,html} and every attempt of every job as
jobs.csv, which names the nodes of the cluster.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.tables.attempts import attempts_to_csv, every_attempt, parse_patterns
from workflow_scripts.tables.build import write_tables
from workflow_scripts.tables.costs import COSTS, cost_table
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.slurm_accounting import ask_accounting

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rules", required=True, help="JSON list of rules: which files are whose")
    add("--models", required=True, help="JSON list of models, in table order")
    add("--dataset", required=True, help="name of the data")
    add("--benchmarks", required=True, type=Path, help="Snakemake's folder of benchmark files")
    add("--job-logs", required=True, type=Path, help="folder of the rules' logs, named alike")
    add("--slurm-logs", required=True, type=Path, help="the SLURM executor's folder of logs")
    add("--jobs", required=True, type=Path, help="CSV of attempts to write")
    add("--out", required=True, help="folder to write the table to")
    args = parser.parse_args(argv)
    models = parse_models(args.models)
    attempts = every_attempt(
        args.benchmarks,
        args.job_logs,
        args.slurm_logs,
        parse_patterns(args.rules),
        [model.key for model in models],
        ask_accounting,
    )
    write_text(args.jobs, attempts_to_csv(attempts))
    write_tables({COSTS.stem: cost_table(attempts, models, args.dataset)}, args.out)
    log.info("%d attempts in %s", len(attempts), args.jobs)


if __name__ == "__main__":
    run_script(main)
