"""CSV that is safe to open in a spreadsheet: no cell is run as a formula.

Excel, LibreOffice and Google Sheets take a cell that begins with `=`, `+`, `-` or `@` for a
formula, even in quotes. A name, an id or a reason with such a beginning gets an apostrophe in
front, as OWASP's page on CSV injection recommends; numbers stay numbers. Captions for external
models are not written by this module, because they must not change.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import Final

import pandas as pd

_NUMBER: Final = re.compile(r"[+-]?(\d[\d,]*\.?\d*|\.\d+)([eE][+-]?\d+)?%?|[+-](inf|nan)")
_STARTS: Final = "=+-@＝＋－＠"  # Japanese and Chinese spreadsheets run the full-width forms, too


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""Return rows as CSV with `\n` at the end of lines; see `safe_cell`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([safe_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def safe_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with safe cells in all text columns; see `safe_cell`."""
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    return frame.assign(**{name: frame[name].map(safe_cell) for name in texts})


def safe_cell(cell: object) -> object:
    """Return a cell that no spreadsheet runs: the cell, or a text with an apostrophe before it.

    Texts that begin, after blanks, with `=`, `+`, `-` or `@` get an apostrophe, unless they are
    numbers. A sign alone is not a formula, and tables write `-` for an empty cell.
    """
    if not isinstance(cell, str):
        return cell
    bare = cell.strip()
    if len(bare) < 2 or bare[0] not in _STARTS or _NUMBER.fullmatch(bare):
        return cell
    return f"'{cell}"


def plain_cell(cell: str) -> str:
    """Return the text from which `safe_cell` made a cell."""
    bare = cell[1:]
    return bare if cell.startswith("'") and safe_cell(bare) != bare else cell
