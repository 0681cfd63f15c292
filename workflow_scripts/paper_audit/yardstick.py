"""The one yardstick of the audit: when a claim holds, is contradicted, or cannot be checked.

A printed number stands for every number that is printed so. A claim is read as the comparison that
its item states, and the comparison is true (True), false (False) or open (None) for what may stand
behind the digits:

- holds: true whatever stands behind the printed digits.
- contradicted: false whatever stands behind them.
- cannot be checked: open. The digits leave it open, two readings of its words differ, or it rests
  on what the paper does not print, which the item names.

A claim of several parts is contradicted by one false part, and holds when all are true. What rests
on a row that is misprinted is open, unless the other rows decide it.

What the comparisons are:

- A number is the recomputed one where some digits behind the printed ones make it so, or where
  digits were cut off instead of rounded.
- Numbers of one table that are printed alike may stand in either order.
- Words: low, poor or inferior is worse than the median of the eleven models, high is better, and
  the median itself is neither; most and predominantly is more than half; often is at least half.
- `Match` allows for noise, of which the paper prints nothing: it holds for what is printed equal
  or better, and cannot be checked for what is printed worse. Substantial, notable and significant
  have no size in the paper; only the direction is judged.
- That a correlation is strong or absent is judged by its 95% interval.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from workflow_scripts.paper_audit.printed import Printed

Truth = bool | None
"""Whether a comparison is true for what may stand behind the printed digits; None: for some."""

HOLDS: Final = "holds"
UNCHECKED: Final = "cannot be checked"
CONTRADICTED: Final = "contradicted"
VERDICTS: Final = (HOLDS, UNCHECKED, CONTRADICTED)
"""From best to worst."""

RULE: Final = (
    "A printed number stands for every number that gives these digits, rounded or cut off. A claim "
    "holds if it is true of all these numbers, and is contradicted if it is false of all of them. "
    "It cannot be checked if the digits leave it open, if two readings of its words differ, or if "
    "it rests on something that the paper does not print. A claim of several parts is contradicted "
    "if one part is false. Low means worse than the median of the eleven models, most means more "
    "than half, and often means at least half. A claimed match allows for noise; the paper prints "
    "no noise, so a match that is printed worse cannot be checked. Correlations have 95% intervals "
    "(Pearson's by Fisher's z, Spearman's with Bonett and Wright's variance)."
)
"""The yardstick for readers of the audit."""

OPEN_DIGITS: Final = "the printed digits leave it open"


def verdict(truth: Truth) -> str:
    """Return the verdict on a claim."""
    return UNCHECKED if truth is None else HOLDS if truth else CONTRADICTED


# Claims of several parts


def every(parts: Iterable[Truth]) -> Truth:
    """Return whether all parts are true; of no part, True."""
    found = list(parts)
    if False in found:
        return False
    return None if None in found else True


def some(parts: Iterable[Truth]) -> Truth:
    """Return whether any part is true; of no part, False."""
    return opposite(every(opposite(part) for part in parts))


def opposite(truth: Truth) -> Truth:
    """Return whether it is not so."""
    return None if truth is None else not truth


def in_all_readings(readings: Iterable[Truth]) -> Truth:
    """Return what all readings of a claim's words agree on; None where they differ."""
    found = set(readings)
    return found.pop() if len(found) == 1 else None


def number_is(parts: Iterable[Truth], stated: int) -> Truth:
    """Return whether as many parts as stated are true."""
    certain, possible = _least_and_most(parts)
    if not certain <= stated <= possible:
        return False
    return True if certain == possible else None


def most(parts: Iterable[Truth]) -> Truth:
    """Return whether more than half of the parts are true."""
    found = list(parts)
    certain, possible = _least_and_most(found)
    return True if 2 * certain > len(found) else False if 2 * possible <= len(found) else None


def often(parts: Iterable[Truth]) -> Truth:
    """Return whether at least half of the parts are true."""
    return opposite(most(opposite(part) for part in parts))


def _least_and_most(parts: Iterable[Truth]) -> tuple[int, int]:
    """Return how many parts are certainly true and how many may be."""
    found = list(parts)
    return found.count(True), found.count(True) + found.count(None)


# Numbers


@dataclass(frozen=True)
class Exact:
    """A recomputed number: from the printed digits, and between which bounds it may lie.

    Attributes:
        value: from the digits as printed.
        slack: how far the digits behind the printed ones may move it.
    """

    value: Fraction
    slack: Fraction = Fraction(0)


