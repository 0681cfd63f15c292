"""The differences of every pair of models, as the report draws them: a matrix for each metric."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from workflow_scripts.tables.derive.paired import Difference, differences
from workflow_scripts.tables.layout import LAYOUTS, Column
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.run import Run

PAIRED: Final = LAYOUTS["table01c_paired_differences"]
"""The table of the same differences."""


@dataclass(frozen=True)
class Matrix:
    """All differences of one metric; `cells[i][j]` is row i less column j, None on the diagonal."""

    column: Column
    entries: tuple[ModelEntry, ...]
    cells: tuple[tuple[Difference | None, ...], ...]


def matrices(run: Run) -> list[Matrix]:
    """Return a matrix for each metric that any pair can be compared in: models, then controls.

    Both stand in the order of their values, the best first.
    """
    return [matrix for column in PAIRED.columns if (matrix := _matrix(run, column)) is not None]


def _matrix(run: Run, column: Column) -> Matrix | None:
    encoder = column.family or PAIRED.family or ""
    by_pair = differences(run.records, run.models, column.metric, encoder)
    if not any(gap.value is not None for gap in by_pair.values()):
        return None
    ordered = _best_first(run, column, encoder)
    cells = []
    for row in ordered:
        line: list[Difference | None] = []
        for other in ordered:
            reverse = by_pair.get((other.key, row.key))
            line.append(reverse.reversed() if reverse else by_pair.get((row.key, other.key)))
        cells.append(tuple(line))
    return Matrix(column, tuple(ordered), tuple(cells))


def _best_first(run: Run, column: Column, encoder: str) -> Sequence[ModelEntry]:
    sign = -1 if column.direction == "higher" else 1
    valued = []
    for place, model in enumerate(run.models):
        row = run.measurements.find("fidelity", encoder, model.key, column.metric)
        if row is not None and row.value is not None:
            valued.append((model.is_control, sign * row.value, place, model))
    return [model for *_, model in sorted(valued, key=lambda entry: entry[:3])]
