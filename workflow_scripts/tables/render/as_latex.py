"""A table as LaTeX (booktabs), to be `\\input` as it is."""

import re
from typing import Final

from workflow_scripts.tables.assemble import Cell, Table
from workflow_scripts.tables.render.escapes import latex as escape
from workflow_scripts.tables.render.escapes import latex_prose
from workflow_scripts.tables.render.grid import Field, Grid, Label, grid_of

_HEADER_WIDTH: Final = 11

_HEAD: Final = r"""% Needs \usepackage{booktabs}; with graphicx it shrinks to the text width.
\begin{table}[tbp]
\centering
\renewcommand{\arraystretch}{1.2}
\ifdefined\resizebox\else\def\resizebox#1#2#3{#3}\fi
"""


def to_latex(table: Table) -> str:
    """Render a table as a LaTeX float: caption, booktabs tabular, numbered notes."""
    grid = grid_of(table)
    caption, label = latex_prose(table.caption), table.layout.stem.replace("_", "-")
    notes = "".join(
        f"\\par\\textsuperscript{{{i}}}\\,{latex_prose(note)}\n"
        for i, note in enumerate(table.notes, 1)
    )
    return (
        _HEAD
        + f"\\caption{{{caption}}}\n\\label{{tab:{label}}}\n\\medskip\n"
        + "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        + f"\\begin{{tabular}}{{{_alignment(grid)}}}\n\\toprule\n"
        + "\n".join(_lines(grid))
        + "\n\\bottomrule\n\\end{tabular}}\n"
        + (f"\\par\\smallskip\n{{\\footnotesize\\raggedright\n{notes}\\par}}\n" if notes else "")
        + "\\end{table}\n"
    )


def _alignment(grid: Grid) -> str:
    """Return the letters of the columns; where models are columns, controls are set apart."""
    letters, block = "", None
    for head in grid.heads:
        if head.row is not None and block not in (None, head.kind):
            letters += r"@{\hspace{2em}}"
        block = head.kind if head.row is not None else block
        letters += "l" if head.kind in ("corner", "attribute") else "r"
    return letters


def _lines(grid: Grid) -> list[str]:
    lines = [_line([_head(head) for head in grid.heads]), r"\midrule"]
    for line in grid.lines:
        if line.starts_block:
            lines.append(r"\midrule")
        label = _label(line.label)
        indent = r"\quad" if line.kind == "published" else ""
        lines.append(_line([indent + label, *map(_field, line.fields)]))
    return lines


def _line(fields: list[str]) -> str:
    return " & ".join(fields) + r" \\"


def _head(head: Label) -> str:
    return _stacked(head.text) if head.kind in ("attribute", "metric") else _label(head)


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


def _label(label: Label) -> str:
    text = escape(label.text)
    form = {"control": r"\textit{%s}", "published": r"\itshape %s", "count": r"\footnotesize %s"}
    return form.get(label.kind, "%s") % text


def _field(field: Field) -> str:
    if field.cell is None:
        text = escape(field.text)
        return rf"\footnotesize {text}" if field.kind == "count" else text
    if field.kind == "published":
        text = escape(field.cell.published_text).replace("(-", "($-$")
        return rf"\itshape {text}" if text else ""
    return _value(field.cell)


def _value(cell: Cell) -> str:
    if cell.value is None:
        return rf"--\textsuperscript{{{cell.note}}}"
    text = re.sub(r"^-", "$-$", cell.text)
    if cell.mark == "bold":
        text = rf"\textbf{{{text}}}"
    elif cell.mark == "underlined":
        text = rf"\underline{{{text}}}"
    if cell.bounds is not None:  # upper bound over lower bound, small, beside the value
        text += rf"$^{{{cell.bounds[1]}}}_{{{cell.bounds[0]}}}$"
    return text
