"""Near-duplicate radiographs in two splits: modified copies whose bytes all differ.

`identical.py` does not find a copy of a training image among the test or validation images that
was scaled, recompressed, brightened or given another gamma. Here two films are compared by the
differences between neighbouring pixels at 64 x 64 pixels. Their likeness is the correlation of
these differences, which does not change with a linear change of gray levels. It needs no encoder
and no GPU, so it is known before any model is trained.

Two films of different patients reach at most 0.71 among 532 public frontal films, and 0.75 among
631 films of the embedded world. Copies of these at half the size, at 224 pixels, as JPEG of quality
30, brighter by a fifth or with gamma 0.7 reach at least 0.92. Size and threshold were chosen on the
same films. A copy that was cropped by 2% a side or histogram-equalised is not found.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.cohort.identical import list_copies
from workflow_scripts.common.errors import InputError

COMPARED: Final = (("test", "train"), ("test", "validate"), ("validate", "train"))
"""Each two splits that are compared: a model was trained on one and is tested on the other, or
chosen by it, or attacked with patients of both."""
LISTED: Final = ("image_id", "patient_id", "study_id", "split", "path")
ALIKE: Final = 0.9
"""The default likeness from which two films count as one; the config may set another."""
_BLOCK: Final = 2048
"""Films compared at a time; their vectors take 66 MB."""


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
    """Return each test and validation image with the most similar image of each other split.

    Args:
        manifest: the cohort's manifest, n rows.
        films: its downsized images, uint8 (n, side, side), see `look.look_at_films`.

    Returns:
        One row per image and other split (`COMPARED`), in the manifest's order within each: the
        columns `LISTED`, the same of the other image as `other_...`, and `likeness`, in [-1, 1].
        A split without images has no rows.
    """
    split = manifest["split"].to_numpy()
    found = []
    for one, other in COMPARED:
        rows, others = np.flatnonzero(split == one), np.flatnonzero(split == other)
        if not len(others):
            rows = rows[:0]
        closest, likeness = _closest(films, rows, others)
        left = manifest.iloc[rows][list(LISTED)].reset_index(drop=True)
        right = manifest.iloc[closest][list(LISTED)].reset_index(drop=True).add_prefix("other_")
        pairs = pd.concat([left, right], axis=1)
        found.append(pairs.assign(likeness=likeness.round(4).astype(np.float64)))
    return pd.concat(found, ignore_index=True)


def _closest(
    films: np.ndarray, rows: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row among `others` that is most like each of `rows`, and their likeness."""
    best = np.full(len(rows), -np.inf, np.float32)
    closest = np.zeros(len(rows), np.int64)
    if len(rows):
        steps = steps_of(films[rows])
        for block in _blocks(others):
            likeness = steps @ steps_of(films[block]).T
            place = likeness.argmax(axis=1)
            highest = likeness[np.arange(len(rows)), place]
            better = highest > best
            best[better], closest[better] = highest[better], block[place[better]]
    return closest, best


def check_similar(
    manifest: pd.DataFrame,
    films: np.ndarray,
    alike: float,
    refuse_above: float,
    attrition: Attrition,
    table: str | Path | None = None,
) -> None:
    """Count and list the test and validation images with a near-duplicate in another split.

    Validation images are listed alone: attacks on membership take no such patient for one that
    training did not see.

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
    of_test = pairs["split"] == "test"
    copied = set(pairs.loc[is_one & of_test, "image_id"])
    tested = int((manifest["split"] == "test").sum())
    validated = int((manifest["split"] == "validate").sum())
    of_training = copies.loc[copies["split"] == "validate", "image_id"].nunique()
    below = pairs.loc[of_test & ~pairs["image_id"].isin(copied), "likeness"]
    highest = f"; of the others none is above {below.max():.2f}" if len(below) else ""
    if validated:
        highest += f"; {of_training} of {validated} validation images are as like one in training"
    attrition.add(
        "similar_images",
        "images",
        0,
        len(manifest),
        f"{len(copied)} of {tested} test images are like one in another split, scaled, compressed "
        f"or brightened perhaps: a likeness of {alike:g} or more (similar_images.csv){highest}",
    )
    described = [
        f"{row.image_id} ({row.patient_id}, {row.split}) and {row.other_image_id} "
        f"({row.other_patient_id}, {row.other_split}): {row.likeness:.2f}"
        for row in copies.itertuples()
    ]
    list_copies(copies, [f"alike: {pair}" for pair in described], table)
    if len(copied) > refuse_above * tested:
        tests = copies["split"] == "test"
        named = [pair for pair, is_test in zip(described, tests, strict=True) if is_test]
        shown = "\n    ".join(named[:5]) + ("\n    ..." if len(named) > 5 else "")
        raise InputError(
            f"{len(copied)} of {tested} test images are like an image of another split:\n"
            f"    {shown}",
            "the cohort's images",
            "look at them; keep one row of each, or put their patients into one split (they may be "
            "one person); cohort.identical_images.refuse_above is the share that is let pass, now "
            f"{refuse_above:g}, and cohort.identical_images.alike the likeness, now {alike:g}",
        )


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
