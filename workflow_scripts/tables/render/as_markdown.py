"""A table as Markdown (GitHub's), for readers."""

from workflow_scripts.tables.assemble import Cell, Table
from workflow_scripts.tables.render.escapes import markdown as escape
from workflow_scripts.tables.render.escapes import markdown_prose
from workflow_scripts.tables.render.grid import Field, Label, grid_of


def to_markdown(table: Table) -> str:
    """Render a table as Markdown: caption, table, numbered notes."""
    grid = grid_of(table)
    rows = [[_label(head) for head in grid.heads], [":--", *["--:"] * (len(grid.heads) - 1)]]
    for line in grid.lines:
        if line.starts_block and not grid.transposed:
            rows.append([""] * len(grid.heads))  # Markdown has no rule inside a table
        rows.append([_label(line.label), *map(_field, line.fields)])
    text = [f"**Table {table.layout.number}.** {markdown_prose(table.caption)}", ""]
    text += [f"| {' | '.join(row)} |" for row in rows]
    if table.notes:
        text += [
            "",
            *(f"<sup>{i}</sup> {markdown_prose(note)}  " for i, note in enumerate(table.notes, 1)),
        ]
    return "\n".join(text) + "\n"


def _label(label: Label) -> str:
    text = escape(label.text)
    if label.kind == "control":
        return f"*{text}* (control)"
    return f"*{text}*" if label.kind in ("published", "count") else text


def _field(field: Field) -> str:
    if field.kind == "attribute":
        return escape(field.text)
    if field.cell is None:
        return field.text
    if field.kind == "published":
        return f"*{field.cell.published_text}*" if field.cell.published else ""
    return _value(field.cell)


def _value(cell: Cell) -> str:
    if cell.value is None:
        return f"–<sup>{cell.note}</sup>"
    text = {"bold": f"**{cell.text}**", "underlined": f"<u>{cell.text}</u>"}.get(
        cell.mark or "", cell.text
    )
    if cell.bounds is not None:
        text += f" ({cell.bounds[0]} to {cell.bounds[1]})"
    return text
