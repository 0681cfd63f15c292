"""What counts as an id and what as no text, for every source of a cohort.

Two ids that a reader takes for one, `P001` and `P001 ` or `p001`, are two patients for a computer,
and put one person into the training and the test split. Neither is mended silently: which of them
are one person, the table's owner knows.
"""

import re
import unicodedata
from typing import Final

import pandas as pd

MISSING: Final = frozenset(
    ["", "nan", "n/a", "na", "none", "null", "nil", "nat", "<na>", "#n/a", "#na", "#null!"]
)
"""How pandas, Python, R and spreadsheets print that there is nothing, in lower case."""

_BLANKS: Final = re.compile(r"\s+")


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
    unique = values.drop_duplicates()
    missing = missing_in(unique)
    if missing.any():
        found = str(unique[missing].iloc[0])
        return f"{values.name} is {found!r}, which names nobody", _first(values, found)
    odd = (unique != unique.str.strip()) | ~unique.map(str.isprintable).astype(bool)
    if odd.any():
        found = str(unique[odd].iloc[0])
        what = f"{values.name} {found!r} has blanks around it or a character in it that nobody sees"
        return what, _first(values, found)
    plain = unique.map(_plain)
    repeated = plain.duplicated()
    if repeated.any():
        found = str(unique[repeated].iloc[0])
        other = str(unique[plain == _plain(found)].iloc[0])
        count = int(repeated.sum())
        what = (
            f"{values.name} {found!r} and {other!r} differ only in blanks, case or the form of "
            f"their characters ({count} such id{'s' if count > 1 else ''})"
        )
        return what, _first(values, found)
    return None


def _first(values: pd.Series, text: str) -> int:
    return int((values == text).to_numpy().argmax())


def _plain(text: str) -> str:
    return _BLANKS.sub("", unicodedata.normalize("NFKC", text).casefold())
