"""Anatomy of a radiograph, measured on masks of its structures.

Columns of a mask run from the patient's right (the image's left) to the patient's left, as one
looks at a frontal radiograph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from workflow_scripts.faithfulness.organs import CLASSES, LEAST_SHARE, largest_piece

STRUCTURES: Final = tuple(CLASSES)
"""The structures that are measured."""


@dataclass(frozen=True)
class Anatomy:
    """What the masks of one image say; None where a structure that it needs is absent.

    Attributes:
        ratio: the cardiothoracic ratio: the greatest width of the heart over that of the chest,
            which is from the outer border of one lung to that of the other, in the rows of both.
        area_right: the right lung's share of the image.
        area_left: the left lung's.
        asymmetry: (right - left) / (right + left) of the lungs' areas, -1 to 1.
        heart_inside: share of the heart that lies within the rectangle around both lungs.
        clavicles: how many of the two are there.
        present: how many of STRUCTURES are there.
    """

    ratio: float | None
    area_right: float | None
    area_left: float | None
    asymmetry: float | None
    heart_inside: float | None
    clavicles: int
    present: int


def measure(masks: Mapping[str, np.ndarray]) -> Anatomy:
    """Measure the masks of one image, of each structure its largest connected piece.

    A network's masks have specks, and a width is as far as the farthest of them.

    Args:
        masks: by the keys of STRUCTURES, bool (h, w), all of one size.

    Raises:
        KeyError: a structure without a mask.
    """
    least = LEAST_SHARE * masks["heart"].size
    whole = {name: largest_piece(masks[name]) for name in STRUCTURES}
    there = {name: mask for name, mask in whole.items() if mask.sum() > least}
    heart, right, left = (there.get(name) for name in ("heart", "right_lung", "left_lung"))
    ratio = asymmetry = inside = None
    if right is not None and left is not None:
        areas = right.sum(), left.sum()
        asymmetry = float((areas[0] - areas[1]) / (areas[0] + areas[1]))
        if heart is not None:
            ratio = float(_width(heart) / _chest_width(right, left))
            inside = _inside(heart, right | left)
    return Anatomy(
        ratio,
        None if right is None else float(right.mean()),
        None if left is None else float(left.mean()),
        asymmetry,
        inside,
        sum(name in there for name in ("left_clavicle", "right_clavicle")),
        len(there),
    )


def _width(mask: np.ndarray) -> int:
    """Return the greatest width: from the first to the last column that it reaches."""
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[-1] - columns[0] + 1)


def _chest_width(right: np.ndarray, left: np.ndarray) -> int:
    """Return the greatest distance of the lungs' outer borders in a row that both reach.

    Where they share no row, that over all rows.
    """
    rows = np.flatnonzero(right.any(axis=1) & left.any(axis=1))
    if len(rows) == 0:
        return _width(right | left)
    both = (right | left)[rows]
    first = both.argmax(axis=1)
    last = both.shape[1] - 1 - both[:, ::-1].argmax(axis=1)
    return int((last - first).max() + 1)


def _inside(heart: np.ndarray, lungs: np.ndarray) -> float:
    """Return the share of the heart within the rectangle around the lungs."""
    rows, columns = (np.flatnonzero(lungs.any(axis=axis)) for axis in (1, 0))
    within = heart[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].sum()
    return float(within / heart.sum())
