"""Ranks and correlations of numbers over models or pathologies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scipy import stats

from workflow_scripts.paper_audit.printed import Printed
from workflow_scripts.paper_audit.yardstick import Number, Truth, bounded
from workflow_scripts.tables.derive.task_ranks import with_interval

STRONG: Final = 0.5
"""Size from which a correlation is called strong (Cohen, 1988)."""


def ranked(numbers: Mapping[str, Number], lower: bool, method: str = "min") -> dict[str, int]:
    """Return the ranks, from 1, of numbers.

    Args:
        numbers: by label.
        lower: whether the lowest number is the best.
        method: how equal numbers are ranked. `min`: all get the lowest of their ranks. `dense`: the
            same, and the next number gets the next rank.
    """
    sign = 1 if lower else -1
    floats = [sign * float(bounded(number).value) for number in numbers.values()]
    ranks = stats.rankdata(floats, method=method)
    return {label: int(rank) for label, rank in zip(numbers, ranks, strict=True)}


def values(numbers: Mapping[str, Printed]) -> dict[str, float]:
    """Return printed numbers as floats."""
    return {label: number.value for label, number in numbers.items()}


@dataclass(frozen=True)
class Correlation:
    """A correlation over models or pathologies.

    Attributes:
        value: the coefficient.
        low, high: its 95% interval; the models, or pathologies, are the sample.
        n: number of models or pathologies.
    """

    value: float
    low: float
    high: float
    n: int

    def text(self, decimals: int = 2) -> str:
        """Return the correlation for readers: `0.36 (95% -0.31 to 0.79, n = 11)`."""
        value, low, high = (f"{x:.{decimals}f}" for x in (self.value, self.low, self.high))
        return f"{value} (95% {low} to {high}, n = {self.n})"

    @property
    def absent(self) -> Truth:
        """Whether there is no strong correlation.

        False if the interval excludes 0; True if it includes 0 and excludes every strong
        correlation; None otherwise.
        """
        if self.low > 0 or self.high < 0:
            return False
        return True if max(-self.low, self.high) < STRONG else None


def pearson(a: Mapping[str, float], b: Mapping[str, float]) -> Correlation:
    """Return Pearson's correlation of numbers by label, with an interval by Fisher's z."""
    r = float(stats.pearsonr(list(a.values()), [b[label] for label in a]).statistic)
    return _with_bounds(r, len(a), spearman=False)


def spearman(a: Mapping[str, float], b: Mapping[str, float]) -> Correlation:
    """Return Spearman's correlation; equal numbers share their mean rank.

    The interval is by Fisher's z with the variance of Bonett and Wright (2000).
    """
    r = float(stats.spearmanr(list(a.values()), [b[label] for label in a]).statistic)
    return _with_bounds(r, len(a), spearman=True)


def _with_bounds(r: float, n: int, spearman: bool) -> Correlation:
    """Return a correlation with its interval: -1 to 1 for three numbers or fewer."""
    low, high = with_interval(r, n, spearman) or ((r, r) if n > 3 else (-1.0, 1.0))
    return Correlation(r, low, high, n)


def reach_of_ranks(
    ranks: Mapping[str, int], numbers: Mapping[str, Printed], lower: bool
) -> tuple[float, float]:
    """Return the lowest and highest correlation that ranks can have with the ranks of numbers.

    Numbers that are printed alike may stand in either order. The correlation is highest if they
    stand in the order of the ranks, and lowest in the reverse order.
    """
    sign = 1 if lower else -1
    reach = []
    for way in (-1, 1):
        order = sorted(ranks, key=lambda m: (sign * numbers[m].exact, way * ranks[m]))
        reach.append(pearson(ranks, {label: i for i, label in enumerate(order)}).value)
    return reach[0], reach[1]


def displaced(a: Mapping[str, int], b: Mapping[str, int]) -> list[str]:
    """Return each label without which two rankings put all others in the same order."""

    def order(ranks: Mapping[str, int], without: str) -> list[float]:
        return list(stats.rankdata([ranks[label] for label in a if label != without]))

    return [label for label in a if order(a, label) == order(b, label)]
