"""Compare what classifiers learn from a curated set and from as many unfiltered images.

    python -m workflow_scripts.curate.worth --model sana --protocol sound \\
        --trained results/curate/sana/worth/repeat-* \\
        --baseline results/downstream/classification/real_only/real/repeat-*.parquet \\
        --manifest results/cohort/manifest.parquet --bootstrap 1000 --seed 42 \\
        --output results/curate/sana/worth.json

The task is classification. The downstream stage's code computes AUROC, F1 and accuracy, on the same
test radiographs and with the same draws of test patients. Each arm has a gain over real data alone.
The effect of the filter is the curated arm minus the unfiltered one. If no classifier could be
trained, the record has the reason.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.manifest import FINDINGS, read_manifest
from workflow_scripts.common.records import Value
from workflow_scripts.curate.train_worth import WAYS
from workflow_scripts.curate.worth_record import absent, write_worth
from workflow_scripts.curate.worth_sets import SETS, add_score_flags, read_sets
from workflow_scripts.downstream.classification.metrics import METRICS, THRESHOLD
from workflow_scripts.downstream.classification.score import true_labels, values
from workflow_scripts.downstream.outcomes import Outcomes, check_same_test, read_repeats

FAMILY: Final = "worth"


def compared(
    labels: Any,
    patients: Any,
    arms: dict[str, list[Outcomes]],
    real: list[Outcomes],
    bootstrap: int,
    seed: int,
) -> Iterator[Value]:
    """Yield the values of the record.

    `real_{metric}` belongs to real data alone. `{set}_{way}_{metric}` belongs to an arm, with `_sd`
    over training runs and `_gain` over real data alone. `filter_{way}_{metric}` is the effect of
    the filter: the curated arm minus the unfiltered one.

    Args:
        labels: (n, 14), 1 or 0, the findings of the test radiographs.
        patients: (n,), their patients.
        arms: the outcomes of each arm, by `{set}_{way}`.
        real: the outcomes of real data alone.
        bootstrap: number of bootstrapped test sets.
        seed: seed of the draws.
    """
    for value in values(labels, patients, real, None, bootstrap, seed):
        if value.metric in METRICS:
            yield replace(value, metric=f"real_{value.metric}")
    for arm, outcomes in arms.items():
        for value in values(labels, patients, outcomes, real, bootstrap, seed):
            yield replace(value, metric=f"{arm}_{value.metric}")
    for way in WAYS:
        curated, unfiltered = (arms[f"{name}_{way}"] for name in SETS)
        for value in values(labels, patients, curated, unfiltered, bootstrap, seed):
            if value.metric.endswith("_gain"):
                metric = value.metric.removesuffix("_gain")
                yield replace(value, metric=f"filter_{way}_{metric}")


def main(argv: list[str] | None = None) -> None:
    """Compare the arms from the command line."""
    args = _arguments(argv)
    sets = read_sets(args.trained)
    real = read_repeats(args.baseline)
    labels = true_labels(real[0], read_manifest(args.manifest), str(args.baseline[0]))
    patients = real[0].rows["patient_id"].to_numpy()
    arms = {}
    if sets["reason"] is None:
        for arm in (f"{name}_{way}" for name in SETS for way in WAYS):
            paths = [folder / f"{arm}.parquet" for folder in args.trained]
            arms[arm] = read_repeats(paths)
            check_same_test(real[0], arms[arm][0], paths[0])
        results = list(compared(labels, patients, arms, real, args.bootstrap, args.seed))
    else:
        baseline = values(labels, patients, real, None, args.bootstrap, args.seed)
        results = [replace(v, metric=f"real_{v.metric}") for v in baseline if v.metric in METRICS]
        results += absent([*WAYS], METRICS, sets["reason"], len(labels))
    described = {
        "threshold": THRESHOLD,
        "n_test": len(labels),
        "n_test_patients": len(set(patients)),
        "n_positive": {name: int(labels[:, k].sum()) for k, name in enumerate(FINDINGS)},
    }
    write_worth(args, FAMILY, results, sets, real, arms, described)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_score_flags(parser)
    parser.add_argument("--manifest", required=True, type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
