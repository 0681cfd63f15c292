"""The paper's tables as printed (`published/*.csv`): every cell by its row and column."""

import csv
import functools
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.paper_audit.model_names import model_key

STEMS: Final = (
    "table01_fidelity",
    "table02_fid_per_pathology",
    "table03_privacy",
    "table04_classification_augmented",
    "table05_segmentation",
    "table06_rrg_augmented",
    "table07_encoders",
    "table08_ranks",
    "table09_prevalence",
    "table10_task_ranks",
    "table11_t2i_hyperparameters",
    "table12_downstream_hyperparameters",
    "table13_lora_rank",
    "table14_lora_position",
    "table15_classification_synthetic_only",
    "table16_rrg_synthetic_only",
    "table17a_caption_fidelity",
    "table17b_caption_privacy",
)

_HEADERS: Final = {"table08_ranks": 2, "table13_lora_rank": 2, "table14_lora_position": 2}
"""Rows of headers, where there is more than one."""

_LABELS: Final = {
    "table07_encoders": 2,
    "table17a_caption_fidelity": 2,
    "table17b_caption_privacy": 2,
}
"""Columns of labels, where there is more than one."""


@dataclass(frozen=True)
class Printed:
    """A printed number.

    Attributes:
        text: as it is printed.
        exact: the number that the digits say.
        half: half a unit of its last digit: what rounding may have taken off or added.
        decimals: digits after the point.
    """

    text: str
    exact: Fraction
    half: Fraction
    decimals: int

    @property
    def value(self) -> float:
        """The number as a float."""
        return float(self.exact)


@functools.cache
def printed(text: str, where: str = "the text") -> Printed:
    """Parse a printed number: `118.932`, `78,939`, `5e-6`.

    Raises:
        InputError: it is no number.
    """
    try:
        number = Decimal(text.replace(",", "").strip())
    except InvalidOperation:
        raise InputError(f"{text!r} is no number", where, "restore the printed table") from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        raise InputError(f"{text!r} is no number", where, "restore the printed table")
    unit = Fraction(10) ** exponent
    return Printed(text.strip(), Fraction(number), unit / 2, max(0, -exponent))


@dataclass(frozen=True)
class Grid:
    """One printed table.

    Attributes:
        stem: of its file.
        rows: labels, in the printed order; several label columns are joined by `, `.
        columns: headers, likewise.
        cells: the printed text by (row, column).
    """

    stem: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], str]

    def text(self, row: str, column: str) -> str:
        """Return the text of a cell.

        Raises:
            InputError: there is no such cell.
        """
        if (row, column) not in self.cells:
            raise InputError(f"no cell ({row}, {column})", self.stem, "restore the printed table")
        return self.cells[row, column]

    def number(self, row: str, column: str) -> Printed:
        """Return the number of a cell.

        Raises:
            InputError: there is no such cell, or no number in it.
        """
        return printed(self.text(row, column), f"{self.stem} ({row}, {column})")

    def of_models(self, column: str) -> dict[str, Printed]:
        """Return a column's numbers by model key, in the printed order.

        For a table with one row for each model; rows without a number there are left out.
        """
        return {
            model_key(row): self.number(row, column)
            for row in self.rows
            if self.cells.get((row, column))
        }

    def across_models(self, row: str) -> dict[str, Printed]:
        """Return a row's numbers by model key, for a table with one column for each model."""
        return {model_key(column): self.number(row, column) for column in self.columns}


def published_grid(stem: str, folder: Path | None = None) -> Grid:
    """Read a printed table.

    Args:
        stem: one of `STEMS`.
        folder: with the files, where it is not the package's own.

    Raises:
        InputError: two cells of the table would have one name.
    """
    name = f"{stem}.csv"
    source = (folder or files("workflow_scripts.paper_audit") / "published") / name
    lines = list(csv.reader(source.read_text(encoding="utf-8").splitlines()))
    n_headers = _HEADERS.get(stem, 1)
    n_labels = _LABELS.get(stem, 1)
    first = _carried(lines[0][n_labels:])
    more = [line[n_labels:] for line in lines[1:n_headers]]
    columns = tuple(", ".join(filter(None, parts)) for parts in zip(first, *more, strict=True))
    labels = zip(*(_carried([line[j] for line in lines]) for j in range(n_labels)), strict=True)
    rows = tuple(", ".join(parts) for parts in list(labels)[n_headers:])
    if len(set(rows)) < len(rows) or len(set(columns)) < len(columns):
        raise InputError("a row or a column stands twice", name, "restore the printed table")
    cells = {
        (row, column): text
        for row, line in zip(rows, lines[n_headers:], strict=True)
        for column, text in zip(columns, line[n_labels:], strict=True)
    }
    return Grid(stem, rows, columns, cells)


def _carried(texts: list[str]) -> list[str]:
    """Return the texts with each empty one replaced by the last before it: merged cells."""
    carried: list[str] = []
    for text in texts:
        carried.append(text or (carried[-1] if carried else ""))
    return carried


class Paper:
    """The printed tables, each read when it is first asked for.

    Args:
        folder: with the files, where it is not the package's own.
    """

    def __init__(self, folder: Path | None = None):
        self._folder = folder
        self._grids: dict[str, Grid] = {}

    def __getitem__(self, number: str) -> Grid:
        """Return a table by its number: `1`, `17a`.

        Raises:
            InputError: the paper has no such table.
        """
        if number not in self._grids:
            digits = number.rstrip("ab")
            prefix = f"table{int(digits):02d}{number[len(digits) :]}_"
            stem = next((stem for stem in STEMS if stem.startswith(prefix)), None)
            if stem is None:
                raise InputError(f"the paper has no Table {number}")
            self._grids[number] = published_grid(stem, self._folder)
        return self._grids[number]
