"""KID: the squared maximum mean discrepancy under a cubic polynomial kernel.

Binkowski et al., 2018: k(x, y) = (x.y / d + 1)^3 and the unbiased estimate, which is free of
the sample-size bias of FID and may fall below zero. The usual implementations average it over
random subsets; here every pair counts once, which is the same expectation with less noise.

It is unbiased where images are independent. Images of one patient are not: their pairs are alike,
and with few patients they would raise the mean of a side, and lower the mean between the sides
where a generated image is compared with the radiograph whose caption it was made from. So no pair
of one patient counts, in none of the three means: what is left compares different patients.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from workflow_scripts.fidelity.arrays import CPU, blocks, check_pair, to_float64
from workflow_scripts.fidelity.resample import Resamples, Units, units_of

SMALLEST_FOR_INTERVAL = 10
"""Patients of a side below which a bootstrap says nothing of value."""

_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class KernelDistance:
    """KID and its uncertainty.

    Attributes:
        value: the estimate.
        interval: 95%; None when not asked for, or too few patients.
        replicates: (r,) values that it would have had with other patients, for differences between
            models; empty without an interval.
    """

    value: float
    interval: tuple[float, float] | None
    replicates: np.ndarray


def why_no_distance(units: Units) -> str | None:
    """Return why no two patients can be compared on and between the sides, or None."""
    for name, own in (("reference", units.real), ("generated", units.generated)):
        if len(np.unique(own)) < 2:
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
    makes no pair with its own copy. Such a bootstrap is too narrow where units are few or a few of
    them hold most images: it is widened by Student's quantile for the smaller side, and to the
    spread of the jackknife, which leaves each unit out with the weight that it has.

    KID is a U-statistic of units: its variance has a part of first order, of what each unit
    contributes, and one of second order, of pairs, which alone is left for two samples of one
    distribution (Hoeffding, 1948). There a bootstrap of pairs counts it three times. So where KID
    is no more than its second-order standard error, the replicates are drawn together to the
    variance that the two parts, estimated from the centred matrices of pairs, have in sum.

    Args:
        real: (n, d), n >= 2.
        generated: (m, d), m >= 2.
        units: the patients of the rows; None where each image is a unit.
        resamples: of these units; None for no interval.
        device: where to compute.
        within_units: whether pairs of different images of one unit count, too: as everybody else
            computes KID, see `Deviations.kid_pairs_within_patients`.

    Raises:
        ValueError: fewer than two rows, another d, features that are not finite, or units that
            make no pair.
    """
    check_pair(real, generated, minimum=2)
    units = units or units_of(len(real), len(generated))
    why = None if within_units else why_no_distance(units)
    if why is not None:
        raise ValueError(f"no features of two patients to compare: {why}")
    if resamples is not None and units.fewest < SMALLEST_FOR_INTERVAL:
        resamples = None
    x, own = _side(real, units.real, device)
    y, other = _side(generated, units.generated, device)
    # A constant taken off all three matrices cancels in KID, and keeps sums accurate when the
    # features have a large offset.
    shift = float(_kernel(x[:64], y[:64]).mean())
    wanted = resamples is not None
    parts = (
        _within(x, own, shift, wanted, within_units),
        _within(y, other, shift, wanted, within_units),
        _between(x, y, own, other, shift, wanted, within_units),
    )
    value = parts[0].mean + parts[1].mean - 2 * parts[2].mean
    if resamples is None:
        return KernelDistance(value, None, np.zeros(0))
    drawn = torch.from_numpy(resamples.drawn).to(device)
    means = [part.resampled(drawn) for part in parts]
    boot = (means[0] + means[1] - 2 * means[2]).cpu().numpy()
    boot += value - boot.mean()
    scale = stats.t.ppf(0.975, units.fewest - 1) / stats.norm.ppf(0.975)
    first, second, widened = _variances(*parts, units)
    if value >= second**0.5:
        scale *= widened
    elif boot.std() > 0:
        scale *= min(1.0, (first + second) ** 0.5 / boot.std())
    low, high = np.quantile(value + scale * (boot - value), [0.025, 0.975])
    return KernelDistance(value, (float(low), float(high)), boot)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)


