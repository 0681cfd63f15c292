"""The rule by which a claim holds, is contradicted, or cannot be checked.

A printed number stands for every number that is printed with these digits. An item of the audit
reads its claim as a comparison of numbers. The comparison is true (True) or false (False) for all
numbers that the printed ones stand for, or depends on which they are (None):

- True: the claim holds.
- False: the claim is contradicted.
- None: the claim cannot be checked. This is also the verdict where two readings of its words
  differ, and where it rests on something that the paper does not print. The item gives the reason.

A claim of several parts holds if all parts are true, and is contradicted if one is false. Whatever
rests on a misprinted row cannot be checked, unless the other rows decide it.

How comparisons are made:

- A printed number is right if some digits behind those of the recomputed one make it so, or if
  digits were cut off instead of rounded.
- Numbers of one table that are printed alike may stand in either order.
- Low, poor and inferior mean worse than the median of the eleven models, high means better, and the
  median itself is neither. Most and predominantly mean more than half, often at least half.
- A claimed match allows for noise, which the paper does not print. It holds if the score is printed
  equal or better, and cannot be checked if it is printed worse. The paper gives no size for
  substantial, notable and significant: only the direction is judged.
- Whether a correlation is strong or absent is judged by its 95% interval.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from workflow_scripts.paper_audit.printed import Printed

Truth = bool | None
"""Whether a comparison is true; None: it depends on digits that are not printed."""

HOLDS: Final = "holds"
UNCHECKED: Final = "cannot be checked"
CONTRADICTED: Final = "contradicted"
VERDICTS: Final = (HOLDS, UNCHECKED, CONTRADICTED)
"""From best to worst."""

RULE: Final = (
    "A printed number stands for every number that gives these digits, rounded or cut off. A claim "
    "holds if it is true for all these numbers, and is contradicted if it is false for all of "
    "them. It cannot be checked if it depends on digits that are not printed, if two readings of "
    "its words differ, or if it rests on something that the paper does not print. A claim of "
    "several parts is contradicted if one part is false. Low means worse than the median of the "
    "eleven models, most means more than half, and often means at least half. A claimed match "
    "allows for noise; the paper prints no noise, so a match with a worse printed score cannot be "
    "checked. Correlations have 95% intervals (Pearson's by Fisher's z, Spearman's with Bonett and "
    "Wright's variance)."
)
"""The rule, for readers of the audit."""

OPEN_DIGITS: Final = "it depends on digits that are not printed"


def verdict(truth: Truth) -> str:
    """Return the verdict on a claim."""
    return UNCHECKED if truth is None else HOLDS if truth else CONTRADICTED


# Claims of several parts


def every(parts: Iterable[Truth]) -> Truth:
    """Return whether all parts are true; True if there is no part."""
    truths = set(parts)
    return False if False in truths else None if None in truths else True


def some(parts: Iterable[Truth]) -> Truth:
    """Return whether any part is true; False if there is no part."""
    return opposite(every(opposite(part) for part in parts))


def opposite(truth: Truth) -> Truth:
    """Return the negation; None stays None."""
    return None if truth is None else not truth


def in_all_readings(readings: Iterable[Truth]) -> Truth:
    """Return the answer that all readings of a claim's words share; None if they differ."""
    truths = set(readings)
    return truths.pop() if len(truths) == 1 else None


def number_is(parts: Iterable[Truth], number: int) -> Truth:
    """Return whether exactly this number of parts is true."""
    certain, possible, _ = _counts(parts)
    if not certain <= number <= possible:
        return False
    return True if certain == possible else None


def most(parts: Iterable[Truth]) -> Truth:
    """Return whether more than half of the parts are true."""
    certain, possible, total = _counts(parts)
    return True if 2 * certain > total else False if 2 * possible <= total else None


def often(parts: Iterable[Truth]) -> Truth:
    """Return whether at least half of the parts are true."""
    return opposite(most(opposite(part) for part in parts))


def _counts(parts: Iterable[Truth]) -> tuple[int, int, int]:
    """Return the number of parts that are true, that may be true, and of all parts."""
    truths = list(parts)
    return truths.count(True), len(truths) - truths.count(False), len(truths)


# Numbers


