"""Precision, recall, density, coverage: overlap of two manifolds of k-nearest-neighbour balls.

Kynkäänniemi et al., 2019; Naeem et al., 2020. The conventions are those of the `prdc` package
0.2: the ball of a point reaches to its k-th neighbour other than itself, and a point lies inside
if it is strictly nearer.

Distances of all pairs come from float32 matrix products of centred features, block by block, so
memory does not grow with the number of pairs. A product gives squared distances within a proven
rounding bound; only where that bound leaves open on which side of a radius a pair lies is the
pair recomputed in float64 by direct difference. Every membership is therefore exact.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.fidelity.arrays import CPU, blocks, check_pair, to_float64

_ROUNDING = 2.0**-24  # unit roundoff of float32
_TIE = 1e-12  # distances this near to each other, relatively, are equal in float64
_DENSE = 0.05  # share of a block from which recomputing all of it is the faster way


GROUPS = 20
"""Groups of images of which one at a time is left out, for the intervals."""


@dataclass(frozen=True)
class Manifolds:
    """Who lies in whose balls; the four metrics are means of these arrays.

    The balls that hold a point are counted by the group of their centres, g groups a side of
    consecutive rows (images of one patient stand together), to say what is left without a group.

    Attributes:
        nearest_k: k.
        holding_by: (m, g) how many real balls of each real group hold each generated point.
        reached_by: (n, g) how many generated balls of each generated group hold each real point.
        filled_by: (n, g) how many generated points of each generated group each real ball holds.
    """

    nearest_k: int
    holding_by: np.ndarray
    reached_by: np.ndarray
    filled_by: np.ndarray

    @property
    def balls_holding(self) -> np.ndarray:
        """How many real balls hold each generated point, (m,)."""
        return self.holding_by.sum(axis=1)

    @property
    def real_reached(self) -> np.ndarray:
        """Whether each real point lies in any generated ball, (n,)."""
        return self.reached_by.sum(axis=1) > 0

    @property
    def balls_filled(self) -> np.ndarray:
        """Whether each real ball holds any generated point, (n,)."""
        return self.filled_by.sum(axis=1) > 0

    @property
    def precision(self) -> float:
        """Share of generated points inside the real manifold, 0 to 1."""
        return float((self.balls_holding > 0).mean())

    @property
    def recall(self) -> float:
        """Share of real points inside the generated manifold, 0 to 1."""
        return float(self.real_reached.mean())

    @property
    def density(self) -> float:
        """Real balls per generated point, divided by k: 1 in expectation for equal sets."""
        return float(self.balls_holding.mean() / self.nearest_k)

    @property
    def coverage(self) -> float:
        """Share of real balls that hold a generated point, 0 to 1."""
        return float(self.balls_filled.mean())

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95% intervals of precision, recall and coverage, with the balls' radii held fixed.

        The variance has two parts: of the points that are judged (their plain variance over their
        number) and of those whose balls judge them (the delete-a-group jackknife). The interval is
        Wilson's at the number of images that gives this variance, so that a share of 0 or 1 has
        one, too. What is covered is the expectation at these n and m: like the values, it depends
        on them.

        Density has none: it moves with the radii, which these intervals hold fixed. In simulations
        at 16 dimensions such an interval held only 85% of the time.
        """
        return {
            "precision": _share_interval(self.balls_holding > 0, _without_groups(self.holding_by)),
            "recall": _share_interval(self.real_reached, _without_groups(self.reached_by)),
            "coverage": _share_interval(self.balls_filled, _without_groups(self.filled_by)),
        }


def _without_groups(held_by: np.ndarray) -> np.ndarray:
    """Return the share of points that any ball holds without each group's balls, (g,)."""
    return (held_by.sum(axis=1, keepdims=True) > held_by).mean(axis=0)


def _jackknife_variance(left: np.ndarray) -> float:
    return float((len(left) - 1) * left.var())


def _share_interval(inside: np.ndarray, left: np.ndarray) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share, at the effective number of points."""
    n, share = float(len(inside)), float(inside.mean())
    variance = share * (1 - share) / n + _jackknife_variance(left)
    if 0 < share < 1:
        n = min(n, share * (1 - share) / variance)
    squared = 1.96**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = 1.96 * (share * (1 - share) / n + squared / (4 * n**2)) ** 0.5 / (1 + squared / n)
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def _groups(n: int, groups: int) -> np.ndarray:
    """Return each row's group, (n,): consecutive rows, groups of equal size give or take one."""
    return np.arange(n) * groups // n


