"""What counts as an id and what as no text, for every source of a cohort.

Two ids that a reader takes for one, `P001` and `P001 ` or `p001`, are two patients for a computer,
and put one person into the training and the test split. Neither is mended silently: which of them
are one person, the table's owner knows.
"""

import unicodedata
from typing import Final

import pandas as pd

MISSING: Final = frozenset(
    ["", "nan", "n/a", "na", "none", "null", "nil", "nat", "<na>", "#n/a", "#na", "#null!"]
)
"""How pandas, Python, R and spreadsheets print that there is nothing, in lower case."""


def is_missing(text: str) -> bool:
    """Return whether a cell's text only says that there is nothing."""
    return text.strip().lower() in MISSING


def missing_in(values: pd.Series) -> pd.Series:
    """Return which cells of a column of text only say that there is nothing."""
    return values.str.strip().str.lower().isin(MISSING)


def text_or_none(values: pd.Series) -> pd.Series:
    """Return a column of text without blanks around it; None where there is no text."""
    return values.str.strip().astype(object).where(~missing_in(values), None)


def id_fault(values: pd.Series) -> tuple[str, int] | None:
    """Return what is wrong with a column of ids, and at which position; None where nothing is.

    An id is a text that says something, without blanks around it or characters in it that nobody
    sees, and differs from every other id in more than blanks, case and the form of its Unicode
    characters.

    Args:
        values: ids as text, repeated or not.
    """
    unique: list[str] = values.drop_duplicates().tolist()
    first: dict[str, str] = {}
    alike = []
    for text in unique:
        if is_missing(text):
            return f"{values.name} is {text!r}, which names nobody", _first(values, text)
        if text != text.strip() or not text.isprintable():
            what = f"{values.name} {text!r} has blanks around it or a character that nobody sees"
            return what, _first(values, text)
        if (other := first.setdefault(_plain(text), text)) != text:
            alike.append((text, other))
    if not alike:
        return None
    text, other = alike[0]
    what = (
        f"{values.name} {text!r} and {other!r} differ only in blanks, case or the form of their "
        f"characters ({len(alike)} such id{'s' if len(alike) > 1 else ''})"
    )
    return what, _first(values, text)


def _first(values: pd.Series, text: str) -> int:
    return int((values == text).to_numpy().argmax())


def _plain(text: str) -> str:
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return "".join(plain.casefold().split())
