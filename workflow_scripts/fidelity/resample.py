"""Resampling by patient: all images of a patient are drawn, or left out, together.

A patient's radiographs resemble one another, and so do the images generated from their captions.
But a value should hold for other patients. So a bootstrap draws patients, and a jackknife leaves
out groups of patients, with their radiographs and generated images at the same time. A generated
image belongs to the patient of its prompt.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

GROUPS = 20
"""Groups of the jackknife, which leaves out one at a time."""


@dataclass(frozen=True)
class Units:
    """The sampling unit (the patient) of each row, on both sides.

    Attributes:
        real: (n,) the unit of each real image. Units are numbered from 0 without gaps, with the
            same numbers on both sides.
        generated: (m,) the unit of each generated image.
    """

    real: np.ndarray
    generated: np.ndarray

    @property
    def count(self) -> int:
        """Number of units of both sides together."""
        return int(max(self.real.max(), self.generated.max())) + 1

    @property
    def fewest(self) -> int:
        """Number of units of the side that has fewer."""
        return min(len(np.unique(self.real)), len(np.unique(self.generated)))


def units_of(real: np.ndarray | int, generated: np.ndarray | int) -> Units:
    """Return the units of two sides from the patients of their rows.

    Args:
        real: (n,) the patient of each real image; or the number n, if each image is its own unit.
        generated: (m,) the patient of each generated image's prompt; or the number m.
    """
    if not isinstance(real, int | np.integer) and not isinstance(generated, int | np.integer):
        both = np.unique(np.concatenate([real, generated]).astype(str), return_inverse=True)[1]
        return Units(both[: len(real)], both[len(real) :])
    sides = []
    for side in (real, generated):
        codes = (
            np.arange(side)
            if isinstance(side, int | np.integer)
            else np.unique(side.astype(str), return_inverse=True)[1]
        )
        sides.append(codes)
    # The two sides' units interleave, so that groups of consecutive units hold shares of both.
    n_real, n_generated = (int(codes.max()) + 1 for codes in sides)
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in (n_real, n_generated)])
    numbers = np.argsort(np.argsort(places, kind="stable"), kind="stable")
    return Units(numbers[sides[0]], numbers[n_real + sides[1]])


@dataclass(frozen=True)
class Resamples:
    """A multinomial bootstrap of units.

    It depends on the units and the seed alone. So models with the same prompts, compared with the
    same real images, have the same resamples.

    Attributes:
        units: the units of both sides.
        drawn: (u, r) float32, the number of times each unit is drawn in each replicate.
    """

    units: Units
    drawn: np.ndarray

    @property
    def generated(self) -> np.ndarray:
        """The number of times each generated image is drawn in each replicate, (m, r)."""
        return self.drawn[self.units.generated]

    @property
    def real(self) -> np.ndarray:
        """The number of times each real image is drawn in each replicate, (n, r)."""
        return self.drawn[self.units.real]


def draw_resamples(units: Units, replicates: int, rng: np.random.Generator) -> Resamples:
    """Draw bootstrap replicates: as many units as there are, with replacement.

    A replicate with fewer than two different units on a side has no pairs and is drawn again.

    Args:
        units: at least two on each side.
        replicates: number of replicates, r.
        rng: draws the units.

    Raises:
        ValueError: a side has only one unit.
    """
    if units.fewest < 2:
        raise ValueError("a side of one unit cannot be drawn anew")
    sides = [np.isin(np.arange(units.count), side) for side in (units.real, units.generated)]
    drawn = _counts(units.count, replicates, rng)
    while True:
        fewest = np.min([(drawn[side] > 0).sum(axis=0) for side in sides], axis=0)
        without_pairs = np.flatnonzero(fewest < 2)
        if not len(without_pairs):
            return Resamples(units, drawn)
        drawn[:, without_pairs] = _counts(units.count, len(without_pairs), rng)


def _counts(units: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each unit is drawn in each replicate, float32 (units, replicates)."""
    drawn = rng.integers(0, units, (replicates, units))
    drawn += np.arange(replicates)[:, None] * units
    counts = np.bincount(drawn.ravel(), minlength=units * replicates).reshape(replicates, units)
    return np.ascontiguousarray(counts.T, np.float32)


