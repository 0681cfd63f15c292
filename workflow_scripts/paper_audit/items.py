"""One claim of the paper with its verdict. `yardstick.py` has the rule for verdicts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workflow_scripts.paper_audit.model_names import NAMES
from workflow_scripts.paper_audit.printed import Printed, printed
from workflow_scripts.paper_audit.yardstick import (
    OPEN_DIGITS,
    UNCHECKED,
    VERDICTS,
    Bounded,
    Number,
    Truth,
    agrees,
    as_printed,
    bounded,
    cut_to,
    every,
    rounded_to,
    verdict,
)

Pairs = Mapping[str, tuple[Printed | str, Number]]
"""Printed numbers, or their texts, each with the number that it should be, by label."""


@dataclass(frozen=True)
class Item:
    """One claim of the paper with its verdict.

    Attributes:
        key: unique name of the claim.
        where: table or section of the paper.
        claim: what the paper says, with its printed digits.
        basis: what the claim is recomputed from, how, and how its words are read.
        found: the recomputed numbers.
        verdict: one of `VERDICTS`.
        numbers: how many printed numbers or statements the claim covers.
        note: why the claim cannot be checked, and what else a reader should know.
    """

    key: str
    where: str
    claim: str
    basis: str
    found: str
    verdict: str
    numbers: int = 1
    note: str = ""


def compared(key: str, where: str, claim: str, basis: str, pairs: Pairs, *, note: str = "") -> Item:
    """Return the item on printed numbers that should be the recomputed ones.

    Args:
        key, where, claim, basis, note: see `Item`.
        pairs: each printed number with the recomputed one, by label.
    """
    differing, agreeing = [], []
    for label, (cell, number) in pairs.items():
        as_given = printed(cell) if isinstance(cell, str) else cell
        recomputed = bounded(number)
        agreeing.append(agrees(as_given, recomputed))
        if not as_printed(as_given, recomputed):
            cut = cut_to(recomputed.value, as_given.decimals) == as_given.exact
            how = f"printed {as_given.text}{', cut off' if cut else ''}"
            differing.append(f"{label} {_digits(recomputed, as_given)} ({how})")
    count = f"{len(pairs) - len(differing)} of {len(pairs)} as printed"
    found = f"{count}; {', '.join(differing)}" if differing else count
    return Item(key, where, claim, basis, found, verdict(every(agreeing)), len(pairs), note)


def by_model(numbers: Mapping[str, Printed], recomputed: Mapping[str, Number]) -> Pairs:
    """Return printed numbers and recomputed ones as pairs, by the names of their models."""
    return {NAMES.get(m, "Original"): (number, recomputed[m]) for m, number in numbers.items()}


def stated(
    key: str,
    where: str,
    claim: str,
    basis: str,
    truth: Truth,
    found: str,
    *,
    numbers: int = 1,
    note: str = "",
    reason: str = OPEN_DIGITS,
) -> Item:
    """Return the item on a statement.

    Args:
        key, where, claim, basis, found, numbers, note: see `Item`.
        truth: whether the statement is true.
        reason: why it cannot be checked; used if `truth` is None.
    """
    words = "; ".join(filter(None, (reason if truth is None else "", note)))
    return Item(key, where, claim, basis, found, verdict(truth), numbers, words)


def unchecked(key: str, where: str, claim: str, reason: str, numbers: int, found: str = "") -> Item:
    """Return the item on a claim that rests on something which the paper does not print."""
    return Item(key, where, claim, "–", found, UNCHECKED, numbers, reason)


def _digits(recomputed: Bounded, number: Printed) -> str:
    """Return a recomputed number with at most two digits more than the printed one has."""
    value, decimals = recomputed.value, number.decimals
    for more in (decimals, decimals + 1):
        if rounded_to(value, more) == value:
            return f"{float(value):.{more}f}"
    return f"{float(value):.{decimals + 2}f}"


def summary(items: Sequence[Item]) -> str:
    """Return the counts of verdicts in one sentence."""
    numbers = Counter(item.verdict for item in items)
    words = {name: f"{numbers[name]} {name}" for name in VERDICTS}
    words[VERDICTS[0]] = f"{numbers[VERDICTS[0]]} hold"
    parts = [words[name] for name in VERDICTS if numbers[name]]
    covered = sum(item.numbers for item in items)
    listed = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    return (
        f"{len(items)} claims of the paper ({covered} printed numbers and statements) were "
        f"recomputed from its own tables: {listed}."
    )
