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
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.manifest import FINDINGS, read_manifest
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.curate.train_worth import WAYS
from workflow_scripts.curate.worth_sets import SETS, add_score_flags, read_sets
from workflow_scripts.downstream.classification.metrics import METRICS, THRESHOLD
from workflow_scripts.downstream.classification.score import true_labels, values
from workflow_scripts.downstream.outcomes import Outcomes, check_same_test, read_repeats

log = logging.getLogger(__name__)

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


def absent(reason: str, n: int) -> Iterator[Value]:
    """Yield the values of arms and filter without numbers, for sets that cannot be trained on."""
    for way in WAYS:
        for metric in METRICS:
            for name in SETS:
                key = f"{name}_{way}_{metric}"
                yield Value(key, None, "higher", n, reason=reason)
                yield Value(f"{key}_gain", None, "higher", n, reason=reason)
            yield Value(f"filter_{way}_{metric}", None, "higher", n, reason=reason)


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
        results += absent(sets["reason"], len(labels))
    settings = {"bootstrap": args.bootstrap, "seed": args.seed}
    details: dict[str, Any] = {
        **sets,
        "settings": settings,
        "threshold": THRESHOLD,
        "n_test": len(labels),
        "n_test_patients": len(set(patients)),
        "n_positive": {name: int(labels[:, k].sum()) for k, name in enumerate(FINDINGS)},
        "runs": [
            {"arm": arm, **outcomes.run}
            for arm, repeats in {"real": real, **arms}.items()
            for outcomes in repeats
        ],
    }
    made = provenance(settings, real[0].run["provenance"]["device"])
    record = Record("curate", args.model, FAMILY, args.protocol, results, details, made)
    write_record(record, args.output)
    log.info("%s: %s", args.model, sets["reason"] or f"{len(arms)} arms and real data alone")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_score_flags(parser)
    parser.add_argument("--manifest", required=True, type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
