"""How a table is fitted to a page: what was measured keeps its place."""

from workflow_scripts.tables.assemble import Cell, Row, Table
from workflow_scripts.tables.layout import Column, Layout
from workflow_scripts.tables.pages import WIDE, shape_of


def table_of(n_columns, attributes, *values, transposed=False):
    columns = tuple(Column(f"c{i}", f"m{i}", "lower", 1) for i in range(n_columns))
    layout = Layout(
        "t", "", "", "", None, columns, "", ("", ""), attributes=attributes, transposed=transposed
    )
    cells = tuple(Cell(column, 1.0) for column in columns)
    rows = tuple(Row(f"r{i}", "R", "model", value, cells) for i, value in enumerate(values))
    return Table(layout, rows, (), "", ())


def test_an_attribute_that_no_row_has_takes_no_column():
    table = table_of(2, ("Size", "Kind"), ("–", "FFT"), ("–", "–"))
    shape = shape_of(table)
    assert (shape.headers, shape.below, shape.dense) == (("Kind",), (), False)
    assert [shape.columns(row) for row in table.rows] == [["FFT"], ["–"]]
    assert shape_of(table_of(2, ("Size",), ("–",))).headers == ()


def test_attributes_of_a_wide_table_stand_below_the_names():
    table = table_of(WIDE - 2, ("Size", "Kind", "Empty"), ("1B", "FFT", "–"), ("–", "–", "–"))
    shape = shape_of(table)
    assert (shape.headers, shape.below, shape.dense) == ((), ("Size", "Kind"), False)
    assert [shape.columns(row) for row in table.rows] == [[], []]
    assert [shape.values(row) for row in table.rows] == [["1B", "FFT"], []]


def test_a_row_without_attributes_has_an_empty_cell_for_each():
    table = table_of(2, ("Kind",), ("FFT",), ())
    assert [shape_of(table).columns(row) for row in table.rows] == [["FFT"], [""]]


def test_many_measured_columns_are_set_closer_and_of_a_turned_table_many_models():
    assert not shape_of(table_of(WIDE - 1, ())).dense
    assert shape_of(table_of(WIDE, ())).dense
    models = [()] * WIDE
    assert shape_of(table_of(1, (), *models, transposed=True)).dense
    assert not shape_of(table_of(WIDE, (), *models[1:], transposed=True)).dense
