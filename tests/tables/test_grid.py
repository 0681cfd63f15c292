"""The grid: what stands where, models down or across, with and without the paper's values."""

from dataclasses import replace

import pytest

from workflow_scripts.tables.assemble import Cell, Foot, Row, Table
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.published import Published
from workflow_scripts.tables.render.as_csv import to_csv
from workflow_scripts.tables.render.as_latex import to_latex
from workflow_scripts.tables.render.as_markdown import to_markdown
from workflow_scripts.tables.render.grid import grid_of

PAPER = Published(0.5, "0.500")


@pytest.fixture
def table():
    """Two columns; a model with a paper value, and a control."""
    layout = LAYOUTS["table03_privacy"]
    layout = replace(layout, columns=layout.columns[:2], transposed=False, attributes=("Size",))
    first, second = layout.columns
    model = (Cell(first, 0.25, rank="best", published=PAPER), Cell(second, None, note=1))
    control = (Cell(first, 0.125, rank="second"), Cell(second, 2.0, beyond_noise=True))
    rows = (
        Row("a", "A_1", "model", ("1B",), model),
        Row("z", "Z", "control", (), control),
    )
    return Table(layout, rows, (Foot("Prompts", ("40", "–")),), "Caption.", ("not run",))


def texts(grid):
    """Return the labels of lines and columns, and the values as (line, column)."""
    return [line.label.text for line in grid.lines], [head.text for head in grid.heads]


def test_models_are_lines_and_the_papers_values_stand_below(table):
    grid = grid_of(table)
    assert texts(grid) == (
        ["A_1", "published", "Z", "Prompts"],
        ["Model", "Size", *(column.header for column in table.layout.columns)],
    )
    assert [line.starts_block for line in grid.lines] == [False, False, True, True]
    assert {len(line.fields) for line in grid.lines} == {len(grid.heads) - 1}


def test_models_are_columns_and_the_papers_values_stand_beside(table):
    across = replace(table, layout=replace(table.layout, transposed=True))
    grid = grid_of(across)
    assert texts(grid) == (
        [*(column.header for column in table.layout.columns), "Prompts"],
        ["Metric", "A_1", "published", "Z"],
    )
    assert {len(line.fields) for line in grid.lines} == {len(grid.heads) - 1}
    # The same cells, turned.
    plain = [line.cells for line in grid_of(table).of_kind("values")]
    turned = [line.cells for line in grid.of_kind("values")]
    assert [list(cells) for cells in zip(*turned, strict=True)] == plain


@pytest.mark.parametrize("transposed", [False, True])
def test_marks_notes_and_controls_are_written_in_each_format(table, transposed):
    table = replace(table, layout=replace(table.layout, transposed=transposed))
    markdown, latex = to_markdown(table), to_latex(table)
    for text in ("**0.250**", "<u>0.125</u>", "**2.000**", "–<sup>1</sup>", "*Z* (control)"):
        assert text in markdown
    assert "*0.500*" in markdown
    for text in (r"\textbf{0.250}", r"\underline{0.125}", r"--\textsuperscript{1}", r"\textit{Z}"):
        assert text in latex
    assert r"\itshape 0.500" in latex
    assert r"A\_1" in latex
    assert (r"@{\hspace{2em}}" in latex) == transposed
    lines = to_csv(table).splitlines()
    assert len({line.count(",") for line in lines}) == 1
    assert "0.25" in lines[1]
