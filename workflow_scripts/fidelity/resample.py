"""Which images a resample or a group holds: the images of one patient stay together, on both sides.

A patient's radiographs resemble one another, and so do the images generated from their captions;
what a value should hold for is other patients. So one draw of patients, or one group that is left
out, takes the radiographs and the generated images of the same patients. A generated image's
patient is its prompt's.
"""

from dataclasses import dataclass

import numpy as np

GROUPS = 20
"""Groups of images of which one at a time is left out, for the jackknife."""


@dataclass(frozen=True)
class Units:
    """Whose images the rows of both sides are.

    Attributes:
        real: (n,) the unit of each real image; units are numbers from 0 without gaps, and the same
            on both sides.
        generated: (m,) the unit of each generated image.
    """

    real: np.ndarray
    generated: np.ndarray

    @property
    def count(self) -> int:
        """Units of both sides together."""
        return int(max(self.real.max(), self.generated.max())) + 1

    @property
    def fewest(self) -> int:
        """Units of the smaller side."""
        return min(len(np.unique(self.real)), len(np.unique(self.generated)))


def units_of(real: np.ndarray | int, generated: np.ndarray | int) -> Units:
    """Return the units of two sides from the patients of their rows.

    Args:
        real: (n,) the patient of each real image; or n, where each image is a unit of its own.
        generated: (m,) the patient of each prompt; or m.
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
    # Numbered side by side, so that groups of consecutive units hold as much of either.
    own, other = (int(codes.max()) + 1 for codes in sides)
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in (own, other)])
    numbers = np.argsort(np.argsort(places, kind="stable"), kind="stable")
    return Units(numbers[sides[0]], numbers[own + sides[1]])


@dataclass(frozen=True)
class Resamples:
    """A multinomial bootstrap of units.

    Drawn from the units and the seed alone: models with the same prompts, compared with the same
    real images, have the same resamples.

    Attributes:
        units: of both sides.
        drawn: (u, r) float32, how often each unit is drawn in each replicate.
    """

    units: Units
    drawn: np.ndarray

    @property
    def generated(self) -> np.ndarray:
        """How often each generated image is drawn in each replicate, (m, r)."""
        return self.drawn[self.units.generated]

    @property
    def real(self) -> np.ndarray:
        """How often each real image is drawn in each replicate, (n, r)."""
        return self.drawn[self.units.real]


def draw_resamples(units: Units, replicates: int, rng: np.random.Generator) -> Resamples:
    """Draw as many units as there are, with replacement.

    A replicate with fewer than two units of a side has no pair of two units: it is drawn anew.

    Args:
        units: of both sides, at least two each.
        replicates: r.
        rng: draws them.

    Raises:
        ValueError: a side of one unit.
    """
    if units.fewest < 2:
        raise ValueError("a side of one unit cannot be drawn anew")
    sides = [np.isin(np.arange(units.count), own) for own in (units.real, units.generated)]
    drawn = _counts(units.count, replicates, rng)
    while True:
        few = np.flatnonzero(np.min([(drawn[own] > 0).sum(axis=0) for own in sides], axis=0) < 2)
        if not len(few):
            return Resamples(units, drawn)
        drawn[:, few] = _counts(units.count, len(few), rng)


def _counts(units: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.integers(0, units, (replicates, units))
    drawn += np.arange(replicates)[:, None] * units
    counts = np.bincount(drawn.ravel(), minlength=units * replicates).reshape(replicates, units)
    return np.ascontiguousarray(counts.T, np.float32)


def groups_of(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each row, (n,) and (m,): units stay together.

    There are `GROUPS`, or fewer where there are not as many units or where one unit is larger than
    a group. Groups are of consecutive units and of near equal size: a unit goes where its first row
    falls when all rows, each side with the same weight, are laid out by unit.
    """
    count = min(GROUPS, units.fewest)
    sides = (units.real, units.generated)
    shares = [np.bincount(own, minlength=units.count) / len(own) for own in sides]
    sizes = (shares[0] + shares[1]) / 2
    before = np.cumsum(sizes) - sizes
    # Sums of shares are a rounding error below the whole numbers that they stand for.
    groups = np.minimum((before * count + 1e-9).astype(int), count - 1)
    groups = np.unique(groups, return_inverse=True)[1]
    return groups[units.real], groups[units.generated]


def variance_of_mean(values: np.ndarray, units: np.ndarray | None = None) -> float:
    """Return the variance of the mean of values whose units, not they, are independent.

    The jackknife's, about the mean: it counts that large units weigh more. With a unit for each
    value it is the usual variance over n.

    Args:
        values: (n,).
        units: (n,) the unit of each value.
    """
    moved = means_without(values, units) - values.mean()
    count = len(moved)
    if count < 2:
        return float("inf")
    return float((count - 1) / count * np.square(moved).sum())


def means_without(values: np.ndarray, units: np.ndarray | None = None) -> np.ndarray:
    """Return the mean without each unit, (u,), in the order of the units; nan for the only one.

    Args:
        values: (n,).
        units: (n,) the unit of each value; None where each value is one.
    """
    own = np.arange(len(values)) if units is None else np.unique(units, return_inverse=True)[1]
    sizes = np.bincount(own)
    sums = np.bincount(own, values - values.mean())
    with np.errstate(invalid="ignore"):
        moved: np.ndarray = sums / (len(values) - sizes)
    return values.mean() - moved


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson, 1927); one of 0 or 1 has an interval, too.

    Args:
        share: 0 to 1.
        n: how many independent units it is a share of, > 0.
    """
    squared = 1.96**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = 1.96 * (share * (1 - share) / n + squared / (4 * n**2)) ** 0.5 / (1 + squared / n)
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
