"""Score the report generators of one setting and model, and their gain over the baseline.

python -m workflow_scripts.downstream.report_generation.score
    --outcomes results/downstream/report_generation/augmented/sd_v1_4/repeat-*.parquet
    --baseline results/downstream/report_generation/real_only/real/repeat-*.parquet
    --scores results/downstream/report_generation/{augmented/sd_v1_4,real_only/real}/*-0.parquet
    --bootstrap 500 --seed 42
    --output results/downstream/report_generation/augmented/sd_v1_4.json

It reads the reports of every training run of the arm and of its baseline, and the files of scores
that the scorers with a network (CheXbert, RadGraph, GREEN, RaTEScore) wrote for all of them, in any
order: each file names its reports. BLEU and ROUGE-L are computed here. The baseline of `augmented`
is real data alone; that of `synthetic_only` is the released generator, which it continues. A scorer
without files leaves its metrics empty. The script writes the record and loads no network.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.records import Value, write_record
from workflow_scripts.downstream.gains import (
    Measured,
    gain_replicates,
    patient_draws,
    values_of,
    without,
)
from workflow_scripts.downstream.outcomes import check_same_test, read_repeats
from workflow_scripts.downstream.report_generation.metrics.corpus import (
    METRICS,
    SCORERS,
    Metric,
)
from workflow_scripts.downstream.report_generation.metrics.overlap import (
    OVERLAP_PACKAGES,
    overlap_rows,
)
from workflow_scripts.downstream.report_generation.metrics.reports import (
    Reports,
    package_versions,
    read_reports,
    read_scores,
)
from workflow_scripts.downstream.scoring_run import record_of, score_parser

log = logging.getLogger(__name__)

BASELINES: Final = {
    "real_only": "real data alone is what the gains are measured against",
    "released": "the released generator is what the gains are measured against",
}
"""Settings without a gain, with the reason."""


LADDER_METRIC: Final = "chexbert_micro_f1_14"
"""The metric whose gain gives the slopes along the ladders (Table 21c)."""


@dataclass(frozen=True)
class Run:
    """A training run's reports, and each scorer's rows for them by the scorer's name."""

    reports: Reports
    scores: dict[str, pd.DataFrame]


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    parser = score_parser(__doc__)
    parser.add_argument(
        "--scores", type=Path, nargs="*", default=[], help="the scorers' files of all runs"
    )
    args = parser.parse_args(argv)
    arm = _read_arm(args.outcomes)
    baseline = _read_arm(args.baseline)
    if baseline:
        check_same_test(baseline[0].outcomes, arm[0].outcomes, args.outcomes[0])
    scores, made = _read_scores(args.scores, arm + baseline)
    for reports in arm + baseline:
        scores[reports.sha256]["overlap"] = overlap_rows(reports.generated, reports.references)
    made["overlap"] = {"versions": package_versions(OVERLAP_PACKAGES)}
    runs = [Run(reports, scores[reports.sha256]) for reports in arm]
    runs_of_baseline = [Run(reports, scores[reports.sha256]) for reports in baseline]
    computed = values(runs, runs_of_baseline, args.bootstrap, args.seed)
    details: dict[str, Any] = {
        "reports": [texts_in_short(reports) for reports in arm],
        "scorers": made,
    }
    if args.keep_draws and baseline:
        details["replicates"] = replicates(runs, runs_of_baseline, args.bootstrap, args.seed)
    outcomes = [reports.outcomes for reports in arm]
    record = record_of("report_generation", outcomes, computed, details, args)
    write_record(record, args.output)
    log.info("BLEU-4 %.2f on %d reports", record.get("bleu_4").value, len(arm[0]))


def values(runs: list[Run], baseline: list[Run], bootstrap: int, seed: int) -> list[Value]:
    """Return every metric with its spread over training runs and its gain over the baseline.

    Args:
        runs: the runs of the arm, tested on the same images.
        baseline: the runs of the arm's baseline; empty if the arm is a baseline itself.
        bootstrap: number of bootstrapped test sets.
        seed: seed of the draws, the same for all arms.
    """
    n = len(runs[0].reports)
    patients = int(runs[0].reports.outcomes.rows["patient_id"].nunique())
    computed: list[Value] = []
    for metric in METRICS:
        if metric.scorer not in runs[0].scores:
            reason = f"`downstream.report_generation.metrics.{metric.scorer}` names no weights"
            computed += without(metric.name, n, reason)
            continue
        measured = _measure(metric, runs, bootstrap, seed)
        if not np.isfinite(measured.points).all():
            computed += without(metric.name, n, metric.undefined)
            continue
        measured_baseline = _measure(metric, baseline, bootstrap, seed) if baseline else None
        defined = measured_baseline is not None and bool(
            np.isfinite(measured_baseline.points).all()
        )
        mean, spread, gain = values_of(
            metric.name,
            measured,
            measured_baseline if defined else None,
            direction="higher",
            n=n,
            patients=patients,
            most=100.0 if metric.name.startswith("bleu") else 1.0,
            baseline_is_trained=not baseline or setting_of(baseline[0]) != "released",
        )
        if not defined:
            no_baseline = BASELINES.get(setting_of(runs[0]), "no baseline")
            reason = metric.undefined if baseline else no_baseline
            gain = replace(gain, reason=reason)
        computed += [mean, spread, gain]
    return computed + _shape(runs, n)


