"""BLEU's counts and ROUGE-L of each report of a training run.

python -m workflow_scripts.downstream.report_generation.metrics.score_overlap
    --outcomes results/downstream/report_generation/augmented/sd_v1_4/repeat-0.parquet
    --output results/downstream/report_generation/augmented/sd_v1_4/overlap-0.parquet
"""

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.records import slurm_job
from workflow_scripts.downstream.report_generation.metrics.overlap import (
    COUNTS,
    bleu_counts,
    rouge_l,
)
from workflow_scripts.downstream.report_generation.metrics.reports import (
    package_versions,
    read_reports,
    scorer_arguments,
    write_scores,
)


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args = scorer_arguments(__doc__).parse_args(argv)
    reports = read_reports(args.outcomes)
    counts = bleu_counts(reports.generated, reports.references)
    columns = {name: counts[:, k] for k, name in enumerate(COUNTS)}
    columns["rouge_l"] = rouge_l(reports.generated, reports.references)
    versions = package_versions(["sacrebleu", "rouge_score"])
    made = {"versions": versions, "device": "cpu", **slurm_job()}
    write_scores(args.output, reports, "overlap", columns, made)


if __name__ == "__main__":
    run_script(main)
