"""Audit a training's privacy by its canaries, whatever guarantee it states.

A fair coin, which the model never saw, decided whether each canary was planted. The audit guesses
the coins from the model, one guess for every canary. Many right guesses refute every epsilon under
which so many would be unlikely: Steinke, Nasr and Jagielski, 2023, arXiv 2305.08846 (privacy
auditing with one training run).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import optimize, special, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
_LARGEST: Final = 40.0
"""The largest epsilon that an audit reports; beyond it, float64 rounds the odds to certainty."""


def chance_of_guesses(epsilon: float, delta: float, correct: int, guesses: int) -> float:
    """Return the largest probability of so many right guesses under (epsilon, delta), in [0, 1].

    Args:
        epsilon: at least 0.
        delta: in [0, 1).
        correct: number of right guesses.
        guesses: number of guesses, one for each canary; at least 1.
    """
    right = special.expit(epsilon)
    chance = stats.binom.sf(correct - 1, guesses, right)
    if delta and correct:
        lost = np.arange(1, correct + 1)
        between = np.cumsum(stats.binom.pmf(correct - lost, guesses, right))
        chance += 2 * guesses * delta * float(np.max(between / lost))
    return float(min(chance, 1.0))


def epsilon_shown(
    correct: int, guesses: int, delta: float = 0.0, confidence: float = CONFIDENCE
) -> float:
    """Return the lower bound on epsilon that right guesses show; 0 if they show none.

    Every smaller epsilon at `delta` is refuted with `confidence`: under it, so many right guesses
    have a probability of at most 1 - confidence.
    """
    if guesses == 0:
        return 0.0

    def beyond(epsilon: float) -> float:
        return chance_of_guesses(epsilon, delta, correct, guesses) - (1 - confidence)

    if beyond(0.0) >= 0:
        return 0.0
    if beyond(_LARGEST) <= 0:
        return _LARGEST
    return float(optimize.brentq(beyond, 0.0, _LARGEST, xtol=1e-9))


def guess(scores: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Guess which canaries were planted, from their scores alone: (n,) of bool.

    In each group of canaries with equal repeats, the scores are split where the means of the two
    parts lie farthest apart for their sizes (Otsu, 1979, IEEE Transactions on Systems, Man, and
    Cybernetics 9, 62-66). No coin is looked at; the bound rests on that.

    Args:
        scores: (n,), higher where the model knows a canary better.
        groups: (n,), how often each canary is repeated if it is planted.
    """
    guessed = np.zeros(len(scores), bool)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        order = members[np.argsort(scores[members], kind="stable")]
        values = scores[order]
        below = np.arange(1, len(values))
        if not len(below):
            continue
        sums = np.cumsum(values)[:-1]
        gap = (values.sum() - sums) / (len(values) - below) - sums / below
        place = int(np.argmax(gap**2 * below * (len(values) - below))) + 1
        guessed[order[place:]] = True
    return guessed


def exposures(scores: NDArray[np.float64], planted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each canary's exposure in bits, (n,): its rank among the canaries never planted.

    It is log2(m + 1) - log2(rank) with m canaries that were not planted (Carlini et al., 2019,
    estimated from a sample of the space). A canary that was not planted is ranked among the others
    that were not.

    Args:
        scores: (n,), higher where the model knows a canary better.
        planted: (n,) whether each was planted; at least one was not.
    """
    bits = np.empty(len(scores))
    for i, score in enumerate(scores):
        others = ~planted
        others[i] = False
        count = int(others.sum())
        above = (scores[others] > score).sum() + 0.5 * (scores[others] == score).sum()
        bits[i] = np.log2(count + 1) - np.log2(1 + above)
    return bits


def exposure_by_chance(unplanted: int) -> float:
    """Return the mean exposure in bits of a canary whose rank among `unplanted` ones is random."""
    ranks = np.arange(1, unplanted + 2)
    return float(np.log2(unplanted + 1) - np.log2(ranks).mean())


def area(scores: NDArray[np.float64], planted: NDArray[np.bool_]) -> float:
    """Return the probability that a planted canary scores higher than one that was not planted."""
    count = int(planted.sum())
    ranks = stats.rankdata(scores)[planted].sum() - count * (count + 1) / 2
    return float(ranks / (count * (len(scores) - count)))
