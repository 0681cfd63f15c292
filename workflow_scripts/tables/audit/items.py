"""One finding of the audit, and how a recomputed number is held against a printed one.

A printed number stands for every number that rounds to it. So a number that follows from printed
ones is known up to an interval, and the verdicts are, from best to worst:

- reproduced: recomputed from the printed digits and rounded, it is what is printed.
- rounded: it is so for some digits behind the printed ones, or when cut off instead of rounded.
- cannot be checked: the paper does not print what it follows from.
- contradicted: no digits behind the printed ones make it true.
- impossible: no data at all could have given it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from workflow_scripts.tables.audit.printed import Printed

REPRODUCED: Final = "reproduced"
ROUNDED: Final = "rounded"
UNCHECKED: Final = "cannot be checked"
CONTRADICTED: Final = "contradicted"
IMPOSSIBLE: Final = "impossible"
VERDICTS: Final = (REPRODUCED, ROUNDED, UNCHECKED, CONTRADICTED, IMPOSSIBLE)


@dataclass(frozen=True)
class Item:
    """One claim of the paper and what became of it.

    Attributes:
        key: its name, unique.
        where: table or section.
        claim: what the paper says, with its printed digits.
        basis: from what it is recomputed, and how.
        found: the recomputed numbers.
        verdict: one of `VERDICTS`; of several numbers the worst one's.
        numbers: how many printed numbers or claims it covers.
        note: what else a reader should know; why it cannot be checked.
    """

    key: str
    where: str
    claim: str
    basis: str
    found: str
    verdict: str
    numbers: int = 1
    note: str = ""


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


def difference(a: Printed, b: Printed) -> Exact:
    """Return a - b."""
    return Exact(a.exact - b.exact, a.half + b.half)


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


def agreement(stated: Printed, found: Exact) -> str:
    """Return the verdict on a printed number that should be the recomputed one."""
    if rounded_to(found.value, stated.decimals) == stated.exact:
        return REPRODUCED
    if cut_to(found.value, stated.decimals) == stated.exact:
        return ROUNDED
    if abs(found.value - stated.exact) < found.slack + stated.half:
        return ROUNDED
    return CONTRADICTED


def worst(verdicts: Iterable[str]) -> str:
    """Return the worst of verdicts; of none, that all is reproduced."""
    return max(verdicts, key=VERDICTS.index, default=REPRODUCED)


def compared(
    key: str,
    where: str,
    claim: str,
    basis: str,
    pairs: Mapping[str, tuple[Printed, Exact]],
    note: str = "",
) -> Item:
    """Return the item of printed numbers, each of which should be a recomputed one, by label."""
    verdicts = {label: agreement(stated, found) for label, (stated, found) in pairs.items()}
    off = []
    for label, (stated, found) in pairs.items():
        if verdicts[label] != REPRODUCED:
            cut = cut_to(found.value, stated.decimals) == stated.exact
            how = f"printed {stated.text}{', cut off' if cut else ''}"
            off.append(f"{label} {shown(found, stated)} ({how})")
    same = f"{len(pairs) - len(off)} of {len(pairs)} as printed"
    text = f"{same}; {', '.join(off)}" if off else same
    return Item(key, where, claim, basis, text, worst(verdicts.values()), len(pairs), note)


def stated(
    key: str,
    where: str,
    claim: str,
    basis: str,
    holds: bool,
    found: str,
    numbers: int = 1,
    note: str = "",
) -> Item:
    """Return the item of a claim that either holds or does not."""
    verdict = REPRODUCED if holds else CONTRADICTED
    return Item(key, where, claim, basis, found, verdict, numbers, note)


def unchecked(key: str, where: str, claim: str, reason: str, numbers: int, found: str = "") -> Item:
    """Return the item of what cannot be recomputed from the paper."""
    return Item(key, where, claim, "–", found, UNCHECKED, numbers, reason)


def shown(found: Exact, stated: Printed) -> str:
    """Return a recomputed number with up to two digits more than the printed one has."""
    exact = found.value
    for decimals in range(stated.decimals, stated.decimals + 3):
        if rounded_to(exact, decimals) == exact:
            return f"{float(exact):.{decimals}f}"
    return f"{float(exact):.{stated.decimals + 2}f}"


def summary(items: Sequence[Item]) -> str:
    """Return in a sentence what the audit found."""
    numbers = Counter[str]()
    for item in items:
        numbers[item.verdict] += 1
    parts = [f"{numbers[verdict]} {verdict}" for verdict in VERDICTS if numbers[verdict]]
    covered = sum(item.numbers for item in items)
    return (
        f"{len(items)} claims of the paper ({covered} printed numbers and statements) were "
        f"recomputed from its own tables: {', '.join(parts[:-1])} and {parts[-1]}."
    )
