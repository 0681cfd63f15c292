"""Holm's correction: which of many differences are significant together."""

from collections.abc import Sequence
from typing import Final

LEVEL: Final = 0.05


def holm(p: Sequence[float]) -> list[bool]:
    """Return which differences are significant, by Holm's step-down procedure (1979).

    The probability that at least one of these differences is in truth zero is at most `LEVEL`.

    Args:
        p: two-sided p value of each difference, in 0..1.
    """
    significant = [False] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] > LEVEL / (len(p) - rank):
            break
        significant[i] = True
    return significant