@dataclass(frozen=True)
class Bounded:
    """A number computed from printed ones.

    Attributes:
        value: computed from the digits as printed.
        slack: the most that digits which are not printed can change it.
    """

    value: Fraction
    slack: Fraction = Fraction(0)


Number = Bounded | Printed | int
"""What a printed number is compared with."""


def bounded(number: Number) -> Bounded:
    """Return a number with its bounds: half a unit of the last printed digit; none for a count."""
    if isinstance(number, Printed):
        return Bounded(number.exact, number.half)
    return Bounded(Fraction(number)) if isinstance(number, int) else number


def mean_of(numbers: Iterable[Number]) -> Bounded:
    """Return the mean of numbers."""
    all_bounded = [bounded(number) for number in numbers]
    n = len(all_bounded)
    return Bounded(
        Fraction(sum(number.value for number in all_bounded), n),
        Fraction(sum(number.slack for number in all_bounded), n),
    )


def difference(a: Number, b: Number) -> Bounded:
    """Return a - b."""
    first, second = bounded(a), bounded(b)
    return Bounded(first.value - second.value, first.slack + second.slack)


def rounded_to(value: Fraction, decimals: int) -> Fraction:
    """Round to decimals, halves away from zero."""
    half = Fraction(1, 2 * 10**decimals)
    return cut_to(value + (half if value >= 0 else -half), decimals)


def cut_to(value: Fraction, decimals: int) -> Fraction:
    """Cut off all digits after the decimals."""
    return Fraction(math.trunc(value * 10**decimals), 10**decimals)


def as_printed(number: Printed, recomputed: Bounded) -> bool:
    """Return whether a recomputed number, from the digits as printed, rounds to the printed one."""
    return rounded_to(recomputed.value, number.decimals) == number.exact


def agrees(number: Printed, recomputed: Bounded) -> bool:
    """Return whether a printed number may be the recomputed one, rounded or cut off."""
    value = recomputed.value
    if as_printed(number, recomputed) or cut_to(value, number.decimals) == number.exact:
        return True
    return abs(value - number.exact) < recomputed.slack + number.half


def below(a: Number, b: Number) -> Truth:
    """Return whether a is below b."""
    gap = difference(b, a)
    if gap.slack == 0:
        return gap.value > 0
    return True if gap.value >= gap.slack else False if gap.value <= -gap.slack else None


def better(a: Number, b: Number, lower: bool) -> Truth:
    """Return whether a is better than b; lower says that lower numbers are better."""
    return below(a, b) if lower else below(b, a)


def matches(a: Number, b: Number) -> Truth:
    """Return whether a score matches or beats another; higher scores are better.

    None if it is printed worse: the paper does not print how much noise a match allows for.
    """
    return None if below(a, b) else True


# Ranks among models


def places(numbers: Mapping[str, Printed], label: str, lower: bool) -> range:
    """Return the ranks, from 1, that a number may have among others."""
    others = [number for key, number in numbers.items() if key != label]
    certain, possible, _ = _counts(better(other, numbers[label], lower) for other in others)
    return range(1 + certain, 2 + possible)


def has_place(
    numbers: Mapping[str, Printed], label: str, lower: bool, first: int, last: int | None = None
) -> Truth:
    """Return whether the rank of a number is between first and last; last is first by default."""
    inside = {first <= rank <= (last or first) for rank in places(numbers, label, lower)}
    return in_all_readings(inside)


def median_of(numbers: Iterable[Printed]) -> Bounded:
    """Return the median."""
    order = sorted(numbers, key=lambda number: number.exact)
    half = len(order) // 2
    return bounded(order[half]) if len(order) % 2 else mean_of(order[half - 1 : half + 1])


def side_of_median(numbers: Mapping[str, Printed], label: str, lower: bool) -> str:
    """Return `high` (better than the median), `low` (worse), `median`, or `open`.

    A number printed as the median is the median, unless another one is printed alike.
    """
    middle, number = median_of(numbers.values()), numbers[label]
    alike = sum(other.exact == number.exact for other in numbers.values())
    if len(numbers) % 2 and number.exact == middle.value and alike == 1:
        return "median"
    is_better = better(number, middle, lower)
    return "open" if is_better is None else "high" if is_better else "low"


def is_side(side: str, claimed: str) -> Truth:
    """Return whether a side of the median is the claimed one."""
    return None if side == "open" else side == claimed
