"""Radiographs of two splits that show the same, though no byte of them is alike.

A copy of a training image among the test images that was scaled, compressed anew, brightened or
given another gamma is no copy by its file or its pixels (`identical.py`). Here two films are
compared by the steps between neighbouring pixels of both at 64 pixels a side: their likeness is the
correlation of these steps, which no linear change of the levels moves. An encoder's features exist
only once GPUs have worked; this is known before any model is trained.

Of 532 public frontal films two of different patients reach at most 0.71, of 631 of the embedded
world 0.75; copies of these at half the size, at 224 pixels, as JPEG of quality 30, brighter by a
fifth or of gamma 0.7 at least 0.92. Side and threshold were chosen on the same films. A copy that
was cropped by 2% a side or whose histogram was equalised is not found.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.common.csv_cells import safe_frame
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file

log = logging.getLogger(__name__)

LISTED: Final = ("image_id", "patient_id", "study_id", "split", "path")
ALIKE: Final = 0.9
"""The likeness from which the workflow takes two films for one, unless the config says another."""
_BLOCK: Final = 2048
"""Films compared at a time: their steps take 66 MB."""
_LOGGED: Final = 100


def steps_of(films: np.ndarray) -> np.ndarray:
    """Return the steps between neighbouring pixels, as vectors whose products are correlations.

    Args:
        films: in small, uint8 (n, side, side).

    Returns:
        float32 (n, 2 * side * (side - 1)), of mean 0 and length 1; of a film of one level all 0.
    """
    levels = films.astype(np.float32)
    across = np.diff(levels, axis=2).reshape(len(films), -1)
    down = np.diff(levels, axis=1).reshape(len(films), -1)
    steps = np.concatenate([across, down], axis=1)
    steps -= steps.mean(axis=1, keepdims=True)
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    return steps / np.where(length > 0, length, 1)


def most_alike(manifest: pd.DataFrame, films: np.ndarray) -> pd.DataFrame:
    """Return each test image with the image of another split that is most like it.

    Args:
        manifest: of the cohort, n rows.
        films: its images in small, uint8 (n, side, side), see `look.look_at_films`.

    Returns:
        In the manifest's order: what `LISTED` names, the same of the other image as `other_...`,
        and `likeness`, -1 to 1. Empty where no other split has images.
    """
    split = manifest["split"].to_numpy()
    tested, others = np.flatnonzero(split == "test"), np.flatnonzero(split != "test")
    best = np.full(len(tested), -np.inf, np.float32)
    which = np.zeros(len(tested), np.int64)
    if len(others) and len(tested):
        mine = steps_of(films[tested])
        for block in _blocks(others):
            likeness = mine @ steps_of(films[block]).T
            place = likeness.argmax(axis=1)
            highest = likeness[np.arange(len(tested)), place]
            better = highest > best
            best[better], which[better] = highest[better], block[place[better]]
    else:
        tested, which, best = tested[:0], which[:0], best[:0]
    left = manifest.iloc[tested][list(LISTED)].reset_index(drop=True)
    right = manifest.iloc[which][list(LISTED)].reset_index(drop=True).add_prefix("other_")
    return pd.concat([left, right], axis=1).assign(likeness=best.round(4).astype(np.float64))


def check_similar(
    manifest: pd.DataFrame,
    films: np.ndarray,
    alike: float,
    refuse_above: float,
    attrition: Attrition,
    table: str | Path | None = None,
) -> None:
    """Count and list the test images that another split has as well, more or less.

    Args:
        manifest: of the cohort.
        films: see `most_alike`.
        alike: the likeness from which two images count as one.
        refuse_above: the share of test images that may also be in another split.
        attrition: takes the counts.
        table: CSV file to write, its owner's alone: it names patients.

    Raises:
        InputError: more test images are in another split, too.
    """
    pairs = most_alike(manifest, films)
    is_one = pairs["likeness"] >= alike
    found = pairs[is_one].sort_values("likeness", ascending=False, kind="stable")
    tested = int((manifest["split"] == "test").sum())
    below = pairs.loc[~is_one, "likeness"]
    highest = f"; of the others none is above {below.max():.2f}" if len(below) else ""
    attrition.add(
        "similar_images",
        "images",
        0,
        len(manifest),
        f"{len(found)} of {tested} test images are like one in another split, scaled, compressed "
        f"or brightened perhaps: a likeness of {alike:g} or more (similar_images.csv){highest}",
    )
    if table is not None:
        with whole_file(table, owner_only=True) as temporary:
            safe_frame(found).to_csv(temporary, index=False, lineterminator="\n")
    said = [
        f"{row.image_id} ({row.patient_id}, test) and {row.other_image_id} "
        f"({row.other_patient_id}, {row.other_split}): {row.likeness:.2f}"
        for row in found.head(_LOGGED).itertuples()
    ]
    for pair in said:
        log.warning("alike: %s", pair)
    if len(found) > refuse_above * tested:
        shown = "\n    ".join(said[:5]) + ("\n    ..." if len(found) > 5 else "")
        raise InputError(
            f"{len(found)} of {tested} test images are like an image of another split:\n"
            f"    {shown}",
            "the cohort's images",
            "look at them; keep one row of each, or put their patients into one split (they may be "
            "one person); cohort.identical_images.refuse_above is the share that is let pass, now "
            f"{refuse_above:g}, and cohort.identical_images.alike the likeness, now {alike:g}",
        )


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