def manifold_overlap(
    real: np.ndarray, generated: np.ndarray, nearest_k: int = 5, device: torch.device = CPU
) -> Manifolds:
    """Return the memberships behind precision, recall, density and coverage.

    Args:
        real: (n, d), n > nearest_k.
        generated: (m, d), m > nearest_k.
        nearest_k: which neighbour's distance is a ball's radius.
        device: where to compute.

    Raises:
        ValueError: too few rows, another d, or features that are not finite.
    """
    check_pair(real, generated, minimum=nearest_k + 1)
    x, y = to_float64(real, device), to_float64(generated, device)
    radii_x, radii_y = _squared_radii(x, nearest_k), _squared_radii(y, nearest_k)
    centre = (x.mean(dim=0) + y.mean(dim=0)) / 2
    points_x, points_y = _Centred(x, centre), _Centred(y, centre)
    groups = min(GROUPS, len(x), len(y))
    group_x = torch.from_numpy(_groups(len(x), groups)).to(device)
    group_y = torch.from_numpy(_groups(len(y), groups)).to(device)
    holding = torch.zeros(len(y) * groups, dtype=torch.int64, device=device)
    reached, filled = [], []
    for rows in blocks(len(x), len(y), 1 << 22):
        low, high = _bounds(points_x, points_y, rows)
        cells = (rows.stop - rows.start) * groups
        # In place: where many pairs are near, their numbers are the largest thing in memory.
        row, column = _nearer(x, y, rows, low, high, radii_x[rows, None])
        at = group_y[column].add_(row, alpha=groups)
        filled.append(at.bincount(minlength=cells))
        at = group_x[rows][row].add_(column, alpha=groups)
        holding += at.bincount(minlength=len(holding))
        del row, column, at
        row, column = _nearer(x, y, rows, low, high, radii_y[None, :])
        at = group_y[column].add_(row, alpha=groups)
        reached.append(at.bincount(minlength=cells))
        del row, column, at
    arrays = (holding, torch.cat(reached), torch.cat(filled))
    return Manifolds(nearest_k, *(part.reshape(-1, groups).cpu().numpy() for part in arrays))


class _Centred:
    """Points about a centre in float32, with their squared lengths."""

    def __init__(self, points: Tensor, centre: Tensor):
        self.points = (points - centre).float()
        self.squares = self.points.double().square().sum(dim=1).float()


def _bounds(x: _Centred, y: _Centred, rows: slice) -> tuple[Tensor, Tensor]:
    """Return a lower and an upper bound of the squared distances of x[rows] and all of y.

    |x|^2 + |y|^2 - 2 x.y in float32 is wrong by less than (d + 16) u (|x|^2 + |y|^2): d u for
    the dot product (Higham, 2002, section 3.1), the rest for rounding the centred coordinates,
    the squared lengths and the two sums.
    """
    slack = (x.points.shape[1] + 16) * _ROUNDING
    product = x.points[rows] @ y.points.T
    squares = x.squares[rows, None] + y.squares[None, :]
    low = torch.add(squares * (1 - slack), product, alpha=-2)
    return low, low + squares * (2 * slack)


def _squared_radii(x: Tensor, nearest_k: int) -> Tensor:
    """Return each point's squared distance to its k-th neighbour, (n,) float64.

    A point is its own nearest neighbour, so that is the (k + 1)-th smallest of its row.
    """
    points = _Centred(x, x.mean(dim=0))
    radii = x.new_empty(len(x))
    for rows in blocks(len(x), len(x), 1 << 22):
        low, high = _bounds(points, points, rows)
        # The (k + 1)-th smallest upper bound is no less than the radius: whoever is surely
        # farther away is no candidate.
        reach = high.topk(nearest_k + 1, dim=1, largest=False).values[:, -1:]
        row, column = _pairs(low <= reach)
        if len(row) > _DENSE * low.numel():
            radii[rows] = _all_squared(x[rows], x).kthvalue(nearest_k + 1, dim=1).values
            continue
        exact = _pair_squared(x[rows], x, row, column)
        order = exact.argsort()
        order = order[row[order].argsort(stable=True)]
        counts = row.bincount(minlength=len(low))
        radii[rows] = exact[order[counts.cumsum(0) - counts + nearest_k]]
    return radii


def _nearer(
    x: Tensor, y: Tensor, rows: slice, low: Tensor, high: Tensor, radii: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the pairs of x[rows] and y that are nearer than `radii` (squared, broadcast).

    Row numbers count from the start of the block.
    """
    inside = high < (radii * (1 - 2 * _ROUNDING)).float()
    possible = low < (radii * (1 + 2 * _ROUNDING)).float()
    row, column = _pairs(possible & ~inside)
    limits = (radii * (1 - _TIE)).expand(low.shape)
    if len(row) > _DENSE * low.numel():
        return _pairs(_all_squared(x[rows], y) < limits)
    exact = _pair_squared(x[rows], y, row, column)
    inside[row, column] = exact < limits[row, column]
    return _pairs(inside)


def _pairs(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row and column numbers where `chosen` is true, row by row."""
    row, column = chosen.nonzero(as_tuple=True)
    return row, column


def _pair_squared(x: Tensor, y: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return the squared distances of the pairs (x[row], y[column]) by direct difference."""
    exact = x.new_empty(len(row))
    for part in blocks(len(row), x.shape[1], 1 << 17):
        exact[part] = (x[row[part]] - y[column[part]]).square_().sum(dim=1)
    return exact


def _all_squared(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances of all pairs by direct difference."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(x, y, compute_mode=mode).square_()
