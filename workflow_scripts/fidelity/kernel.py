"""KID: the squared maximum mean discrepancy under a cubic polynomial kernel.

Bińkowski et al., 2018: k(x, y) = (x.y / d + 1)^3 and the unbiased estimate. It does not have FID's
sample-size bias and may be negative. Common implementations average it over random subsets. Here
every pair counts once, which has the same expectation and less noise.

The estimate is unbiased for independent images. Images of one patient are not independent, because
they resemble one another. With few patients, such pairs raise the mean within a side. Between the
sides, pairs of a generated image and the radiograph of its own caption bring the sides closer. So
pairs of one patient are excluded from all three means, which then compare different patients.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from workflow_scripts.fidelity.arrays import CPU, blocks, check_pair, to_float64
from workflow_scripts.fidelity.resample import Resamples, Units, units_of

SMALLEST_FOR_INTERVAL = 10
"""Fewest patients of a side for a useful bootstrap interval."""

_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class KernelDistance:
    """KID and its uncertainty.

    Attributes:
        value: the estimate.
        interval: its 95% interval; None if not asked for, or if there are too few patients.
        replicates: (r,) the estimate in each bootstrap replicate, for differences between models;
            empty without an interval.
    """

    value: float
    interval: tuple[float, float] | None
    replicates: np.ndarray


def why_no_distance(units: Units) -> str | None:
    """Return the reason if a side has only one patient, so that it has no pairs; else None."""
    for name, unit_numbers in (("reference", units.real), ("generated", units.generated)):
        if len(np.unique(unit_numbers)) < 2:
            return f"the {name} images are of one patient"
    return None


def kernel_distance(
    real: np.ndarray,
    generated: np.ndarray,
    units: Units | None = None,
    resamples: Resamples | None = None,
    device: torch.device = CPU,
    *,
    within_units: bool = False,
) -> KernelDistance:
    """Return KID over the pairs of different units, in one pass over blocks of the kernel matrices.

    The interval is the percentile interval of a multinomial bootstrap of units. A unit drawn twice
    makes no pair with its own copy. Such a bootstrap is too narrow if there are few units, or if a
    few units hold most images. So it is widened by Student's quantile for the side with fewer
    units, and to the spread of the jackknife, which accounts for the size of each unit.

    KID is a U-statistic of units. Its variance has a first-order part, from each unit's
    contribution, and a second-order part, from pairs. Only the second remains for two samples of
    one distribution (Hoeffding, 1948), and there a bootstrap of pairs counts it three times. So if
    KID is below its second-order standard error, the replicates are shrunk to the sum of the two
    parts, which are estimated from the centred matrices of pairs.

    Args:
        real: (n, d), n >= 2.
        generated: (m, d), m >= 2.
        units: the patients of the rows; None treats each image as a unit.
        resamples: resamples of these units; None for no interval.
        device: where to compute.
        within_units: whether pairs of different images of one unit count, too, as in common
            implementations of KID; see `Deviations.kid_pairs_within_patients`.

    Raises:
        ValueError: a side has fewer than two rows or only one unit, d differs, or features are not
            finite.
    """
    check_pair(real, generated, minimum=2)
    units = units or units_of(len(real), len(generated))
    why = None if within_units else why_no_distance(units)
    if why is not None:
        raise ValueError(f"no features of two patients to compare: {why}")
    if resamples is not None and units.fewest < SMALLEST_FOR_INTERVAL:
        resamples = None
    x, y = _side(real, units.real, device), _side(generated, units.generated, device)
    # A constant subtracted from all three matrices cancels in KID. It keeps the sums accurate if
    # the features have a large offset.
    shift = float(_kernel(x.points[:64], y.points[:64]).mean())
    how = (shift, resamples is not None, within_units)
    parts = (_within(x, *how), _within(y, *how), _between(x, y, *how))
    value = parts[0].mean + parts[1].mean - 2 * parts[2].mean
    if resamples is None:
        return KernelDistance(value, None, np.zeros(0))
    drawn = torch.from_numpy(resamples.drawn).to(device)
    means = [part.resampled(drawn) for part in parts]
    replicates = (means[0] + means[1] - 2 * means[2]).cpu().numpy()
    replicates += value - replicates.mean()
    scale = stats.t.ppf(0.975, units.fewest - 1) / stats.norm.ppf(0.975)
    scale *= _scale_of_replicates(value, replicates, *_variances(*parts, units))
    low, high = np.quantile(value + scale * (replicates - value), [0.025, 0.975])
    return KernelDistance(value, (float(low), float(high)), replicates)


def _scale_of_replicates(
    value: float, replicates: np.ndarray, first: float, second: float, widened: float
) -> float:
    """Return the factor of the replicates' deviations from KID, see `kernel_distance`.

    `first`, `second` and `widened` are those of `_variances`.
    """
    if value >= second**0.5:
        return widened
    spread = float(replicates.std())
    return min(1.0, (first + second) ** 0.5 / spread) if spread > 0 else 1.0


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)


@dataclass(frozen=True)
class _Side:
    """One side's images, sorted by unit.

    Attributes:
        points: (n, d) float64 features.
        units: (u,) the units of this side, ascending.
        codes: (n,) the unit of each row.
        places: (n,) the position of each row's unit in `units`.
        sizes: (u,) float64, number of rows of each unit.
    """

    points: Tensor
    units: np.ndarray
    codes: Tensor
    places: Tensor
    sizes: Tensor

    @property
    def single(self) -> bool:
        """Whether each row is a unit of its own."""
        return len(self.units) == len(self.codes)


def _side(features: np.ndarray, units: np.ndarray, device: torch.device) -> _Side:
    """Return one side's images, sorted by unit."""
    order = np.argsort(units, kind="stable")
    names, places, sizes = np.unique(units[order], return_inverse=True, return_counts=True)
    return _Side(
        to_float64(features[order], device),
        names,
        torch.from_numpy(units[order].astype(np.int32)).to(device),
        torch.from_numpy(places).to(device),
        torch.from_numpy(sizes.astype(np.float64)).to(device),
    )


