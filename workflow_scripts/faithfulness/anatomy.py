"""Anatomy of a radiograph, measured on masks of its structures.

The first column of a mask is on the patient's right, as in a frontal radiograph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from workflow_scripts.faithfulness.classes import CLASSES
from workflow_scripts.faithfulness.organs import LEAST_SHARE
from workflow_scripts.faithfulness.presence import largest_piece

STRUCTURES: Final = tuple(CLASSES)
"""The structures that are measured."""


@dataclass(frozen=True)
class Anatomy:
    """The measures of one image. A measure is None if a structure that it needs is absent.

    Attributes:
        ratio: the cardiothoracic ratio: the greatest width of the heart over the greatest width of
            the chest, between the outer borders of the lungs in rows that both lungs reach.
        area_right: the right lung's share of the image.
        area_left: the left lung's share of the image.
        asymmetry: (right - left) / (right + left) of the lungs' areas, from -1 to 1.
        heart_inside: share of the heart within the bounding box of both lungs.
        clavicles: number of clavicles that are present, 0 to 2.
    """

    ratio: float | None
    area_right: float | None
    area_left: float | None
    asymmetry: float | None
    heart_inside: float | None
    clavicles: int


def measure(masks: Mapping[str, np.ndarray]) -> Anatomy:
    """Measure the masks of one image, on the largest connected piece of each structure.

    A network's masks have specks, which would extend a width.

    Args:
        masks: bool (h, w) of one size, by the names of STRUCTURES.

    Raises:
        KeyError: the mask of a structure is missing.
    """
    least = LEAST_SHARE * masks["heart"].size
    pieces = {name: largest_piece(masks[name]) for name in STRUCTURES}
    present = {name: mask for name, mask in pieces.items() if mask.sum() > least}
    heart, right, left = (present.get(name) for name in ("heart", "right_lung", "left_lung"))
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
        sum(name in present for name in ("left_clavicle", "right_clavicle")),
    )


def _width(mask: np.ndarray) -> int:
    """Return the width of a mask, from its first to its last column, in pixels."""
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[-1] - columns[0] + 1)


def _chest_width(right: np.ndarray, left: np.ndarray) -> int:
    """Return the greatest distance between the lungs' outer borders in a row that both reach.

    If they share no row, it is the width of both lungs together.
    """
    rows = np.flatnonzero(right.any(axis=1) & left.any(axis=1))
    if len(rows) == 0:
        return _width(right | left)
    both = (right | left)[rows]
    first = both.argmax(axis=1)
    last = both.shape[1] - 1 - both[:, ::-1].argmax(axis=1)
    return int((last - first).max() + 1)


def _inside(heart: np.ndarray, lungs: np.ndarray) -> float:
    """Return the share of the heart within the bounding box of the lungs."""
    rows, columns = (np.flatnonzero(lungs.any(axis=axis)) for axis in (1, 0))
    within = heart[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].sum()
    return float(within / heart.sum())
