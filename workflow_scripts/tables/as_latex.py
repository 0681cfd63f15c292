"""A table as LaTeX (booktabs), to be `\\input` as it is."""

import re
from typing import Final

from workflow_scripts.tables.assemble import Cell, Foot, Row, Table
from workflow_scripts.tables.escapes import latex as escape

_HEADER_WIDTH: Final = 11

_HEAD: Final = r"""% Needs \usepackage{booktabs}; with graphicx it shrinks to the text width.
\begin{table}[tbp]
\centering
\renewcommand{\arraystretch}{1.2}
\ifdefined\resizebox\else\def\resizebox#1#2#3{#3}\fi
"""


def to_latex(table: Table) -> str:
    """Render a table as a LaTeX float: caption, booktabs tabular, numbered notes."""
    grid = _transposed(table) if table.layout.transposed else _plain(table)
    columns, lines = grid
    caption, label = escape(table.caption), table.layout.stem.replace("_", "-")
    notes = "".join(
        f"\\par\\textsuperscript{{{i}}}\\,{escape(note)}\n" for i, note in enumerate(table.notes, 1)
    )
    return (
        _HEAD
        + f"\\caption{{{caption}}}\n\\label{{tab:{label}}}\n\\medskip\n"
        + "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        + f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        + "\n".join(lines)
        + "\n\\bottomrule\n\\end{tabular}}\n"
        + (f"\\par\\smallskip\n{{\\footnotesize\\raggedright\n{notes}\\par}}\n" if notes else "")
        + "\\end{table}\n"
    )


def _line(fields: list[str]) -> str:
    return " & ".join(fields) + r" \\"


def _plain(table: Table) -> tuple[str, list[str]]:
    layout = table.layout
    blank = [""] * len(layout.attributes)
    headers = (*layout.attributes, *(column.header for column in layout.columns))
    lines = [_line([layout.row_header, *map(_stacked, headers)]), r"\midrule"]
    kind = table.rows[0].kind if table.rows else ""
    for row in table.rows:
        if row.kind != kind:
            lines.append(r"\midrule")
            kind = row.kind
        attributes = [escape(text) for text in row.attributes] or blank
        lines.append(_line([_label(row), *attributes, *map(_cell, row.cells)]))
        if any(cell.published for cell in row.cells):
            lines.append(_line([r"\quad\itshape published", *blank, *map(_published, row.cells)]))
    if table.feet:
        lines.append(r"\midrule")
    for foot in table.feet:
        lines.append(_line([_foot_label(foot), *blank, *map(_foot_text, foot.texts)]))
    return "l" + "l" * len(blank) + "r" * len(layout.columns), lines


def _transposed(table: Table) -> tuple[str, list[str]]:
    """Return the column letters and lines; a published column follows its model's."""
    beside = [any(cell.published for cell in row.cells) for row in table.rows]
    # Every model's column carries its own gap before it; the controls are set apart by more.
    columns, header = "l", ["Metric"]
    kind = table.rows[0].kind if table.rows else ""
    for row, published in zip(table.rows, beside, strict=True):
        columns += (r"@{\hspace{2em}}r" if row.kind != kind else "r") + ("r" if published else "")
        kind = row.kind
        header += [_label(row), *([r"\itshape published"] if published else [])]
    lines = [_line(header), r"\midrule"]
    for j, column in enumerate(table.layout.columns):
        fields = [escape(column.header)]
        for row, published in zip(table.rows, beside, strict=True):
            fields += [_cell(row.cells[j]), *([_published(row.cells[j])] if published else [])]
        lines.append(_line(fields))
    if table.feet:
        lines.append(r"\midrule")
    for foot in table.feet:
        fields = [_foot_label(foot)]
        for text, published in zip(foot.texts, beside, strict=True):
            fields += [_foot_text(text), *([""] if published else [])]
        lines.append(_line(fields))
    return columns, lines


def _stacked(header: str) -> str:
    """Break a long header into lines of some ten letters, so that its column stays narrow."""
    lines: list[str] = []
    for word in header.split():
        if lines and len(lines[-1]) + len(word) < _HEADER_WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) == 1:
        return escape(header)
    stacked = r" \\ ".join(map(escape, lines))
    return rf"\shortstack[b]{{{stacked}}}"


def _label(row: Row) -> str:
    return rf"\textit{{{escape(row.label)}}}" if row.kind == "control" else escape(row.label)


def _foot_label(foot: Foot) -> str:
    return rf"\footnotesize {escape(foot.label)}"


def _foot_text(text: str) -> str:
    return rf"\footnotesize {escape(text)}"


def _published(cell: Cell) -> str:
    text = escape(cell.published_text).replace("(-", "($-$")
    return rf"\itshape {text}" if text else ""


def _cell(cell: Cell) -> str:
    if cell.value is None:
        return rf"--\textsuperscript{{{cell.note}}}"
    text = re.sub(r"^-", "$-$", cell.text)
    if cell.rank == "best":
        text = rf"\textbf{{{text}}}"
    elif cell.rank == "second":
        text = rf"\underline{{{text}}}"
    if cell.bounds is not None:  # upper bound over lower bound, small, beside the value
        text += rf"$^{{{cell.bounds[1]}}}_{{{cell.bounds[0]}}}$"
    return text
