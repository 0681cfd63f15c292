"""Squared distances of many pairs: proven bounds from float32 products, exact values where needed.

A matrix product gives the distances of all pairs at once, but with rounding errors. A direct
difference in float64 is accurate (a point and its copy have distance 0), but a hundred times
slower. The bounds tell which pairs the product leaves undecided, and only those are recomputed.
"""

import torch
from torch import Tensor

from workflow_scripts.fidelity.arrays import blocks

ROUNDING = 2.0**-24
"""Unit roundoff of float32."""


SMALLEST, LARGEST = 1e-15, 1e15
"""Limits of the farthest point's distance from the centre: beyond them squares leave float32."""


def check_scale(spread: float) -> None:
    """Check that squared distances fit into float32.

    Args:
        spread: the largest distance of a point from the centre.

    Raises:
        ValueError: `spread` is outside `SMALLEST` to `LARGEST`; 0 is allowed.
    """
    if spread and not SMALLEST <= spread <= LARGEST:
        raise ValueError(
            f"features lie up to {spread:.1e} from their centre: precision, recall, density and "
            f"coverage need {SMALLEST:.0e} to {LARGEST:.0e}, scale both sides alike"
        )


class Centred:
    """Points (n, d) relative to a centre (d,), in float32, with their squared lengths (n,)."""

    def __init__(self, points: Tensor, centre: Tensor):
        self.points = (points - centre).float()
        self.squares = self.points.double().square().sum(dim=1).float()


def bounds(x: Centred, y: Centred, rows: slice) -> tuple[Tensor, Tensor]:
    """Return lower and upper bounds of the squared distances from x[rows] to all of y, float32.

    The error of |x|^2 + |y|^2 - 2 x.y in float32 is below (d + 16) u (|x|^2 + |y|^2), where u is
    `ROUNDING`: d u for the dot product (Higham, 2002, section 3.1), the rest for rounding the
    centred coordinates, the squared lengths and the two sums.
    """
    slack = (x.points.shape[1] + 16) * ROUNDING
    product = x.points[rows] @ y.points.T
    squares = x.squares[rows, None] + y.squares[None, :]
    low = torch.add(squares * (1 - slack), product, alpha=-2)
    return low, low + squares * (2 * slack)


def pair_squared(x: Tensor, y: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return the squared distances of the pairs (x[row], y[column]) by direct difference.

    Args:
        x: (n, d) float64.
        y: (m, d) float64.
        row: (p,) row numbers of x.
        column: (p,) row numbers of y.
    """
    exact = x.new_empty(len(row))
    for part in blocks(len(row), x.shape[1], 1 << 17):
        exact[part] = (x[row[part]] - y[column[part]]).square_().sum(dim=1)
    return exact


def all_squared(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances (n, m) of all pairs of float64 points by direct difference."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(x, y, compute_mode=mode).square_()
