"""Which classes a network draws, as on masks at full size, but from its finest map.

At full size, a class is present if the largest connected piece of its mask covers more than a share
of the image. The masks are the finest map's logits, interpolated bilinearly. To interpolate 159
classes would cost more than all other masks, and the map decides nearly all of them:

- four neighbouring pixels above zero keep all that is interpolated between them above zero, so
  enough of such cells in one piece are a large piece;
- a pixel reaches as far as its neighbours, so a few pixels cannot become a large piece.

The rest is interpolated in its own neighbourhood.
"""

import functools
import math
from typing import Final

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

_WITH_DIAGONALS: Final = np.ones((3, 3), int)

_MANY: Final = 8  # groups of pixels, above which it is faster to interpolate the whole map


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected piece of a mask, bool (h, w), without diagonal connections."""
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest: np.ndarray = pieces == sizes.argmax()
    return largest


def present(fine: Tensor, scale: int, least: float) -> np.ndarray:
    """Return which classes have a piece above a share of the image at full size, bool (n, classes).

    Args:
        fine: logits on the finest map, (n, classes, h, w).
        scale: side of the image over the map's side.
        least: the share.
    """
    limit = least * fine.shape[2] * fine.shape[3]  # in pixels of the map
    result = np.zeros(fine.shape[:2], bool)
    ever = (fine > 0).flatten(2).any(2).any(0)  # the other classes are drawn in no image
    fine = fine[:, ever]
    drawn = fine > 0
    cells = _all_of(drawn, 2)
    # Most structures fill a square of cells above the limit. The others are looked at one by one.
    filled = _all_of(cells, math.isqrt(int(limit)) + 1).flatten(2).any(2)
    # A pixel reaches less than one pixel beyond itself on each side.
    unsure = ~filled & (4 * torch.count_nonzero(drawn, dim=(2, 3)) > limit)
    found: np.ndarray = filled.cpu().numpy()
    small, of_cells = (x[unsure].cpu().numpy() for x in (fine, cells))
    found[unsure.cpu().numpy()] = [
        largest_piece(inner).sum() > limit or _interpolated(logits, scale, limit)
        for logits, inner in zip(small, of_cells, strict=True)
    ]
    result[:, ever.cpu().numpy()] = found
    return result


def _all_of(drawn: Tensor, side: int) -> Tensor:
    """Return where a square of pixels is drawn as a whole, by its first pixel."""
    for dimension in (2, 3):
        length = drawn.shape[dimension] - side + 1
        shifted = [drawn.narrow(dimension, start, length) for start in range(side)]
        drawn = functools.reduce(torch.logical_and, shifted)
    return drawn


def _interpolated(logits: np.ndarray, scale: int, limit: float) -> bool:
    """Return whether a class has a piece above `limit` map pixels, at full size."""
    groups, count = ndimage.label(logits > 0, structure=_WITH_DIAGONALS)
    large = np.flatnonzero(4 * np.bincount(groups.ravel(), minlength=count + 1)[1:] > limit) + 1
    if len(large) > _MANY:
        return _largest(logits, scale) > limit
    places = ndimage.find_objects(groups)
    for number in large.tolist():
        rows, columns = places[number - 1]
        around = (
            slice(max(0, rows.start - 1), rows.stop + 1),
            slice(max(0, columns.start - 1), columns.stop + 1),
        )
        # No cell has pixels of two groups, so the other groups do not matter to this one's piece.
        others = (groups[around] != number) & (logits[around] > 0)
        if _largest(np.where(others, np.float32(-1), logits[around]), scale) > limit:
            return True
    return False


def _largest(logits: np.ndarray, scale: int) -> float:
    """Return the area of the largest piece at full size, in pixels of the map."""
    whole = functional.interpolate(
        torch.from_numpy(logits)[None, None],
        scale_factor=scale,
        mode="bilinear",
        align_corners=False,
    )
    return float(largest_piece(whole[0, 0].numpy() > 0).sum() / scale**2)
