"""Exact one-sided bounds on the filter's sensitivity, and on the leaks that remain.

The bound on remaining leaks holds with probability 1 - LEVEL or more, if the filter catches the
pool's own leaks at least as often as the kind of planted leaks that it catches least. It combines
a lower bound of the sensitivity with an upper bound of the number of missed leaks. Each of the two
is wrong with probability HALF at most.
"""

from typing import Final

import numpy as np
from scipy import stats

LEVEL: Final = 0.05

HALF: Final = LEVEL / 2
"""The error probability of each of the two bounds (Bonferroni)."""


def least_share(caught: int, planted: int) -> float:
    """Return the lower bound of a share, one-sided at HALF (Clopper and Pearson, 1934).

    Args:
        caught: number of planted leaks that were caught.
        planted: number of planted leaks, > 0, each of another patient.
    """
    if caught == 0:
        return 0.0
    return float(stats.beta.ppf(HALF, caught, planted - caught + 1))


def most_missed(flagged: int, sensitivity: float, most: int) -> int:
    """Return the upper bound on the number of missed leaks.

    Each leak is caught with a probability of at least `sensitivity`. The bound is the largest
    number m with P(Binomial(flagged + m, 1 - sensitivity) >= m) > HALF. Whatever the number of
    leaks, more than m of them are missed with probability HALF at most. Flagged images that are
    no leaks make the bound larger.

    Args:
        flagged: number of images that were taken for leaks.
        sensitivity: in [0, 1].
        most: number of images that were not flagged; no more leaks can be missed.
    """
    if most == 0:
        return 0
    missed = np.arange(1, most + 1)
    probability = stats.binom.sf(missed - 1, flagged + missed, 1 - sensitivity)
    possible = missed[probability > HALF]
    return int(possible.max()) if len(possible) else 0


def most_left(
    flagged: int, flagged_patients: int, sensitivity: float, kept: int, multiplicity: int
) -> int:
    """Return the upper bound on the number of remaining leaks, for both extremes of dependence.

    Either each image is missed independently, or all images of a patient are missed together. In
    the second case the bound counts patients, and multiplies by the largest number of kept images
    that are nearest to the same patient.

    Args:
        flagged: number of images that were taken for leaks.
        flagged_patients: number of training patients nearest to these.
        sensitivity: the lower bound for the kind of leaks that is caught least.
        kept: number of images that were not flagged.
        multiplicity: largest number of kept images that are nearest to one training patient.
    """
    one_by_one = most_missed(flagged, sensitivity, kept)
    together = most_missed(flagged_patients, sensitivity, kept) * multiplicity
    return min(kept, max(one_by_one, together))