def groups_of(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each row, (n,) and (m,); the rows of a unit share a group.

    There are `GROUPS` groups, or fewer if there are fewer units or a unit is larger than a group.
    Groups hold consecutive units and have nearly equal sizes: with all rows laid out by unit, and
    both sides weighted equally, a unit belongs to the group in which its first row falls.
    """
    count = min(GROUPS, units.fewest)
    sides = (units.real, units.generated)
    shares = [np.bincount(side, minlength=units.count) / len(side) for side in sides]
    sizes = (shares[0] + shares[1]) / 2
    before = np.cumsum(sizes) - sizes
    # Sums of shares may be a rounding error below the whole numbers that they stand for.
    groups = np.minimum((before * count + 1e-9).astype(int), count - 1)
    groups = np.unique(groups, return_inverse=True)[1]
    return groups[units.real], groups[units.generated]


def variance_of_mean(values: np.ndarray, units: np.ndarray | None = None) -> float:
    """Return the variance of the mean of values in independent units (clusters).

    It is the delete-one-unit jackknife variance about the mean, which accounts for the larger
    weight of large units. If each value is its own unit, it is the usual variance over n.

    Args:
        values: (n,).
        units: (n,) the unit of each value; None where each value is its own unit.

    Returns:
        The variance, >= 0; infinity for a single unit.
    """
    moved = means_without(values, units) - values.mean()
    count = len(moved)
    if count < 2:
        return float("inf")
    return float((count - 1) / count * np.square(moved).sum())


def means_without(values: np.ndarray, units: np.ndarray | None = None) -> np.ndarray:
    """Return the mean after leaving out each unit, (u,), in the order of the units.

    Args:
        values: (n,).
        units: (n,) the unit of each value; None where each value is its own unit.

    Returns:
        The means; nan if there is only one unit.
    """
    codes = np.arange(len(values)) if units is None else np.unique(units, return_inverse=True)[1]
    sizes = np.bincount(codes)
    sums = np.bincount(codes, values - values.mean())
    with np.errstate(invalid="ignore"):
        moved: np.ndarray = sums / (len(values) - sizes)
    return values.mean() - moved


def effective_number(values: np.ndarray, units: np.ndarray) -> float:
    """Return the effective sample size of clustered rows, in (0, n].

    It is the number of rows over their design effect (Kish, 1965), at least 1. The larger of two
    estimates of the effect is taken. The variance of the mean over units suits any dependence, but
    is far too small if the rare values fall on small units by chance. The effect that the
    correlation within units has at their sizes (`_correlation_within`) is not. In simulations of
    Wilson's interval, with a share of 10%, rows alike within units, and 17 rows in each of sixteen
    units of 100, the first estimate alone covered 82%, and both cover 98%.

    If all values are equal, the design effect is unknown, and the number of units is returned.

    Args:
        values: (n,) the value of each row.
        units: (n,) the unit of each row.
    """
    alone = variance_of_mean(values)
    codes = np.unique(units, return_inverse=True)[1]
    sizes = np.bincount(codes)
    if len(sizes) < 2 or alone == 0:
        return len(sizes)
    together = variance_of_mean(values, codes) / alone
    typical = float(np.square(sizes).sum() / len(values))  # rows in the unit of a random row
    correlated = 1 + (typical - 1) * _correlation_within(values, codes)
    return len(values) / max(1.0, together, correlated)


def _correlation_within(values: np.ndarray, codes: np.ndarray) -> float:
    """Return the correlation of two rows of one unit, 0 to 1, by analysis of variance (Fisher).

    Args:
        values: (n,) the value of each row, not all equal.
        codes: (n,) the unit of each row, numbered from 0 without gaps; at least two.
    """
    n, sizes = len(values), np.bincount(codes)
    if n == len(sizes):
        return 0.0
    means = np.bincount(codes, values) / sizes
    between = float((sizes * np.square(means - values.mean())).sum()) / (len(sizes) - 1)
    within = float(np.square(values - means[codes]).sum()) / (n - len(sizes))
    rows = (n - float(np.square(sizes).sum()) / n) / (len(sizes) - 1)
    return max(0.0, (between - within) / (between + (rows - 1) * within))


def expanded_tail(units: int, tail: float = 0.025) -> float:
    """Return the tail at which percentiles of a bootstrap of few units hold what they promise.

    Percentiles of few units are too narrow: a bootstrap's variance is too small by (n - 1) / n, and
    it uses the normal quantile where Student's is right. Hesterberg's expanded percentiles (The
    American Statistician 69, 2015) reach as far out as Student's interval with the unbiased
    variance does on a normal distribution.

    Args:
        units: number of units, on the side with fewer.
        tail: share of the draws beyond each bound with many units.
    """
    if units < 2:
        return tail
    far = (units / (units - 1)) ** 0.5 * stats.t.isf(tail, units - 1)
    return float(stats.norm.sf(far))


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson, 1927), which also suits shares of 0 and 1.

    Args:
        share: in [0, 1].
        n: number of independent units, > 0; need not be whole.
    """
    squared = 1.96**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = 1.96 * (share * (1 - share) / n + squared / (4 * n**2)) ** 0.5 / (1 + squared / n)
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
