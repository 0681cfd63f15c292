"""Score the U-Nets of a setting and model: Dice, per image and pooled, and the gain over real data.

python -m workflow_scripts.downstream.segmentation.score
    --outcomes results/downstream/segmentation/augmented/sd_v1_4/repeat-*.parquet
    --baseline results/downstream/segmentation/real_only/real/repeat-*.parquet
    --bootstrap 1000 --seed 42 --output results/downstream/segmentation/augmented/sd_v1_4.json

It reads the outcomes of every training run of the arm and of its baseline, real data alone. Without
`--baseline` the arm is the baseline itself. It writes the record. A test image with an empty
pseudo-mask does not count: every frontal radiograph shows clavicles, so CXAS has failed and the
prediction cannot be judged. The details give the number of such images. Nor do empty masks drawn by
hand.
"""

import logging
from collections.abc import Sequence
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
from workflow_scripts.downstream.outcomes import Outcomes
from workflow_scripts.downstream.scoring_run import read_arms, record_of, score_parser
from workflow_scripts.downstream.segmentation.metrics import Counts, dice, drawn, pooled_dice

log = logging.getLogger(__name__)

METRICS: Final = ("dice", "dice_pooled")
NO_EXACT: Final = "`downstream.segmentation.exact_masks` names no masks drawn by hand"
EXACT_EMPTY: Final = "every mask drawn by hand is empty"

_EMPTY: Final = "every test image has an empty pseudo-mask"


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args = score_parser(__doc__).parse_args(argv)
    arm, baseline = read_arms(args)
    check_same_masks([*arm, *(baseline or [])], [*args.outcomes, *args.baseline])
    rows = arm[0].rows
    not_empty = rows["true"] > 0
    details: dict[str, Any] = {
        "n_test_empty": int((~not_empty).sum()),
        "n_test_empty_predicted_empty": [
            int((outcomes.rows["predicted"][~not_empty] == 0).sum()) for outcomes in arm
        ],
        "empty": "test images whose pseudo-mask is empty do not count",
        "n_test_exact": int(rows["exact_true"].notna().sum()),
    }
    if args.keep_draws and baseline is not None and not_empty.any():
        details["replicates"] = replicates(arm, baseline, args.bootstrap, args.seed)
    computed = values(arm, baseline, args.bootstrap, args.seed)
    record = record_of("segmentation", arm, computed, details, args)
    write_record(record, args.output)
    mean_dice = record.get("dice").value
    text = "-" if mean_dice is None else f"{mean_dice:.3f}"
    log.info("mean Dice %s on %d images", text, not_empty.sum())


def check_same_masks(runs: Sequence[Outcomes], paths: Sequence[Path]) -> None:
    """Check that runs were compared with the same masks of the test images.

    Raises:
        InputError: they were not; the message names the first that differs from `runs[0]`.
    """
    for outcomes, path in zip(runs, paths, strict=True):
        for name in ("true", "exact_true"):
            if not outcomes.rows[name].equals(runs[0].rows[name]):
                raise InputError(
                    f"its test images were compared with other masks than in {paths[0]} ({name})",
                    path,
                    "delete both and rerun the downstream stage",
                )


def values(
    arm: Sequence[Outcomes], baseline: Sequence[Outcomes] | None, bootstrap: int, seed: int
) -> list[Value]:
    """Return the arm's Dice, per image and pooled, against pseudo-masks and masks drawn by hand.

    Each comes with its spread over training runs and its gain over the baseline. The first value is
    the number of the arm's images for training and validation.

    Args:
        arm: the runs of the arm.
        baseline: the runs on real data alone; None if the arm is the baseline.
        bootstrap: number of bootstrapped test sets.
        seed: seed of the draws, the same for all arms.
    """
    images = arm[0].run["n_images"]
    computed = [Value("n_images", float(images), "none", images)]
    rows = arm[0].rows
    computed += _compared(arm, baseline, "true", "both", "", _EMPTY, bootstrap, seed)
    if rows["exact_true"].isna().all():
        return computed + none_of("_exact", NO_EXACT)
    names = ("exact_true", "exact_both", "_exact", EXACT_EMPTY)
    return computed + _compared(arm, baseline, *names, bootstrap, seed)


def none_of(suffix: str, reason: str) -> list[Value]:
    """Return the values of all metrics where there are none; `suffix` ends the metrics' names."""
    return [value for metric in METRICS for value in without(f"{metric}{suffix}", 0, reason)]


def _compared(
    arm: Sequence[Outcomes],
    baseline: Sequence[Outcomes] | None,
    true: str,
    both: str,
    suffix: str,
    reason: str,
    bootstrap: int,
    seed: int,
) -> list[Value]:
    """Return the values against one kind of masks, over the images with a mask that is not empty.

    Args:
        arm: see `values`.
        baseline: see `values`.
        true: the column of the pixels in the mask.
        both: the column of the pixels in the mask and the prediction.
        suffix: is appended to the metrics' names.
        reason: stands in for the values if no image has such a mask.
        bootstrap: see `values`.
        seed: see `values`.
    """
    rows = np.flatnonzero((arm[0].rows[true] > 0).to_numpy())
    if not len(rows):
        return none_of(suffix, reason)
    patients = arm[0].rows["patient_id"].to_numpy()[rows]

    def measured(runs: Sequence[Outcomes]) -> dict[str, Measured]:
        counts = [_counts(outcomes.rows, true, both).of(rows) for outcomes in runs]
        return measure(counts, patients, bootstrap, seed)

    ours = measured(arm)
    reals = None if baseline is None else measured(baseline)
    return [
        value
        for metric in METRICS
        for value in values_of(
            f"{metric}{suffix}",
            ours[metric],
            None if reals is None else reals[metric],
            direction="higher",
            n=len(rows),
            patients=len(set(patients)),
        )
    ]


def replicates(
    arm: Sequence[Outcomes], baseline: Sequence[Outcomes], bootstrap: int, seed: int
) -> dict[str, Any]:
    """Return the gain in Dice per image on bootstrapped test sets; see `values`.

    Patients without a mask are drawn, too, so that the draws are the same as in the other tasks.
    """
    rows = np.flatnonzero((arm[0].rows["true"] > 0).to_numpy())
    patients = arm[0].rows["patient_id"].to_numpy()
    measured = []
    for trained in (arm, baseline):
        counts = [_counts(outcomes.rows, "true", "both").of(rows) for outcomes in trained]
        draws = [
            drawn(one, (times[:, rows] for times in patient_draws(patients, bootstrap, seed)))
            for one in counts
        ]
        points = np.array([float(dice(one).mean()) for one in counts])
        measured.append(Measured(points, np.stack([draw["dice"] for draw in draws])))
    return {"dice_gain": gain_replicates(measured[0], measured[1], patients)}


def _counts(rows: pd.DataFrame, true: str, both: str) -> Counts:
    names = ("predicted", true, both)
    return Counts(*(rows[name].to_numpy(np.float64) for name in names))


def measure(
    runs: Sequence[Counts], patients: np.ndarray, bootstrap: int, seed: int
) -> dict[str, Measured]:
    """Return METRICS of training runs, on the test images and on bootstrapped test sets."""
    draws = [drawn(counts, patient_draws(patients, bootstrap, seed)) for counts in runs]
    points = {
        "dice": [float(dice(counts).mean()) for counts in runs],
        "dice_pooled": [pooled_dice(counts) for counts in runs],
    }
    return {
        metric: Measured(np.array(points[metric]), np.stack([draw[metric] for draw in draws]))
        for metric in METRICS
    }


if __name__ == "__main__":
    run_script(main)
