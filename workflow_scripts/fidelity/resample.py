"""Which images a resample or a group holds: units that belong together stay together.

The images of one patient are one unit of the real side: they resemble one another, and other
patients, not other images of these, are what a value should hold for.
"""

from dataclasses import dataclass

import numpy as np

GROUPS = 20
"""Groups of images of which one at a time is left out, for the jackknife."""


@dataclass(frozen=True)
class Resamples:
    """A multinomial bootstrap of both sides.

    Drawn from the size of both sides and the seed alone: models with the same prompts, compared
    with the same real images, have the same resamples.

    Attributes:
        units: (n,) the unit of each real image, numbers from 0 without gaps.
        real: (n, r) float32, how often each real image is drawn in each replicate.
        generated: (m, r) float32.
    """

    units: np.ndarray
    real: np.ndarray
    generated: np.ndarray

    @property
    def fewest(self) -> int:
        """Units of the smaller side."""
        return min(int(self.units.max()) + 1, len(self.generated))


def draw_resamples(
    n: int,
    m: int,
    replicates: int,
    rng: np.random.Generator,
    patients: np.ndarray | None = None,
) -> Resamples:
    """Draw as many patients and as many generated images as there are, with replacement.

    Args:
        n: real images.
        m: generated images.
        replicates: r.
        rng: draws them, the real side first.
        patients: (n,) the patient of each real image; None where each image is a unit.
    """
    units = np.arange(n) if patients is None else np.unique(patients, return_inverse=True)[1]
    real = _counts(int(units.max()) + 1, replicates, rng)[units]
    return Resamples(units, real, _counts(m, replicates, rng))


def _counts(units: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.integers(0, units, (replicates, units))
    drawn += np.arange(replicates)[:, None] * units
    counts = np.bincount(drawn.ravel(), minlength=units * replicates).reshape(replicates, units)
    return np.ascontiguousarray(counts.T, np.float32)


def paired_groups(
    n: int, m: int, patients: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's group, (n,) and (m,): as many on both sides, none empty, near equal size.

    There are `GROUPS`, or fewer where there are not as many rows or patients. Groups are
    consecutive rows, or patients in the order of their ids.

    Args:
        n: real images.
        m: generated images.
        patients: (n,) the patient of each real image; those of one patient stay in one group.
    """
    count = min(GROUPS, n, m)
    if patients is None:
        first = np.arange(n)
    else:
        codes = np.unique(patients, return_inverse=True)[1]
        # A patient goes where its first row falls when all rows are laid out by patient.
        first = np.searchsorted(np.sort(codes), codes)
    real = np.unique(first * count // n, return_inverse=True)[1]
    return real, np.arange(m) * (int(real.max()) + 1) // m


def variance_of_mean(values: np.ndarray, units: np.ndarray | None = None) -> float:
    """Return the variance of the mean of values whose units, not they, are independent.

    With a unit for each value it is the usual variance over n.

    Args:
        values: (n,).
        units: (n,) the unit of each value, numbers from 0 without gaps.
    """
    deviations = values - values.mean()
    sums = deviations if units is None else np.bincount(units, deviations)
    count = len(sums)
    if count < 2:
        return float("inf")
    return float(count / (count - 1) * np.square(sums).sum() / len(values) ** 2)


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
