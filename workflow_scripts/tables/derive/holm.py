"""Which of many differences are larger than their noise: Holm's correction."""

from collections.abc import Sequence
from typing import Final

LEVEL: Final = 0.05


def holm(p: Sequence[float]) -> list[bool]:
    """Return which of these differences are larger than their noise: Holm's step-down (1979).

    The probability that any difference of zero is among them is at most `LEVEL`.

    Args:
        p: two-sided p value of each difference, in 0..1.
    """
    apart = [False] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] > LEVEL / (len(p) - rank):
            break
        apart[i] = True
    return apart
