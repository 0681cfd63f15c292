"""The paper's tables as printed (`published/*.csv`): each cell by its row and column."""

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
"""Number of header rows, where it is not one."""

_LABELS: Final = {
    "table07_encoders": 2,
    "table17a_caption_fidelity": 2,
    "table17b_caption_privacy": 2,
}
"""Number of label columns, where it is not one."""


@dataclass(frozen=True)
class Printed:
    """A printed number.

    Attributes:
        text: its digits as printed.
        exact: the number that these digits write.
        half: half a unit of the last digit, the most that rounding has changed.
        decimals: number of digits after the point.
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
        InputError: the text is not a number.
    """
    try:
        number = Decimal(text.replace(",", "").strip())
    except InvalidOperation:
        number = Decimal("nan")
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        raise InputError(f"{text!r} is not a number", where, "restore the printed table")
    unit = Fraction(10) ** exponent
    return Printed(text.strip(), Fraction(number), unit / 2, max(0, -exponent))


@dataclass(frozen=True)
class Grid:
    """One printed table.

    Attributes:
        stem: name of its file, without the suffix.
        rows: row labels in the printed order; several label columns are joined by `, `.
        columns: column headers in the printed order; several header rows are joined by `, `.
        cells: printed text by (row, column).
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
            InputError: there is no such cell, or its text is not a number.
        """
        return printed(self.text(row, column), f"{self.stem} ({row}, {column})")

    def of_models(self, column: str) -> dict[str, Printed]:
        """Return a column's numbers by model key, for a table with one row for each model.

        Models are in the printed order. Those with an empty cell are left out.
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
        folder: folder of the tables; None: the package's own.

    Raises:
        InputError: two rows or two columns have the same label.
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
        raise InputError("two rows or columns have one label", name, "restore the printed table")
    cells = {
        (row, column): text
        for row, line in zip(rows, lines[n_headers:], strict=True)
        for column, text in zip(columns, line[n_labels:], strict=True)
    }
    return Grid(stem, rows, columns, cells)


def _carried(texts: list[str]) -> list[str]:
    """Return texts with each empty one replaced by the one before it, as merged cells are read."""
    carried: list[str] = []
    for text in texts:
        carried.append(text or "".join(carried[-1:]))
    return carried


class Paper:
    """The printed tables by number. Each is read when it is first asked for.

    Args:
        folder: folder of the tables; None: the package's own.
    """

    def __init__(self, folder: Path | None = None):
        self._grid = functools.cache(functools.partial(published_grid, folder=folder))

    def __getitem__(self, number: str) -> Grid:
        """Return a table by its number: `1`, `17a`.

        Raises:
            InputError: the paper has no such table.
        """
        digits = number.rstrip("ab")
        prefix = f"table{int(digits):02d}{number[len(digits) :]}_"
        stem = next((stem for stem in STEMS if stem.startswith(prefix)), None)
        if stem is None:
            raise InputError(f"the paper has no Table {number}")
        return self._grid(stem)
