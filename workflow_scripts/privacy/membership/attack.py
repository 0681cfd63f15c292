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
    Mann-Whitney statistic, Statistics in Medicine 25, 2006). It holds the areas from which the
    measured one is no farther than their own standard error (Hanley and McNeil) allows. It has a
    length at an area of 0 or 1, where other intervals have none.

    Args:
        members: scores of m patients, higher for "member".
        others: scores of n patients that no training saw.
        confidence: confidence of the interval.
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
    """Return the share of members that score above a threshold with a given false-alarm rate.

    The threshold is a non-member's score: as many non-members lie above it as the rate allows,
    rounded down. The threshold's true rate is uncertain, and so is the share of members above it.
    So each bound has two parts, each at a quarter of the error: a threshold whose true rate is not
    above (for the lower bound) or not below (for the upper bound) the rate, and there the bound of
    Clopper and Pearson (1934, Biometrika 26, 404-413) for the share of members. With too few
    non-members to know any threshold's rate, the lower bound is 0.

    Args:
        members: scores of m patients, higher for "member".
        others: scores of n patients that no training saw.
        rate: rate of false alarms, in (0, 1).
        confidence: confidence of the interval.
    """
    from scipy.stats import beta, binom

    m, n = len(members), len(others)
    falling = np.sort(others)[::-1]

    def above(alarms: int) -> int:
        """Return how many members lie above the threshold that lets so many alarms through."""
        return int((members > falling[alarms]).sum()) if alarms < n else m

    part = (1 - confidence) / 4
    share = above(int(np.floor(rate * n + 1e-9))) / m
    # A threshold with k non-members at or above it has a rate of at most `rate` with confidence
    # 1 - part, if k or fewer would be that rare otherwise: P(Bin(n, rate) <= k) <= part.
    fewest_alarms = int(binom.ppf(part, n, rate))
    while fewest_alarms >= 0 and binom.cdf(fewest_alarms, n, rate) > part:
        fewest_alarms -= 1
    fewest = above(fewest_alarms) if fewest_alarms >= 0 else 0
    most = above(int(binom.isf(part, n, rate)))  # at the smallest k with P(Bin > k) <= part
    low = float(beta.ppf(part, fewest, m - fewest + 1)) if fewest else 0.0
    high = float(beta.isf(part, most + 1, m - most)) if most < m else 1.0
    return Estimate(share, min(low, share), max(high, share))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Return the difference of two independent estimates (Zou and Donner's MOVER)."""
    value = one.value - other.value
    down = float(np.hypot(one.value - one.low, other.high - other.value))
    up = float(np.hypot(one.high - one.value, other.value - other.low))
    return Estimate(value, max(-1.0, value - down), min(1.0, value + up))


def auc_beyond_chance(members: Array, others: Array, confidence: float = 0.99) -> Estimate | None:
    """Return the area under the curve; None if its interval holds that of chance, 0.5."""
    area = auc(members, others, confidence)
    return None if area.low <= 0.5 <= area.high else area


def in_words(area: Estimate) -> str:
    """Return an area with its bounds, as reasons state it."""
    return f"AUC {area.value:.3f}, 99% interval {area.low:.3f} to {area.high:.3f}"


def blind_faults(candidates: pd.DataFrame) -> list[str]:
    """Return what tells members from non-members without a look at any model, in words.

    Captions, views and findings must not tell who is a member. If one of them does, an attack may
    read that instead of what the model remembers (Das et al., 2024, arXiv 2406.16201).

    Args:
        candidates: see `draw_candidates`.
    """
    member = candidates["member"].to_numpy(bool)
    last_view = max(candidates["view"].astype(str), default="")
    properties = {
        "the view": (candidates["view"].to_numpy(str) == last_view).astype(float),
        "the caption's length": candidates["words"].to_numpy(float),
        "the number of findings": candidates[[*FINDINGS]].to_numpy(bool).sum(axis=1),
        "de-identification marks": candidates["marked"].to_numpy(float),
    }
    faults = []
    for name, score in properties.items():
        if area := auc_beyond_chance(score[member], score[~member]):
            faults.append(f"{name} tells members from non-members ({in_words(area)})")
    return faults
