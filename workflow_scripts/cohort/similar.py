"""Near-duplicate radiographs in two splits: modified copies whose bytes all differ.

`identical.py` does not find a copy of a training image among the test images that was scaled,
recompressed, brightened or given another gamma. Here two films are compared by the differences
between neighbouring pixels at 64 x 64 pixels. Their likeness is the correlation of these
differences, which does not change with a linear change of gray levels. It needs no encoder and no
GPU, so it is known before any model is trained.

Two films of different patients reach at most 0.71 among 532 public frontal films, and 0.75 among
631 films of the embedded world. Copies of these at half the size, at 224 pixels, as JPEG of quality
30, brighter by a fifth or with gamma 0.7 reach at least 0.92. Size and threshold were chosen on the
same films. A copy that was cropped by 2% a side or histogram-equalised is not found.
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
"""The default likeness from which two films count as one; the config may set another."""
_BLOCK: Final = 2048
"""Films compared at a time; their vectors take 66 MB."""
_LOGGED: Final = 100


def steps_of(films: np.ndarray) -> np.ndarray:
    """Return the differences of neighbouring pixels as vectors whose products are correlations.

    Args:
        films: the downsized films, uint8 (n, side, side).

    Returns:
        float32 (n, 2 * side * (side - 1)), with mean 0 and length 1; 0 for a constant film.
    """
    levels = films.astype(np.float32)
    across = np.diff(levels, axis=2).reshape(len(films), -1)
    down = np.diff(levels, axis=1).reshape(len(films), -1)
    steps = np.concatenate([across, down], axis=1)
    steps -= steps.mean(axis=1, keepdims=True)
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    return steps / np.where(length > 0, length, 1)


def most_alike(manifest: pd.DataFrame, films: np.ndarray) -> pd.DataFrame:
    """Return each test image with the most similar image of another split.

    Args:
        manifest: the cohort's manifest, n rows.
        films: its downsized images, uint8 (n, side, side), see `look.look_at_films`.

    Returns:
        One row per test image, in the manifest's order: the columns `LISTED`, the same of the other
        image as `other_...`, and `likeness`, in [-1, 1]. Empty if no other split has images.
    """
    split = manifest["split"].to_numpy()
    tested, others = np.flatnonzero(split == "test"), np.flatnonzero(split != "test")
    best = np.full(len(tested), -np.inf, np.float32)
    closest = np.zeros(len(tested), np.int64)
    if len(others) and len(tested):
        of_tested = steps_of(films[tested])
        for block in _blocks(others):
            likeness = of_tested @ steps_of(films[block]).T
            place = likeness.argmax(axis=1)
            highest = likeness[np.arange(len(tested)), place]
            better = highest > best
            best[better], closest[better] = highest[better], block[place[better]]
    else:
        tested, closest, best = tested[:0], closest[:0], best[:0]
    left = manifest.iloc[tested][list(LISTED)].reset_index(drop=True)
    right = manifest.iloc[closest][list(LISTED)].reset_index(drop=True).add_prefix("other_")
    return pd.concat([left, right], axis=1).assign(likeness=best.round(4).astype(np.float64))


def check_similar(
    manifest: pd.DataFrame,
    films: np.ndarray,
    alike: float,
    refuse_above: float,
    attrition: Attrition,
    table: str | Path | None = None,
) -> None:
    """Count and list the test images with a near-duplicate in another split.

    Args:
        manifest: the cohort's manifest.
        films: see `most_alike`.
        alike: the likeness from which two images count as one.
        refuse_above: the allowed share of test images with such a near-duplicate, in [0, 1].
        attrition: gets the counts.
        table: CSV file to write, which only its owner may read, because it names patients.

    Raises:
        InputError: the share of such test images is above `refuse_above`.
    """
    pairs = most_alike(manifest, films)
    is_one = pairs["likeness"] >= alike
    copies = pairs[is_one].sort_values("likeness", ascending=False, kind="stable")
    tested = int((manifest["split"] == "test").sum())
    below = pairs.loc[~is_one, "likeness"]
    highest = f"; of the others none is above {below.max():.2f}" if len(below) else ""
    attrition.add(
        "similar_images",
        "images",
        0,
        len(manifest),
        f"{len(copies)} of {tested} test images are like one in another split, scaled, compressed "
        f"or brightened perhaps: a likeness of {alike:g} or more (similar_images.csv){highest}",
    )
    if table is not None:
        with whole_file(table, owner_only=True) as temporary:
            safe_frame(copies).to_csv(temporary, index=False, lineterminator="\n")
    descriptions = [
        f"{row.image_id} ({row.patient_id}, test) and {row.other_image_id} "
        f"({row.other_patient_id}, {row.other_split}): {row.likeness:.2f}"
        for row in copies.head(_LOGGED).itertuples()
    ]
    for pair in descriptions:
        log.warning("alike: %s", pair)
    if len(copies) > refuse_above * tested:
        shown = "\n    ".join(descriptions[:5]) + ("\n    ..." if len(copies) > 5 else "")
        raise InputError(
            f"{len(copies)} of {tested} test images are like an image of another split:\n"
            f"    {shown}",
            "the cohort's images",
            "look at them; keep one row of each, or put their patients into one split (they may be "
            "one person); cohort.identical_images.refuse_above is the share that is let pass, now "
            f"{refuse_above:g}, and cohort.identical_images.alike the likeness, now {alike:g}",
        )


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
