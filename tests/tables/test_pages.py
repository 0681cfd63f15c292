"""How a table is fitted to a page: what was measured keeps its place."""

from dataclasses import replace

import pytest

from workflow_scripts.tables.assemble import Cell, Foot, Row, Table
from workflow_scripts.tables.layout import Column, Layout
from workflow_scripts.tables.published import Published
from workflow_scripts.tables.render.as_html import to_html
from workflow_scripts.tables.render.page_grid import WIDE, is_dense, page_grid


def table_of(n_columns, attributes, *values, transposed=False):
    columns = tuple(Column(f"c{i}", f"m{i}", "lower", 1) for i in range(n_columns))
    layout = Layout(
        "t", "", "", "", None, columns, "", ("", ""), attributes=attributes, transposed=transposed
    )
    cells = tuple(Cell(column, 1.0) for column in columns)
    rows = tuple(Row(f"r{i}", "R", "model", value, cells) for i, value in enumerate(values))
    return Table(layout, rows, (), "", ())


def columns(grid):
    """Return the heads after the corner that are of attributes, and what each line has there."""
    heads = [head.text for head in grid.heads if head.kind == "attribute"]
    lines = grid.of_kind("values")
    return heads, [[x.text for x in line.fields if x.kind == "attribute"] for line in lines]


def below(grid):
    """Return what stands below the corner, and below each line's name."""
    return grid.heads[0].below, [line.label.below for line in grid.of_kind("values")]


def test_an_attribute_that_no_row_has_takes_no_column():
    grid = page_grid(table_of(2, ("Size", "Kind"), ("–", "FFT"), ("–", "–")))
    assert columns(grid) == (["Kind"], [["FFT"], ["–"]])
    assert below(grid) == ((), [(), ()])
    assert not is_dense(grid)
    assert columns(page_grid(table_of(2, ("Size",), ("–",)))) == ([], [[]])


def test_attributes_of_a_wide_table_stand_below_the_names():
    rows = ("1B", "FFT", "–"), ("–", "–", "–")
    grid = page_grid(table_of(WIDE - 2, ("Size", "Kind", "Empty"), *rows))
    assert columns(grid) == ([], [[], []])
    assert below(grid) == (("Size", "Kind"), [("1B", "FFT"), ()])
    assert not is_dense(grid)


def test_a_row_without_attributes_has_an_empty_cell_for_each():
    grid = page_grid(table_of(2, ("Kind",), ("FFT",), ()))
    assert columns(grid) == (["Kind"], [["FFT"], [""]])


def test_many_measured_columns_are_set_closer_and_of_a_turned_table_many_models():
    def dense(*given, **more):
        return is_dense(page_grid(table_of(*given, **more)))

    models = [()] * WIDE
    assert not dense(WIDE - 1, (), ())
    assert dense(WIDE, (), ())
    assert dense(1, (), *models, transposed=True)
    assert not dense(WIDE, (), *models[1:], transposed=True)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_papers_value_stands_within_the_cell_and_takes_no_line_and_no_column(transposed):
    table = table_of(2, (), (), (), transposed=transposed)
    measured = table.rows[0]
    cells = tuple(replace(x, published=Published(0.5, "0.50")) for x in measured.cells)
    rows = (replace(measured, cells=cells), *table.rows[1:])
    table = replace(table, rows=rows, feet=(Foot("Prompts", ("40", "41")),))
    page = to_html(table)
    grid = page_grid(table)
    assert not [head for head in grid.heads if head.kind == "published"]
    assert not grid.of_kind("published")
    assert page.count("<td") == sum(len(line.fields) for line in grid.lines)
    assert page.count('<span class="paper"') == 2
