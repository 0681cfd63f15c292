"""The rules for ids and for missing text, for every source of a cohort.

`P001`, `P001 ` and `p001` look alike to a reader, but are three patients to a program, which may
put one person into both the training and the test split. They are reported and not merged, because
only the table's owner knows whether they are the same person.
"""

import unicodedata
from typing import Final

import pandas as pd

MISSING: Final = frozenset(
    ["", "nan", "n/a", "na", "none", "null", "nil", "nat", "<na>", "#n/a", "#na", "#null!"]
)
"""Missing values as pandas, Python, R and spreadsheets print them, in lower case."""


def is_missing(text: str) -> bool:
    """Return whether a cell's text stands for a missing value."""
    return text.strip().lower() in MISSING


def missing_in(values: pd.Series) -> pd.Series:
    """Return for each cell of a text column whether it stands for a missing value, bool."""
    return values.str.strip().str.lower().isin(MISSING)


def text_or_none(values: pd.Series) -> pd.Series:
    """Return a text column without surrounding blanks, and None for missing values."""
    return values.str.strip().astype(object).where(~missing_in(values), None)


def id_fault(values: pd.Series) -> tuple[str, int] | None:
    """Return the first fault of a column of ids and its position; None if there is none.

    A valid id is not missing, and has no surrounding blanks and no invisible characters. Two ids
    must differ in more than blanks, case and the form of their Unicode characters.

    Args:
        values: ids as text, with or without repetitions.
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
