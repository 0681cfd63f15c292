"""Compare CXAS's masks of heart and lungs with exact masks of radiographs, if there are any.

    python -m workflow_scripts.faithfulness.score_labeller --protocol sound \\
        --radiographs results/faithfulness/seen/real.parquet --exact-organs results/world/organs \\
        --output results/faithfulness/labeller/real.json

MIMIC-CXR has no exact masks. The embedded world has them.
"""

import argparse
import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.common.squares import middle
from workflow_scripts.faithfulness.anatomy import measure
from workflow_scripts.faithfulness.patients import jackknifed, jackknifed_value
from workflow_scripts.faithfulness.seen import COMPARED, pack_organs, read_seen, unpack_organs

log = logging.getLogger(__name__)

BITS: Final = {"right_lung": 1, "left_lung": 2, "heart": 4}
"""The bit of each organ in a pixel of a file of exact masks."""

_METRICS: Final = (
    *((f"{name}_dice_exact", "higher") for name in COMPARED),
    ("ratio_error_exact", "lower"),
    ("ratio_bias_exact", "none"),
)


def main(argv: list[str] | None = None) -> None:
    """Score the labeller from the command line."""
    args = _arguments(argv)
    seen = read_seen(args.radiographs)
    if args.exact_organs is None:
        reason = "no exact masks: faithfulness.exact_organs names none"
        values = [Value(name, None, way, 0, reason=reason) for name, way in _METRICS]
    else:
        values = labeller_values(seen.rows, args.exact_organs)
    settings = seen.run["settings"]
    record = Record(
        "faithfulness",
        "real",
        "labeller",
        args.protocol,
        values,
        {"settings": settings},
        provenance(settings, seen.run["provenance"]["device"]),
    )
    write_record(record, args.output)


def labeller_values(rows: Any, folder: Path) -> list[Value]:
    """Return the labeller's values on the radiographs that have exact masks.

    Args:
        rows: see `seen.Seen`.
        folder: the folder of `{image_id}.png`, whose pixels are sums of BITS.

    Raises:
        InputError: no radiograph has exact masks, or a file is damaged.
    """
    ids = [name for name in rows["id"] if (folder / f"{name}.png").is_file()]
    if not ids:
        raise InputError(
            f"no organs of any of the {len(rows)} test radiographs",
            folder,
            "name the files {image_id}.png, or set faithfulness.exact_organs to null",
        )
    rows = rows.loc[ids]
    patients = rows["patient_id"].to_numpy(str)
    dices, errors = [], []
    for name, packed, ratio in zip(ids, rows["organs"], rows["ratio"], strict=True):
        exact = exact_organs(folder / f"{name}.png")
        truth = unpack_organs(pack_organs({k: mask[None] for k, mask in exact.items()})[0])
        drawn = unpack_organs(packed)
        sizes = truth.sum((1, 2)) + drawn.sum((1, 2))
        # An organ that is absent from both masks is left out.
        dice = 2 * (truth & drawn).sum((1, 2)) / np.maximum(sizes, 1)
        dices.append(np.where(sizes > 0, dice, np.nan))
        nothing = {side: np.zeros_like(exact["heart"]) for side in _CLAVICLES}
        right = measure(exact | nothing).ratio
        known = right is not None and ratio is not None
        errors.append(float(ratio) - float(right) if known else np.nan)  # type: ignore[arg-type]
    of_organs, error = np.array(dices), np.array(errors)
    columns = [*of_organs.T, np.abs(error), error]
    values = []
    for (metric, way), column in zip(_METRICS, columns, strict=True):
        defined = np.isfinite(column)
        if not defined.any():
            reason = "no image shows it, neither drawn nor in truth"
            values.append(Value(metric, None, way, len(column), reason=reason))
            continue
        kept, owners = column[defined], patients[defined]
        estimate = jackknifed(
            lambda _, keep, kept=kept: float(kept[keep].mean()),  # type: ignore[misc]
            owners,
            owners,
            -np.inf if metric == "ratio_bias_exact" else 0.0,
            1.0 if metric.endswith("_dice_exact") else np.inf,
        )
        values.append(jackknifed_value(metric, way, len(kept), estimate))
    return values


_CLAVICLES: Final = ("right_clavicle", "left_clavicle")


def exact_organs(path: Path) -> dict[str, np.ndarray]:
    """Return the exact masks of heart and lungs in the central square, each bool (side, side).

    The labeller takes the same square of the radiograph, see `look`.

    Raises:
        InputError: the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            bits = np.asarray(middle(image.convert("L")))
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable("cannot decode organs", error, path) from None
    return {name: (bits & bit) > 0 for name, bit in BITS.items()}


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--radiographs", required=True, type=Path, help="output of look for the test radiographs")
    add("--exact-organs", type=Path, help="folder of exact masks, {image_id}.png")
    add("--output", required=True, type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
