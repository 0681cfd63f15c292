"""A table's grid, fitted to the width of a page.

A page shows the paper's value within the cell of the measured one, so its grid has no line and no
column of published values. An attribute that no row has takes no column. Where a table is wide,
attributes stand below the models' names, so that what was measured keeps its place.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from workflow_scripts.tables.assemble import Table
from workflow_scripts.tables.render.grid import Field, Grid, Label, Line, grid_of

WIDE: Final = 9
"""Columns that a page of 1,280 pixels holds at the usual size, the one of names among them."""

_UNKNOWN: Final = ("–", "")


def page_grid(table: Table) -> Grid:
    """Return a table's grid as a page shows it."""
    grid = grid_of(table)
    grid = replace(grid, lines=tuple(x for x in grid.lines if x.kind != "published"))
    grid = _columns_where(grid, lambda head, _: head.kind != "published")
    grid = _columns_where(grid, lambda head, fields: head.kind != "attribute" or _is_known(fields))
    if len(grid.heads) <= WIDE or grid.transposed:
        return grid
    lines = tuple(replace(line, label=_with_attributes(line)) for line in grid.lines)
    named = tuple(head.text for head in grid.heads if head.kind == "attribute")
    heads = (replace(grid.heads[0], below=named), *grid.heads[1:])
    grid = replace(grid, heads=heads, lines=lines)
    return _columns_where(grid, lambda head, _: head.kind != "attribute")


def is_dense(grid: Grid) -> bool:
    """Return whether cells are set closer and intervals may take two lines."""
    return len(grid.heads) > WIDE


def _columns_where(grid: Grid, keep: Callable[[Label, list[Field]], bool]) -> Grid:
    """Return a grid of the columns that `keep` accepts, and of the one of labels."""
    kept = [
        i
        for i, head in enumerate(grid.heads[1:])
        if keep(head, [line.fields[i] for line in grid.lines])
    ]
    lines = tuple(replace(x, fields=tuple(x.fields[i] for i in kept)) for x in grid.lines)
    return replace(grid, heads=(grid.heads[0], *(grid.heads[1 + i] for i in kept)), lines=lines)


def _is_known(fields: list[Field]) -> bool:
    return any(field.text not in _UNKNOWN for field in fields)


def _with_attributes(line: Line) -> Label:
    """Return a line's label with its attributes below; with none where nothing is known."""
    fields = [field for field in line.fields if field.kind == "attribute"]
    known = line.kind == "values" and _is_known(fields)
    return replace(line.label, below=tuple(field.text for field in fields) if known else ())
