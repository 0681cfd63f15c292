"""One finding of the audit; when it holds is said in `yardstick.py`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workflow_scripts.paper_audit.printed import Printed
from workflow_scripts.paper_audit.yardstick import (
    OPEN_DIGITS,
    UNCHECKED,
    VERDICTS,
    Exact,
    Truth,
    agrees,
    as_printed,
    cut_to,
    every,
    rounded_to,
    verdict,
)


@dataclass(frozen=True)
class Item:
    """One claim of the paper and what became of it.

    Attributes:
        key: its name, unique.
        where: table or section.
        claim: what the paper says, with its printed digits.
        basis: from what it is recomputed, and how: the reading of its words.
        found: the recomputed numbers.
        verdict: one of `VERDICTS`.
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


def compared(
    key: str,
    where: str,
    claim: str,
    basis: str,
    pairs: Mapping[str, tuple[Printed, Exact]],
    note: str = "",
) -> Item:
    """Return the item of printed numbers, each of which should be a recomputed one, by label."""
    off = []
    for label, (number, found) in pairs.items():
        if not as_printed(number, found):
            cut = cut_to(found.value, number.decimals) == number.exact
            how = f"printed {number.text}{', cut off' if cut else ''}"
            off.append(f"{label} {shown(found, number)} ({how})")
    same = f"{len(pairs) - len(off)} of {len(pairs)} as printed"
    text = f"{same}; {', '.join(off)}" if off else same
    truth = every(agrees(*pair) for pair in pairs.values())
    return Item(key, where, claim, basis, text, verdict(truth), len(pairs), note)


def stated(
    key: str,
    where: str,
    claim: str,
    basis: str,
    truth: Truth,
    found: str,
    numbers: int = 1,
    note: str = "",
    reason: str = OPEN_DIGITS,
) -> Item:
    """Return the item of a claim that is true, false or open.

    Args:
        key, where, claim, basis, found, numbers, note: see `Item`.
        truth: whether it is so.
        reason: why it is open, if it is.
    """
    words = "; ".join(filter(None, (reason if truth is None else "", note)))
    return Item(key, where, claim, basis, found, verdict(truth), numbers, words)


def unchecked(key: str, where: str, claim: str, reason: str, numbers: int, found: str = "") -> Item:
    """Return the item of what rests on something that the paper does not print."""
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
