"""A table laid out: the places of a grid, from which CSV, Markdown, LaTeX and HTML are written.

Models are the lines of most tables and the columns of a transposed one. Either way a grid has a
head line and lines of fields, and a renderer only has to know how to write a head, a label and a
field. Paper values stand in a line below their model's, or in a column right of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workflow_scripts.tables.assemble import Cell, Row, Table


@dataclass(frozen=True)
class Label:
    """The head of a column or of a line.

    Attributes:
        text: for readers.
        kind: `corner` (above the labels of the lines), `attribute`, `metric`, `published`, `count`,
            or what the row of the table is: `model`, `control`, `real`, ...
        row: the row that it names, where it names one.
        below: smaller texts under it, where a page has no place for columns of attributes.
    """

    text: str
    kind: str
    row: Row | None = None
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """One place of a line.

    Attributes:
        kind: `value` (of `cell`), `published` (the paper's value of `cell`), `attribute` or
            `count` (`text`).
        text: the text of an attribute or a count; may be empty.
        cell: the cell of a value.
        block: the kind of row that it belongs to, where the models are columns.
    """

    kind: str
    text: str = ""
    cell: Cell | None = None
    block: str = ""


@dataclass(frozen=True)
class Line:
    """A line of the grid.

    Attributes:
        kind: `values`, `published` (the paper's values of the line above) or `counts`.
        label: the line's name.
        fields: its fields in the order of the columns.
        block: the kind of row (`real`, `model`, ...), if the models are lines.
        starts_block: whether it is set apart from the line above.
    """

    kind: str
    label: Label
    fields: tuple[Field, ...]
    block: str = ""
    starts_block: bool = False

    @property
    def cells(self) -> list[Cell]:
        """The cells of its values."""
        return [field.cell for field in self.fields if field.kind == "value" and field.cell]


@dataclass(frozen=True)
class Grid:
    """A table as lines and columns.

    Attributes:
        heads: the heads of the columns, the corner first.
        lines: the lines below the heads.
        transposed: whether the models are columns.
    """

    heads: tuple[Label, ...]
    lines: tuple[Line, ...]
    transposed: bool

    @property
    def value_heads(self) -> list[str]:
        """What heads the columns of values."""
        return [head.text for head in self.heads if head.kind not in _NO_VALUES]

    def of_kind(self, kind: str) -> list[Line]:
        """Return the lines of a kind."""
        return [line for line in self.lines if line.kind == kind]

    @property
    def blocks(self) -> list[tuple[str, list[Line]]]:
        """The lines of values by block, in their order."""
        blocks: dict[str, list[Line]] = {}
        for line in self.of_kind("values"):
            blocks.setdefault(line.block, []).append(line)
        return list(blocks.items())


_NO_VALUES = ("corner", "attribute", "published")


def grid_of(table: Table) -> Grid:
    """Lay a table out."""
    return _models_across(table) if table.layout.transposed else _models_down(table)


def _models_down(table: Table) -> Grid:
    layout = table.layout
    heads = (
        Label(layout.row_header, "corner"),
        *(Label(header, "attribute") for header in layout.attributes),
        *(Label(column.header, "metric") for column in layout.columns),
    )
    blank = tuple(Field("attribute") for _ in layout.attributes)
    lines: list[Line] = []
    for i, row in enumerate(table.rows):
        attributes = tuple(Field("attribute", text) for text in row.attributes) or blank
        values = tuple(Field("value", cell=cell) for cell in row.cells)
        starts_block = i > 0 and row.kind != table.rows[i - 1].kind
        label = Label(row.label, row.kind, row)
        lines.append(Line("values", label, attributes + values, row.kind, starts_block))
        if _has_published(row):
            published = tuple(Field("published", cell=cell) for cell in row.cells)
            lines.append(Line("published", Label("published", "published"), blank + published))
    for i, foot in enumerate(table.feet):
        counts = tuple(Field("count", text) for text in foot.texts)
        label = Label(foot.label, "count")
        lines.append(Line("counts", label, blank + counts, starts_block=i == 0))
    return Grid(heads, tuple(lines), transposed=False)


def _models_across(table: Table) -> Grid:
    heads = [Label("Metric", "corner")]
    for row in table.rows:
        heads.append(Label(row.label, row.kind, row))
        if _has_published(row):
            heads.append(Label("published", "published"))
    lines: list[Line] = []
    for j, column in enumerate(table.layout.columns):
        fields = tuple(_values_across(table.rows, j))
        lines.append(Line("values", Label(column.header, "metric"), fields))
    for i, foot in enumerate(table.feet):
        fields = tuple(_counts_across(table.rows, foot.texts))
        lines.append(Line("counts", Label(foot.label, "count"), fields, starts_block=i == 0))
    return Grid(tuple(heads), tuple(lines), transposed=True)


def _values_across(rows: Sequence[Row], j: int) -> Iterator[Field]:
    for row in rows:
        yield Field("value", cell=row.cells[j], block=row.kind)
        if _has_published(row):
            yield Field("published", cell=row.cells[j])


def _counts_across(rows: Sequence[Row], texts: Sequence[str]) -> Iterator[Field]:
    for row, text in zip(rows, texts, strict=True):
        yield Field("count", text, block=row.kind)
        if _has_published(row):
            yield Field("attribute")


def _has_published(row: Row) -> bool:
    return any(cell.published for cell in row.cells)
