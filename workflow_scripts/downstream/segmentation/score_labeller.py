"""Score the pseudo-labeller itself: the Dice of its test masks against masks drawn by hand.

python -m workflow_scripts.downstream.segmentation.score_labeller
    --masks results/downstream/segmentation/masks/real.parquet
    --manifest results/cohort/manifest.parquet --exact-masks masks --size 256 --protocol sound
    --bootstrap 1000 --seed 42 --output results/downstream/segmentation/labeller/real.json

A U-Net that learns from these masks and repeats them perfectly would reach this Dice. Masks are
cropped and scaled to the U-Nets' input, as the U-Nets' own masks are. Without --exact-masks the
quality of the labeller is unknown, and the record says so.
"""

import argparse
import logging
from pathlib import Path
from typing import Final

import numpy as np

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import run_script
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.common.settings import add_flags
from workflow_scripts.downstream.gains import LEVEL, percentiles
from workflow_scripts.downstream.segmentation.masks import exact_squares, read_masks
from workflow_scripts.downstream.segmentation.metrics import count
from workflow_scripts.downstream.segmentation.score import (
    EXACT_EMPTY,
    NO_EXACT,
    measure,
    none_of,
)
from workflow_scripts.downstream.segmentation.settings import SegmenterSettings

log = logging.getLogger(__name__)

_PUBLISHED: Final = "the pseudo-labeller is used as it was published, not trained"


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args = _arguments(argv)
    masks = read_masks(args.masks)
    manifest = read_manifest(args.manifest, ["image_id", "patient_id", "split"])
    test = manifest[manifest["split"] == "test"]
    ids = test["image_id"].tolist()
    predicted = masks.squares(ids, args.size, args.threads, str(args.masks))
    itself = "its masks are what this Dice is measured against"
    computed = none_of("", itself)
    details = {
        "labeller": masks.run["labeller"],
        "size": args.size,
        "n_test": len(ids),
        "n_test_empty": int((~predicted.any(axis=(1, 2))).sum()),
        "n_test_exact": 0,
    }
    if args.exact_masks is None:
        computed += none_of("_exact", NO_EXACT)
    else:
        of_test = [masks.by_id[name] for name in ids]
        has, exact = exact_squares(args.exact_masks, of_test, args.size, args.threads)
        patients = test["patient_id"].to_numpy()[has]
        computed += exact_values(predicted[has], exact, patients, args.bootstrap, args.seed)
        details["n_test_exact"] = int(has.sum())
    settings = {"bootstrap": args.bootstrap, "seed": args.seed, "size": args.size}
    record = Record(
        "downstream",
        "real",
        "segmentation/labeller",
        args.protocol,
        computed,
        details | {"settings": settings},
        provenance(settings, masks.run["provenance"]["device"]),
    )
    write_record(record, args.output)
    exact_dice = record.get("dice_exact").value
    log.info(
        "the pseudo-labeller's own Dice: %s",
        "unknown" if exact_dice is None else f"{exact_dice:.3f}",
    )


def exact_values(
    predicted: np.ndarray, exact: np.ndarray, patients: np.ndarray, bootstrap: int, seed: int
) -> list[Value]:
    """Return the Dice, per image and pooled, of masks against masks drawn by hand.

    Args:
        predicted: bool (n, size, size).
        exact: bool (n, size, size); images whose exact mask is empty do not count.
        patients: (n,) the patient of each image.
        bootstrap: number of test sets, bootstrapped by patient.
        seed: seed of the draws.
    """
    drawn_by_hand = exact.any(axis=(1, 2))
    if not drawn_by_hand.any():
        return none_of("_exact", EXACT_EMPTY)
    counts = count(predicted[drawn_by_hand], exact[drawn_by_hand])
    measured = measure([counts], patients[drawn_by_hand], bootstrap, seed)
    computed = []
    for metric, metric_values in measured.items():
        name, n, interval = f"{metric}_exact", len(counts), percentiles(metric_values.draws[0])
        kind = None if interval is None else f"bootstrap {LEVEL:.0%} over test patients"
        value = float(metric_values.points[0])
        computed.append(Value(name, value, "higher", n, interval=interval, interval_kind=kind))
        for suffix, direction in (("_sd", "none"), ("_gain", "higher")):
            computed.append(Value(name + suffix, None, direction, n, reason=_PUBLISHED))
    return computed


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--masks", type=Path, required=True, help="masks of the radiographs; see `label`")
    add("--manifest", type=Path, required=True)
    add_flags(parser, SegmenterSettings, only=("exact_masks", "size"))
    add("--protocol", choices=PROTOCOLS, required=True, help="recorded; it changes nothing")
    add("--bootstrap", type=int, required=True, help="how many test sets are drawn")
    add("--seed", type=int, required=True, help="seed of the draws, the same for all arms")
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, help="the record, JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
