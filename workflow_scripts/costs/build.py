"""Collect all attempts of all jobs, from benchmark files and, on a cluster, SLURM's accounting.

python -m workflow_scripts.costs.build --rules '[{"name": "finetune_train", ...}]'
    --models sd_v1_4 sana --benchmarks benchmarks --job-logs logs
    --slurm-logs .snakemake/slurm_logs --output results/costs/jobs.csv

On a cluster it must run where sacct is available. The CSV names the cluster's nodes.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.costs.attempts import attempts_to_csv, every_attempt
from workflow_scripts.costs.jobs import parse_patterns
from workflow_scripts.costs.slurm_accounting import ask_accounting

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rules", required=True, help="JSON list of rules and the patterns of their files")
    add("--models", required=True, nargs="*", help="keys of the run's models")
    add("--benchmarks", required=True, type=Path, help="Snakemake's folder of benchmark files")
    add("--job-logs", required=True, type=Path, help="folder of the rules' logs, same names")
    add("--slurm-logs", required=True, type=Path, help="the SLURM executor's folder of logs")
    add("--output", required=True, type=Path, help="CSV of attempts to write")
    args = parser.parse_args(argv)
    attempts = every_attempt(
        args.benchmarks,
        args.job_logs,
        args.slurm_logs,
        parse_patterns(args.rules),
        args.models,
        ask_accounting,
    )
    write_text(args.output, attempts_to_csv(attempts))
    log.info("%d attempts in %s", len(attempts), args.output)


if __name__ == "__main__":
    run_script(main)