def exactly(number: Printed | int) -> Exact:
    """Return a printed number, or a count, as a recomputed one."""
    if isinstance(number, int):
        return Exact(Fraction(number))
    return Exact(number.exact, number.half)


def mean_of(numbers: Sequence[Printed]) -> Exact:
    """Return the mean of printed numbers."""
    total = sum((number.exact for number in numbers), Fraction(0))
    slack = sum((number.half for number in numbers), Fraction(0))
    return Exact(total / len(numbers), slack / len(numbers))


def difference(a: Exact, b: Exact) -> Exact:
    """Return a - b."""
    return Exact(a.value - b.value, a.slack + b.slack)


def rounded_to(value: Fraction, decimals: int) -> Fraction:
    """Round to decimals, halves away from zero."""
    scaled = abs(value) * 10**decimals + Fraction(1, 2)
    size = Fraction(scaled.numerator // scaled.denominator, 10**decimals)
    return size if value >= 0 else -size


def cut_to(value: Fraction, decimals: int) -> Fraction:
    """Cut off what stands behind the decimals."""
    scaled = abs(value) * 10**decimals
    size = Fraction(scaled.numerator // scaled.denominator, 10**decimals)
    return size if value >= 0 else -size


def as_printed(stated: Printed, found: Exact) -> bool:
    """Return whether a recomputed number, from the digits as printed and rounded, is the stated."""
    return rounded_to(found.value, stated.decimals) == stated.exact


def agrees(stated: Printed, found: Exact) -> bool:
    """Return whether a printed number may be the recomputed one."""
    if as_printed(stated, found) or cut_to(found.value, stated.decimals) == stated.exact:
        return True
    return abs(found.value - stated.exact) < found.slack + stated.half


def below(a: Exact | Printed, b: Exact | Printed) -> Truth:
    """Return whether one number is below another."""
    first, second = (n if isinstance(n, Exact) else exactly(n) for n in (a, b))
    gap, slack = second.value - first.value, first.slack + second.slack
    if slack == 0:
        return gap > 0
    return True if gap >= slack else False if gap <= -slack else None


def better(a: Exact | Printed, b: Exact | Printed, lower: bool) -> Truth:
    """Return whether a is better than b, where lower or higher is better."""
    return below(a, b) if lower else below(b, a)


def matches(a: Exact | Printed, b: Exact | Printed) -> Truth:
    """Return whether a score, of which more is better, matches or beats another.

    Printed worse it is open, never false: how much noise a match allows for is not printed.
    """
    return None if below(a, b) else True


# Places among models


def places(numbers: Mapping[str, Printed], label: str, lower: bool) -> range:
    """Return the ranks, from 1, that a number may have among others."""
    rest = [other for key, other in numbers.items() if key != label]
    ahead = [better(other, numbers[label], lower) for other in rest]
    certain, possible = _least_and_most(ahead)
    return range(1 + certain, 2 + possible)


def has_place(
    numbers: Mapping[str, Printed], label: str, lower: bool, first: int, last: int | None = None
) -> Truth:
    """Return whether a number has a rank between first and last (or first alone)."""
    wanted = range(first, (last or first) + 1)
    found = [rank in wanted for rank in places(numbers, label, lower)]
    return True if all(found) else None if any(found) else False


def median_of(numbers: Iterable[Printed]) -> Exact:
    """Return the median."""
    order = sorted(numbers, key=lambda number: number.exact)
    half = len(order) // 2
    return exactly(order[half]) if len(order) % 2 else mean_of(order[half - 1 : half + 1])


def side_of_median(numbers: Mapping[str, Printed], label: str, lower: bool) -> str:
    """Return `high` (better than the median), `low` (worse), `median`, or `open`.

    A number printed as the median is it, unless another one is printed alike.
    """
    middle, number = median_of(numbers.values()), numbers[label]
    alike = sum(other.exact == number.exact for other in numbers.values())
    if len(numbers) % 2 and number.exact == middle.value and alike == 1:
        return "median"
    found = better(number, middle, lower)
    return "open" if found is None else "high" if found else "low"


def is_side(side: str, wanted: str) -> Truth:
    """Return whether a side of the median is the wanted one."""
    return None if side == "open" else side == wanted