@dataclass(frozen=True)
class _Pairs:
    """A kernel matrix minus a shift, summed over the images of each pair of units.

    Attributes:
        rows: the images of the matrix's rows.
        columns: the images of its columns.
        shared: (2, s) positions of the units on both sides, in `rows` and in `columns`.
        left_out: (s,) float64, number of image pairs within each shared unit that do not count.
        total: the sum over the pairs that count.
        sums: (u, v) float64, the sum for each pair of units; None if no interval is asked for.
    """

    rows: _Side
    columns: _Side
    shared: Tensor
    left_out: Tensor
    total: float
    sums: Tensor | None

    @property
    def pairs(self) -> float:
        """The number of image pairs that count."""
        pairs = self.rows.sizes.sum() * self.columns.sizes.sum() - self.left_out.sum()
        return float(pairs)

    @property
    def mean(self) -> float:
        """The mean over the pairs that count."""
        return self.total / self.pairs

    def resampled(self, drawn: Tensor) -> Tensor:
        """Return the mean in each replicate, (r,); `drawn` is (all units, r)."""
        assert self.sums is not None
        rows, columns = drawn[self.rows.units], drawn[self.columns.units]
        totals = (rows * (self.sums.float() @ columns)).sum(0, dtype=torch.float64)
        rows, columns = rows.double(), columns.double()
        pairs = (self.rows.sizes @ rows) * (self.columns.sizes @ columns)
        shared_pairs = rows[self.shared[0]] * columns[self.shared[1]]
        return totals / (pairs - self.left_out @ shared_pairs)

    def counts(self) -> tuple[Tensor, Tensor]:
        """Return the number of counted pairs in each unit's rows, (u,), and columns, (v,)."""
        rows = self.rows.sizes * self.columns.sizes.sum()
        columns = self.columns.sizes * self.rows.sizes.sum()
        rows[self.shared[0]] -= self.left_out
        columns[self.shared[1]] -= self.left_out
        return rows, columns

    def moves(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the influence of each unit on the mean: infinitesimal and delete-one, (count,).

        The first is the derivative of the mean with respect to the unit's weight. The second is the
        mean minus the mean without the unit.

        Args:
            count: number of units of both sides; units without pairs here have no influence.
        """
        assert self.sums is not None
        total, pairs = np.zeros((2, count))
        rows, columns = self.counts()
        for unit_numbers, sums, counted in (
            (self.rows.units, self.sums.sum(1), rows),
            (self.columns.units, self.sums.sum(0), columns),
        ):
            total[unit_numbers] += sums.cpu().numpy()
            pairs[unit_numbers] += counted.cpu().numpy()
        derivative = (total - self.mean * pairs) / self.pairs
        # Pairs within a unit are among its rows and its columns.
        i, j = self.shared
        shared = self.rows.units[i.cpu().numpy()]
        total[shared] -= self.sums[i, j].cpu().numpy()
        pairs[shared] -= (self.rows.sizes[i] * self.columns.sizes[j] - self.left_out).cpu().numpy()
        remaining = self.pairs - pairs
        without = (total - self.mean * pairs) / np.maximum(remaining, 1)
        # With two units, leaving one out leaves no pair for the other.
        return derivative, np.where(remaining > 0, without, 2 * derivative)

    def centred(self) -> Tensor:
        """Return the doubly centred sums over the number of pairs, (u, v).

        Each unit's own mean is subtracted, which leaves the second-order part of the U-statistic.
        """
        assert self.sums is not None
        rows, columns = self.counts()
        row_means, column_means = self.sums.sum(1) / rows, self.sums.sum(0) / columns
        expected = (row_means[:, None] + (column_means - self.mean)).mul_(self.rows.sizes[:, None])
        centred = self.sums - expected.mul_(self.columns.sizes)
        centred[self.shared[0], self.shared[1]] = 0
        u, v = centred.shape
        # The means are estimated from the same pairs, which costs degrees of freedom.
        degrees = (u - 3) / (u - 1) if self.rows is self.columns else (u - 1) * (v - 1) / (u * v)
        return centred.div_(self.pairs * degrees**0.5)


def _within(side: _Side, shift: float, by_unit: bool, within_units: bool) -> _Pairs:
    """Sum over ordered pairs of two images of one side; `by_unit` asks for `_Pairs.sums`.

    The matrix is symmetric. So a block of rows is multiplied only with the columns from its first
    row on, and entries to the right of the block's square count twice.
    """
    points, units = side.points, len(side.units)
    sums = points.new_zeros(units, units) if by_unit else None
    total = 0.0
    for part in blocks(len(points), len(points), _BLOCK_ELEMENTS):
        kernel = _kernel(points[part], points[part.start :]) - shift
        if within_units or side.single:
            kernel.diagonal().zero_()
        else:
            kernel.masked_fill_(side.codes[part, None] == side.codes[None, part.start :], 0)
        square = kernel[:, : part.stop - part.start]
        square *= 0.5
        total += 2 * float(kernel.sum())
        if sums is not None:
            _add(sums, kernel, side.places[part], side.places[part.start :])
    if sums is not None:
        sums = sums + sums.T
    places = torch.arange(units, device=points.device)
    left_out = side.sizes if within_units else side.sizes.square()
    return _Pairs(side, side, torch.stack([places, places]), left_out, total, sums)


def _between(
    real: _Side, generated: _Side, shift: float, by_unit: bool, within_units: bool
) -> _Pairs:
    """Sum over pairs of a real and a generated image; `by_unit` asks for `_Pairs.sums`."""
    x, y = real.points, generated.points
    both = np.intersect1d(real.units, generated.units, assume_unique=True)
    shared = torch.from_numpy(
        np.stack([np.searchsorted(side.units, both) for side in (real, generated)])
    ).to(x.device)
    left_out = real.sizes[shared[0]] * generated.sizes[shared[1]] * (not within_units)
    sums = x.new_zeros(len(real.units), len(generated.units)) if by_unit else None
    total = 0.0
    for part in blocks(len(x), len(y), _BLOCK_ELEMENTS):
        kernel = _kernel(x[part], y) - shift
        if len(both) and not within_units:
            kernel.masked_fill_(real.codes[part, None] == generated.codes[None, :], 0)
        total += float(kernel.sum())
        if sums is not None:
            _add(sums, kernel, real.places[part], generated.places)
    return _Pairs(real, generated, shared, left_out, total, sums)


def _add(sums: Tensor, kernel: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Add a block of a kernel matrix, its rows and columns sorted by unit, to the units' sums."""
    first, last = int(rows[0]), int(rows[-1])
    by_row = kernel
    if last - first + 1 < len(rows):
        by_row = kernel.new_zeros(last - first + 1, kernel.shape[1])
        by_row.index_add_(0, rows - first, kernel)
    left, right = int(columns[0]), int(columns[-1])
    if right - left + 1 < len(columns):
        _, sizes = torch.unique_consecutive(columns, return_counts=True)
        ends = sizes.cumsum(0) - 1
        by_row = by_row.cumsum(1)[:, ends]
        by_row = torch.cat([by_row[:, :1], by_row.diff(dim=1)], dim=1)
    sums[first : last + 1, left : right + 1] += by_row


def _variances(xx: _Pairs, yy: _Pairs, xy: _Pairs, units: Units) -> tuple[float, float, float]:
    """Return KID's first- and second-order variances, and the jackknife's relative width.

    The plain variance of the units' contributions includes the noise of pairs twice. So that is
    subtracted, but the sum of the two parts stays at least the plain estimate. The relative width
    is the jackknife's spread over that of the contributions, >= 1. Without a large unit the mean
    has fewer pairs, so leaving the unit out moves the mean more than its contribution.
    """
    parts = [pairs.moves(units.count) for pairs in (xx, yy, xy)]
    moved, without = (of_xx + of_yy - 2 * of_xy for of_xx, of_yy, of_xy in zip(*parts, strict=True))
    plain = units.fewest / (units.fewest - 1) * float(np.square(moved).sum())
    widened = float(np.square(without).sum() / max(np.square(moved).sum(), 1e-300)) ** 0.5
    x, y, cross = xx.centred(), yy.centred(), xy.centred()
    second = float(x.square().sum() + y.square().sum() + 2 * cross.square().sum())
    if len(xy.left_out):
        # For patients on both sides, the three matrices' entries of a pair are correlated.
        i, j = xy.shared
        x, y, cross = x[i][:, i], y[j][:, j], cross[i][:, j]
        second += 2 * float((cross * cross.T).sum() + (x * y).sum() - 2 * ((x + y) * cross).sum())
    second *= 2
    first = max(0.0, plain - 2 * second)
    return max(first, plain - second), second, max(1.0, widened)
