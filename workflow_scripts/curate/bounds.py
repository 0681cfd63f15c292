"""How much of what was planted is caught, and how much may be left: exact one-sided bounds.

The bound on what is left holds with probability 1 - LEVEL at least, if leaks of the pool are
caught no more seldom than the planted ones of the kind that is caught least. It rests on two
bounds, on the sensitivity and on the number missed; each may be wrong with probability HALF.
"""

from typing import Final

import numpy as np
from scipy import stats

LEVEL: Final = 0.05

HALF: Final = LEVEL / 2
"""What each of the two bounds may be wrong with (Bonferroni)."""


def least_share(caught: int, planted: int) -> float:
    """Return the lower bound of a share, one-sided at HALF (Clopper and Pearson, 1934).

    Args:
        caught: of the planted leaks.
        planted: > 0, each of a patient of its own.
    """
    if caught == 0:
        return 0.0
    return float(stats.beta.ppf(HALF, caught, planted - caught + 1))


def most_missed(flagged: int, sensitivity: float, most: int) -> int:
    """Return the upper bound on leaks that were missed, where so many images were flagged.

    Each leak is caught with probability `sensitivity` at least. The bound is the largest number m
    with P(Binomial(c + m, 1 - sensitivity) >= m) > HALF, c being all that was flagged: however
    many leaks there are, more than so many are missed with probability HALF at most. Flagged
    images that are no leaks make the bound larger.

    Args:
        flagged: images that were taken for leaks.
        sensitivity: in [0, 1].
        most: images that were not flagged; no more can be missed.
    """
    if most == 0:
        return 0
    missed = np.arange(1, most + 1)
    chance = stats.binom.sf(missed - 1, flagged + missed, 1 - sensitivity)
    possible = missed[chance > HALF]
    return int(possible.max()) if len(possible) else 0


def most_left(
    flagged: int, flagged_patients: int, sensitivity: float, kept: int, multiplicity: int
) -> int:
    """Return the upper bound on leaked images that are left, over both extremes of dependence.

    Either images are missed one by one, or all of a patient's together. Then patients are counted,
    and each may be there as often as the patient that most kept images resemble.

    Args:
        flagged: images that were taken for leaks.
        flagged_patients: training patients that these are nearest to.
        sensitivity: the lower bound of the kind that is caught least.
        kept: images that were not flagged.
        multiplicity: of the kept images, the most that are nearest to one training patient.
    """
    one_by_one = most_missed(flagged, sensitivity, kept)
    together = most_missed(flagged_patients, sensitivity, kept) * multiplicity
    return min(kept, max(one_by_one, together))
