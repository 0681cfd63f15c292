"""A table as Markdown (GitHub's), for readers."""

from workflow_scripts.tables.assemble import Cell, Row, Table
from workflow_scripts.tables.escapes import markdown as escape


def to_markdown(table: Table) -> str:
    """Render a table as Markdown: caption, table, numbered notes."""
    grid = _transposed(table) if table.layout.transposed else _plain(table)
    rule = [":--", *["--:"] * (len(grid[0]) - 1)]
    lines = [f"**Table {table.layout.number}.** {escape(table.caption)}", ""]
    lines += [f"| {' | '.join(row)} |" for row in (grid[0], rule, *grid[1:])]
    if table.notes:
        lines += [
            "",
            *(f"<sup>{i}</sup> {escape(note)}  " for i, note in enumerate(table.notes, 1)),
        ]
    return "\n".join(lines) + "\n"


def _plain(table: Table) -> list[list[str]]:
    layout = table.layout
    headers = (*layout.attributes, *(column.header for column in layout.columns))
    rows = [[layout.row_header, *map(escape, headers)]]
    kind = table.rows[0].kind if table.rows else ""
    for row in table.rows:
        if row.kind != kind:  # Markdown has no rule inside a table: an empty row stands for it
            rows.append([""] * len(rows[0]))
            kind = row.kind
        attributes = row.attributes or ("",) * len(layout.attributes)
        rows.append([_label(row), *map(escape, attributes), *map(_cell, row.cells)])
        if any(cell.published for cell in row.cells):
            rows.append(["*published*", *[""] * len(layout.attributes), *_published(row)])
    if table.feet:
        rows.append([""] * len(rows[0]))
    for foot in table.feet:
        rows.append([f"*{escape(foot.label)}*", *[""] * len(layout.attributes), *foot.texts])
    return rows


def _transposed(table: Table) -> list[list[str]]:
    header = ["Metric"]
    for row in table.rows:
        header.append(_label(row))
        if any(cell.published for cell in row.cells):
            header.append("*published*")
    rows = [header]
    for j, column in enumerate(table.layout.columns):
        line = [escape(column.header)]
        for row in table.rows:
            line.append(_cell(row.cells[j]))
            if any(cell.published for cell in row.cells):
                line.append(_published(row)[j])
        rows.append(line)
    for foot in table.feet:
        line = [f"*{escape(foot.label)}*"]
        for row, text in zip(table.rows, foot.texts, strict=True):
            line.append(text)
            if any(cell.published for cell in row.cells):
                line.append("")
        rows.append(line)
    return rows


def _label(row: Row) -> str:
    label = escape(row.label)
    return f"*{label}* (control)" if row.kind == "control" else label


def _published(row: Row) -> list[str]:
    return [f"*{cell.published_text}*" if cell.published else "" for cell in row.cells]


def _cell(cell: Cell) -> str:
    if cell.value is None:
        return f"–<sup>{cell.note}</sup>"
    text = {"best": f"**{cell.text}**", "second": f"<u>{cell.text}</u>"}.get(
        cell.rank or "", cell.text
    )
    if cell.bounds is not None:
        text += f" ({cell.bounds[0]} to {cell.bounds[1]})"
    return text