@dataclass(frozen=True)
class _Rows:
    """Whose the rows of a side are, in the order of their units.

    Attributes:
        units: (u,) the units of this side, ascending.
        codes: (n,) the unit of each row.
        places: (n,) where it stands in `units`.
        sizes: (u,) float64, rows of each unit.
    """

    units: np.ndarray
    codes: Tensor
    places: Tensor
    sizes: Tensor

    @property
    def single(self) -> bool:
        """Whether each row is a unit of its own."""
        return len(self.units) == len(self.codes)


def _side(features: np.ndarray, units: np.ndarray, device: torch.device) -> tuple[Tensor, _Rows]:
    """Return the features in the order of their units, and whose they are."""
    order = np.argsort(units, kind="stable")
    names, places, sizes = np.unique(units[order], return_inverse=True, return_counts=True)
    rows = _Rows(
        names,
        torch.from_numpy(units[order].astype(np.int32)).to(device),
        torch.from_numpy(places).to(device),
        torch.from_numpy(sizes.astype(np.float64)).to(device),
    )
    return to_float64(features[order], device), rows


@dataclass(frozen=True)
class _Pairs:
    """A kernel matrix less a shift, in sums over pairs of units.

    Attributes:
        own: whose the rows are.
        other: whose the columns are.
        shared: (2, s) places of the units that both have, in `own` and in `other`.
        left_out: (s,) float64, pairs of images within each of these that do not count.
        total: the sum over the pairs that count.
        sums: (u, v) float64, of the pairs that count; None where no resample asks for it.
    """

    own: _Rows
    other: _Rows
    shared: Tensor
    left_out: Tensor
    total: float
    sums: Tensor | None

    @property
    def pairs(self) -> float:
        """How many pairs count."""
        pairs = self.own.sizes.sum() * self.other.sizes.sum() - self.left_out.sum()
        return float(pairs)

    @property
    def mean(self) -> float:
        """The mean over the pairs that count."""
        return self.total / self.pairs

    def resampled(self, drawn: Tensor) -> Tensor:
        """Return the mean in each replicate, (r,); `drawn` is (all units, r)."""
        assert self.sums is not None
        rows, columns = drawn[self.own.units], drawn[self.other.units]
        totals = (rows * (self.sums.float() @ columns)).sum(0, dtype=torch.float64)
        rows, columns = rows.double(), columns.double()
        pairs = (self.own.sizes @ rows) * (self.other.sizes @ columns)
        both = rows[self.shared[0]] * columns[self.shared[1]]
        return totals / (pairs - self.left_out @ both)

    def counts(self) -> tuple[Tensor, Tensor]:
        """Return how many pairs that count each unit's rows (u,) and columns (v,) have."""
        rows = self.own.sizes * self.other.sizes.sum()
        columns = self.other.sizes * self.own.sizes.sum()
        rows[self.shared[0]] -= self.left_out
        columns[self.shared[1]] -= self.left_out
        return rows, columns

    def moves(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return how far each unit moves the mean: by a little more weight, and by being there.

        The first is the derivative by the unit's weight, the second the mean less that without it.

        Args:
            count: units of both sides; those that have no pairs here move nothing.
        """
        assert self.sums is not None
        total, pairs = np.zeros((2, count))
        rows, columns = self.counts()
        for of, sums, counted in (
            (self.own.units, self.sums.sum(1), rows),
            (self.other.units, self.sums.sum(0), columns),
        ):
            total[of] += sums.cpu().numpy()
            pairs[of] += counted.cpu().numpy()
        derivative = (total - self.mean * pairs) / self.pairs
        # Pairs within a unit are among its rows and its columns.
        i, j = self.shared
        both = self.own.units[i.cpu().numpy()]
        total[both] -= self.sums[i, j].cpu().numpy()
        pairs[both] -= (self.own.sizes[i] * self.other.sizes[j] - self.left_out).cpu().numpy()
        left = self.pairs - pairs
        without = (total - self.mean * pairs) / np.maximum(left, 1)
        # Of two units, none is left to compare the other with.
        return derivative, np.where(left > 0, without, 2 * derivative)

    def centred(self) -> Tensor:
        """Return what is left of the sums without each unit's own mean, over the pairs, (u, v)."""
        assert self.sums is not None
        rows, columns = self.counts()
        own, other = self.sums.sum(1) / rows, self.sums.sum(0) / columns
        left = (own[:, None] + (other - self.mean)).mul_(self.own.sizes[:, None])
        left = self.sums - left.mul_(self.other.sizes)
        left[self.shared[0], self.shared[1]] = 0
        u, v = left.shape
        # Means are of these very pairs, which takes from their squares.
        lost = (u - 3) / (u - 1) if self.own is self.other else (u - 1) * (v - 1) / (u * v)
        return left.div_(self.pairs * lost**0.5)


def _within(x: Tensor, rows: _Rows, shift: float, wanted: bool, within_units: bool) -> _Pairs:
    """Sum over ordered pairs of two images of one side.

    The matrix is symmetric: a block of rows is multiplied with the columns from its own first
    row on, and what lies right of the block counts twice.
    """
    units = len(rows.units)
    sums = x.new_zeros(units, units) if wanted else None
    total = 0.0
    for part in blocks(len(x), len(x), _BLOCK_ELEMENTS):
        kernel = _kernel(x[part], x[part.start :]) - shift
        if within_units or rows.single:
            kernel.diagonal().zero_()
        else:
            kernel.masked_fill_(rows.codes[part, None] == rows.codes[None, part.start :], 0)
        own = kernel[:, : part.stop - part.start]
        own *= 0.5
        total += 2 * float(kernel.sum())
        if sums is not None:
            _add(sums, kernel, rows.places[part], rows.places[part.start :])
    if sums is not None:
        sums = sums + sums.T
    places = torch.arange(units, device=x.device)
    left_out = rows.sizes if within_units else rows.sizes.square()
    return _Pairs(rows, rows, torch.stack([places, places]), left_out, total, sums)


def _between(
    x: Tensor,
    y: Tensor,
    own: _Rows,
    other: _Rows,
    shift: float,
    wanted: bool,
    within_units: bool,
) -> _Pairs:
    """Sum over pairs of a real and a generated image."""
    both = np.intersect1d(own.units, other.units, assume_unique=True)
    shared = torch.from_numpy(
        np.stack([np.searchsorted(side.units, both) for side in (own, other)])
    ).to(x.device)
    left_out = own.sizes[shared[0]] * other.sizes[shared[1]] * (not within_units)
    sums = x.new_zeros(len(own.units), len(other.units)) if wanted else None
    total = 0.0
    for part in blocks(len(x), len(y), _BLOCK_ELEMENTS):
        kernel = _kernel(x[part], y) - shift
        if len(both) and not within_units:
            kernel.masked_fill_(own.codes[part, None] == other.codes[None, :], 0)
        total += float(kernel.sum())
        if sums is not None:
            _add(sums, kernel, own.places[part], other.places)
    return _Pairs(own, other, shared, left_out, total, sums)


def _add(sums: Tensor, kernel: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Add a block of a kernel matrix, whose rows and columns are ordered by unit, to their sums."""
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
    """Return the parts of KID's variance of first and of second order, and the jackknife's width.

    The plain variance of what the units contribute holds the noise of pairs twice: it is taken off,
    but the sum of both parts is no less than the plain estimate. The last is how many times as wide
    the jackknife's spread is: a mean without a unit has fewer pairs, so that a unit of many images
    moves it further than what it contributes.
    """
    parts = [pairs.moves(units.count) for pairs in (xx, yy, xy)]
    moved, without = (of_xx + of_yy - 2 * of_xy for of_xx, of_yy, of_xy in zip(*parts, strict=True))
    plain = units.fewest / (units.fewest - 1) * float(np.square(moved).sum())
    widened = float(np.square(without).sum() / max(np.square(moved).sum(), 1e-300)) ** 0.5
    x, y, cross = xx.centred(), yy.centred(), xy.centred()
    second = float(x.square().sum() + y.square().sum() + 2 * cross.square().sum())
    if len(xy.left_out):
        # A patient of both sides: the three parts of a pair of patients vary together.
        i, j = xy.shared
        x, y, cross = x[i][:, i], y[j][:, j], cross[i][:, j]
        second += 2 * float((cross * cross.T).sum() + (x * y).sum() - 2 * ((x + y) * cross).sum())
    second *= 2
    first = max(0.0, plain - 2 * second)
    return max(first, plain - second), second, max(1.0, widened)
