"""Compare what segmenters learn from a curated set and from as many unfiltered images.

    python -m workflow_scripts.curate.worth_segmentation --model sana --protocol sound \\
        --trained results/curate/sana/segmenters/repeat-* \\
        --baseline results/downstream/segmentation/real_only/real/repeat-*.parquet \\
        --bootstrap 1000 --seed 42 --output results/curate/sana/worth_segmentation.json

The downstream stage's code computes Dice, per image and pooled, on the same test radiographs and
with the same draws of test patients. Both sets are added to real images. Each arm has a gain over
real data alone. The effect of the filter is the curated arm minus the unfiltered one. If no
segmenter could be trained, the record has the reason.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from workflow_scripts.common.errors import run_script
from workflow_scripts.common.records import Value
from workflow_scripts.curate.train_worth_segmenters import WAY
from workflow_scripts.curate.worth_record import absent, write_worth
from workflow_scripts.curate.worth_sets import SETS, add_score_flags, read_sets
from workflow_scripts.downstream.outcomes import Outcomes, check_same_test, read_repeats
from workflow_scripts.downstream.segmentation.score import METRICS, check_same_masks, values

FAMILY: Final = "worth_segmentation"


def compared(
    arms: dict[str, list[Outcomes]], real: list[Outcomes], bootstrap: int, seed: int
) -> Iterator[Value]:
    """Yield the values of the record, named as those of `worth.compared`.

    Args:
        arms: the outcomes of each arm, by `{set}_added`.
        real: the outcomes of real data alone.
        bootstrap: number of bootstrapped test sets.
        seed: seed of the draws.
    """
    yield from _of_real(real, bootstrap, seed)
    for arm, outcomes in arms.items():
        for value in values(outcomes, real, bootstrap, seed):
            if value.metric.removesuffix("_sd").removesuffix("_gain") in METRICS:
                yield replace(value, metric=f"{arm}_{value.metric}")
    curated, unfiltered = (arms[f"{name}_{WAY}"] for name in SETS)
    for value in values(curated, unfiltered, bootstrap, seed):
        metric = value.metric.removesuffix("_gain")
        if value.metric.endswith("_gain") and metric in METRICS:
            yield replace(value, metric=f"filter_{WAY}_{metric}")


def _of_real(real: list[Outcomes], bootstrap: int, seed: int) -> Iterator[Value]:
    for value in values(real, None, bootstrap, seed):
        if value.metric in METRICS:
            yield replace(value, metric=f"real_{value.metric}")


def main(argv: list[str] | None = None) -> None:
    """Compare the arms from the command line."""
    args = _arguments(argv)
    sets = read_sets(args.trained)
    real = read_repeats(args.baseline)
    arms = {}
    if sets["reason"] is None:
        for arm in (f"{name}_{WAY}" for name in SETS):
            paths = [folder / f"{arm}.parquet" for folder in args.trained]
            arms[arm] = read_repeats(paths)
            check_same_test(real[0], arms[arm][0], paths[0])
            check_same_masks([real[0], *arms[arm]], [args.baseline[0], *paths])
        results = list(compared(arms, real, args.bootstrap, args.seed))
    else:
        results = list(_of_real(real, args.bootstrap, args.seed))
        results += absent([WAY], METRICS, sets["reason"], len(real[0].rows))
    rows = real[0].rows
    described = {
        "n_test": len(rows),
        "n_test_patients": int(rows["patient_id"].nunique()),
        "n_test_empty": int((rows["true"] == 0).sum()),
    }
    write_worth(args, FAMILY, results, sets, real, arms, described)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_score_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