def replicates(runs: list[Run], baseline: list[Run], bootstrap: int, seed: int) -> dict[str, Any]:
    """Return the gain in CheXbert's F1 on bootstrapped test sets; empty if it is undefined."""
    metric = next(metric for metric in METRICS if metric.name == LADDER_METRIC)
    if metric.scorer not in runs[0].scores:
        return {}
    ours, reals = (_measure(metric, arm, bootstrap, seed) for arm in (runs, baseline))
    if not np.isfinite([*ours.points, *reals.points]).all():
        return {}
    patients = runs[0].reports.outcomes.rows["patient_id"].to_numpy()
    return {f"{metric.name}_gain": gain_replicates(ours, reals, patients)}


def setting_of(run: Run) -> str:
    """Return the setting of a run's arm."""
    setting: str = run.reports.outcomes.run["setting"]
    return setting


def texts_in_short(reports: Reports) -> dict[str, Any]:
    """Return the length and the variety of reports: a generator that ignores images has no variety.

    The result holds counts and shares, and no text.
    """
    words = [len(text.split()) for text in reports.generated]
    return {
        "seed": reports.outcomes.run["seed"],
        "words_mean": float(np.mean(words)),
        "words_mean_of_references": float(np.mean([len(t.split()) for t in reports.references])),
        "n_empty": sum(not text for text in reports.generated),
        "distinct_share": len(set(reports.generated)) / len(reports),
        "distinct_share_of_references": len(set(reports.references)) / len(reports),
    }


def _shape(runs: list[Run], n: int) -> list[Value]:
    """Return length and variety of the generated reports and of the references."""
    short = [texts_in_short(run.reports) for run in runs]
    return [
        Value(name, float(np.mean([summary[name] for summary in short])), "none", n)
        for name in (
            "words_mean",
            "words_mean_of_references",
            "distinct_share",
            "distinct_share_of_references",
        )
    ]


def _measure(metric: Metric, runs: Sequence[Run], bootstrap: int, seed: int) -> Measured:
    """Return a metric of each run, on the test set and on bootstrapped test sets."""
    points, draws = [], []
    for run in runs:
        statistics = metric.statistics(run.scores[metric.scorer]).astype(np.float64)
        patients = run.reports.outcomes.rows["patient_id"].to_numpy()
        points.append(metric.value(statistics.sum(axis=0, keepdims=True))[0])
        sets = patient_draws(patients, bootstrap, seed)
        draws.append(np.concatenate([metric.value(times @ statistics) for times in sets]))
    return Measured(np.array(points, dtype=np.float64), np.stack(draws))


def _read_arm(paths: Sequence[Path]) -> list[Reports]:
    if paths:
        read_repeats(paths)  # checks that the runs differ in their seed alone
    return [read_reports(path) for path in paths]


def _read_scores(
    paths: Sequence[Path], arms: Sequence[Reports]
) -> tuple[dict[str, dict[str, pd.DataFrame]], dict[str, Any]]:
    """Return the scorers' rows by the reports' digest and the scorer, and the scorers' versions.

    Raises:
        InputError: a file belongs to other reports, two files belong to the same scorer and run, or
            a scorer's weights or versions differ between runs, or it has scored only some of them.
    """
    remedy = "delete it and rerun the scorer that writes it"
    rows_of_run: dict[str, dict[str, pd.DataFrame]] = {reports.sha256: {} for reports in arms}
    ids = {reports.sha256: reports.outcomes.rows["image_id"] for reports in arms}
    made: dict[str, Any] = {}
    for path in paths:
        scores = read_scores(path)
        metric, digest = scores.run["metric"], scores.run["outcomes_sha256"]
        if metric not in SCORERS:
            raise InputError(f"unknown scorer {metric!r}", path, f"use one of {', '.join(SCORERS)}")
        if digest not in rows_of_run or not scores.rows["image_id"].equals(ids[digest]):
            raise InputError(
                "the scores belong to other reports: the training was run again since", path, remedy
            )
        if metric in rows_of_run[digest]:
            raise InputError(f"a second file of {metric} for the same run", path, remedy)
        how = {key: scores.run[key] for key in ("weights_sha256", "versions") if key in scores.run}
        if made.setdefault(metric, how) != how:
            raise InputError(
                f"{metric} was computed with other weights or versions than for the other runs",
                path,
                remedy,
            )
        rows_of_run[digest][metric] = scores.rows
    for metric in made:
        lacking = [r for r in arms if metric not in rows_of_run[r.sha256]]
        if lacking:
            run = lacking[0].outcomes.run
            raise InputError(
                f"{metric} has not scored {len(lacking)} of {len(arms)} runs, first "
                f"{run['setting']}/{run['model']}, seed {run['seed']}",
                "--scores",
                "run the scorer on every run of the arm and of its baseline",
            )
    return rows_of_run, made


if __name__ == "__main__":
    run_script(main)
