"""How well scores tell members from non-members, with intervals over patients.

Each patient has one radiograph, so patients are independent of each other.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.common.manifest import FINDINGS

Array = np.ndarray

KIND: Final = "Newcombe 95%"
TPR_KIND: Final = "Clopper-Pearson 95%"


@dataclass(frozen=True)
class Estimate:
    """A value with its lower and upper bound."""

    value: float
    low: float
    high: float


def auc(members: Array, others: Array, confidence: float = 0.95) -> Estimate:
    """Return the chance that a member scores higher than a non-member (ties count half).

    The interval is one of Newcombe's (Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic, Statistics in Medicine 25, 2006): the areas whose own standard error,
    after Hanley and McNeil, reaches the one that was measured. It has a length at an area of 0 or
    1, where others have none.

    Args:
        members: scores of m patients, higher for "member".
        others: scores of n patients that no training saw.
        confidence: of the interval.
    """
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left")
    upto = np.searchsorted(ordered, members, "right")
    value = float((below + upto).mean() / (2 * len(others)))
    return Estimate(value, *_newcombe(value, len(members), len(others), confidence))


def _newcombe(value: float, m: int, n: int, confidence: float) -> tuple[float, float]:
    from scipy.optimize import brentq
    from scipy.stats import norm

    z, half = float(norm.ppf((1 + confidence) / 2)), (m + n) / 2 - 1

    def away(area: float) -> float:
        spread = 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
        return abs(area - value) - z * float(np.sqrt(area * (1 - area) * spread / (m * n)))

    inside = 1e-9  # at 0 and 1 themselves the spread is 0: the bound lies within
    low = float(brentq(away, 0.0, min(value, 1 - inside))) if value > 0 else 0.0
    high = float(brentq(away, max(value, inside), 1.0)) if value < 1 else 1.0
    return low, high


def tpr_at(members: Array, others: Array, rate: float, confidence: float = 0.95) -> Estimate:
    """Return the share of members that are found at a rate of false alarms.

    The threshold is a non-member's score: as many of them lie above as the rate allows, rounded
    down. Its own rate of false alarms is uncertain, as the share of members above it is. So each
    bound has two parts, each at a quarter of the error: a threshold whose true rate is not above
    (for the lower bound) or not below (for the upper bound) the rate, and there the bound of
    Clopper and Pearson (1934, Biometrika 26, 404-413) for the share of members. With too few
    non-members to know any threshold's rate, the lower bound is 0.

    Args:
        members: scores of m patients, higher for "member".
        others: scores of n patients that no training saw.
        rate: of false alarms, in (0, 1).
        confidence: of the interval.
    """
    from scipy.stats import beta, binom

    m, n = len(members), len(others)
    falling = np.sort(others)[::-1]

    def above(alarms: int) -> int:
        """Return how many members lie above the threshold that lets so many alarms through."""
        return int((members > falling[alarms]).sum()) if alarms < n else m

    part = (1 - confidence) / 4
    found = above(int(np.floor(rate * n + 1e-9)))
    # A score with k non-members at or above it has a rate of at most `rate` with confidence
    # 1 - part where so few, k or less, would be that rare: P(Bin(n, rate) <= k) <= part.
    fewest = int(binom.ppf(part, n, rate))
    while fewest >= 0 and binom.cdf(fewest, n, rate) > part:
        fewest -= 1
    sure = above(fewest) if fewest >= 0 else 0
    most = int(binom.isf(part, n, rate))  # the smallest k with P(Bin > k) <= part
    could = above(most)
    low = float(beta.ppf(part, sure, m - sure + 1)) if sure else 0.0
    high = float(beta.isf(part, could + 1, m - could)) if could < m else 1.0
    return Estimate(found / m, min(low, found / m), max(high, found / m))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Return the difference of two independent estimates (Zou and Donner's MOVER)."""
    value = one.value - other.value
    down = float(np.hypot(one.value - one.low, other.high - other.value))
    up = float(np.hypot(one.high - one.value, other.value - other.low))
    return Estimate(value, max(-1.0, value - down), min(1.0, value + up))


def told_apart(members: Array, others: Array, confidence: float = 0.99) -> Estimate | None:
    """Return the area under the curve if it is not that of chance; None where 0.5 is possible."""
    area = auc(members, others, confidence)
    return None if area.low <= 0.5 <= area.high else area


def described(area: Estimate) -> str:
    """Return an area with its bounds, in words of a reason."""
    return f"AUC {area.value:.3f}, 99% interval {area.low:.3f} to {area.high:.3f}"


def blind_faults(candidates: pd.DataFrame) -> list[str]:
    """Return by what members and non-members differ though no model has looked at them.

    What a caption, a view or the findings say must not tell who is a member; where one of them
    does, an attack may read it instead of memory (Das et al., 2024, arXiv 2406.16201).

    Args:
        candidates: see `draw_candidates`.
    """
    member = candidates["member"].to_numpy(bool)
    first = candidates["view"].to_numpy(str) == max(candidates["view"].astype(str), default="")
    seen = {
        "the view": first.astype(float),
        "the caption's length": candidates["words"].to_numpy(float),
        "the number of findings": candidates[[*FINDINGS]].to_numpy(bool).sum(axis=1),
        "de-identification marks": candidates["marked"].to_numpy(float),
    }
    faults = []
    for what, score in seen.items():
        if found := told_apart(score[member], score[~member]):
            faults.append(f"{what} tells members from non-members ({described(found)})")
    return faults
