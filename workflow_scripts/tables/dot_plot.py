"""Dot plots with intervals for the report's overview: positions here, drawing in the template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from workflow_scripts.tables.assemble import Cell, Table

LEFT: Final = 156.0
"""Width of the labels, in the plot's units."""
WIDTH: Final = 390.0
RIGHT: Final = 64.0
ROW: Final = 22.0

_DECADES: Final = 4
"""Labels that a logarithmic axis has room for, less one."""

_REAL: Final = "Real data alone"
"""The name of real data in the legend; the paper's tables have four others."""

_LOG_FROM: Final = 12.0
"""Ratio of largest to smallest value from which the axis is logarithmic."""


@dataclass(frozen=True)
class Dot:
    """A row of the plot: label, kind of row, height, value and interval as x positions."""

    label: str
    kind: str
    y: float
    x: float
    low: float | None
    high: float | None
    text: str
    best: bool


@dataclass(frozen=True)
class DotPlot:
    """A plot: its rows, the axis ticks (x, label), the axis title and its height."""

    title: str
    axis: str
    dots: tuple[Dot, ...]
    ticks: tuple[tuple[float, str], ...]
    height: float


def dot_plot(table: Table, metric: str, subset: str, title: str) -> DotPlot | None:
    """Return the plot of one column of a table; None if the column has no value."""
    j = next(
        j
        for j, column in enumerate(table.layout.columns)
        if (column.metric, column.subset) == (metric, subset)
    )
    rows = [row for row in table.rows if row.kind != "floor" and row.cells[j].value is not None]
    cells = [row.cells[j] for row in rows]
    if not cells:
        return None
    scale, ticks = _scale(cells)
    dots, y = [], ROW / 2
    for i, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        if i and row.kind != rows[i - 1].kind:
            y += ROW / 3  # the blocks of the tables, set apart
        label = _REAL if row.kind == "real" else row.label
        dots.append(_dot(label, row.kind, y, cell, scale))
        y += ROW
    arrow = "lower is better" if cells[0].column.direction == "lower" else "higher is better"
    axis = arrow + (", logarithmic" if scale.logarithmic else "")
    if any(map(scale.is_beyond, cells)):
        axis += ", zero at the left edge"
    return DotPlot(title, axis, tuple(dots), tuple(ticks), y + 26)


class _Scale:
    def __init__(self, low: float, high: float, logarithmic: bool):
        self.logarithmic = logarithmic
        self.low, self.high = self._warp(low), self._warp(high)

    def is_beyond(self, cell: Cell) -> bool:
        """Whether a value is too small for the axis, and so stands at its edge."""
        return self.logarithmic and cell.value is not None and cell.is_nought

    def _warp(self, number: float) -> float:
        if not self.logarithmic:
            return number
        return math.log10(number) if number > 0 else -math.inf

    def __call__(self, number: float) -> float:
        warped = max(self._warp(number), self.low)
        share = (warped - self.low) / (self.high - self.low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)


def _scale(cells: Sequence[Cell]) -> tuple[_Scale, list[tuple[float, str]]]:
    """Return the scale of some values, and its ticks.

    What a reader sees as zero (a copy's FID is 1e-14, not 0) has no place on a logarithmic axis. It
    does not stretch the axis either.
    """
    ends = [end for cell in cells for end in (cell.value, *(cell.interval or ()))]
    known = [end for end in ends if end is not None]
    above = [
        end
        for cell in cells
        if not cell.is_nought
        for end in (cell.value, *(cell.interval or ()))
        if end is not None and cell.rounded(end).strip("0.-")
    ]
    low, high = min(known), max(known)
    some = above or [high]
    if low >= 0 and min(some) > 0 and high / min(some) > _LOG_FROM:
        low = min(some)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        scale = _Scale(10.0**first, 10.0**last, True)
        step = math.ceil((last - first) / _DECADES)
        return scale, [(scale(10.0**k), f"{10.0**k:g}") for k in range(first, last + 1, step)]
    marks = _round_marks(low, high)
    scale = _Scale(marks[0], marks[-1], False)
    return scale, [(scale(mark), f"{mark:g}") for mark in marks]


def _round_marks(low: float, high: float) -> Sequence[float]:
    """Return three to six evenly spaced round numbers that span low and high."""
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span))
    step = next(step * factor for factor in (0.25, 0.5, 1, 2, 2.5) if span / (step * factor) <= 4)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(k * step, 10) for k in range(first, last + 1)]


def _dot(label: str, kind: str, y: float, cell: Cell, scale: _Scale) -> Dot:
    value = cell.value if cell.value is not None else math.nan
    low, high = (scale(bound) for bound in cell.interval) if cell.interval else (None, None)
    return Dot(label, kind, y, scale(value), low, high, cell.text, cell.mark == "bold")
