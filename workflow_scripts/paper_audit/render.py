"""The audit as CSV and JSON for machines, as Markdown and LaTeX for readers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from typing import Final

from workflow_scripts.common.csv_cells import csv_text
from workflow_scripts.paper_audit.items import Item, summary
from workflow_scripts.paper_audit.yardstick import CONTRADICTED, RULE, VERDICTS
from workflow_scripts.tables.render.escapes import latex, markdown

TITLE: Final = "Audit of the paper"
EXPLANATION: Final = (
    "Every number and statement of the paper that follows from its printed tables is recomputed "
    f"from them. {RULE}"
)

_HEADERS: Final = ("Where", "The paper says", "Recomputed from", "Found", "Verdict")
_WIDTHS: Final = (0.12, 0.19, 0.21, 0.265, 0.145)
"""Widths of the LaTeX columns, as shares of a line; the rest is the space between columns."""


def to_csv(items: Sequence[Item]) -> str:
    """Render the items as CSV, with a column for each attribute."""
    return csv_text([[field.name for field in fields(Item)], *map(astuple, items)])


def to_json(items: Sequence[Item]) -> str:
    """Render the items as JSON for the report's page, which `tables/audit_page.py` reads.

    The object holds two texts, `sentence` and `words`, that introduce the items; the `verdicts`
    from best to worst; and the `items`, each as an object of its attributes.
    """
    page = {
        "sentence": summary(items),
        "words": EXPLANATION,
        "verdicts": VERDICTS,
        "items": [asdict(item) for item in items],
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


def to_markdown(items: Sequence[Item]) -> str:
    """Render the items as a Markdown table."""
    lines = [f"**{TITLE}.** {markdown(summary(items))} {markdown(EXPLANATION)}", ""]
    lines += [f"| {' | '.join(_HEADERS)} |", "| :-- | :-- | :-- | :-- | :-- |"]
    for item in items:
        *texts, verdict = map(markdown, _texts(item))
        strong = f"**{verdict}**" if item.verdict == CONTRADICTED else verdict
        lines.append(f"| {' | '.join([*texts, strong])} |")
    return "\n".join(lines) + "\n"


def to_latex(items: Sequence[Item]) -> str:
    """Render the items as a LaTeX table that breaks over pages (booktabs and longtable)."""
    columns = "@{}" + "".join(rf"p{{{width}\linewidth}}" for width in _WIDTHS) + "@{}"
    head = _line([latex(header) for header in _HEADERS])
    lines = []
    for item in items:
        *texts, verdict = map(latex, _texts(item))
        strong = rf"\textbf{{{verdict}}}" if item.verdict == CONTRADICTED else verdict
        lines.append(_line([*texts, strong]) + r" \addlinespace")
    return (
        "% Needs \\usepackage{booktabs,longtable}.\n"
        "{\\scriptsize\\sloppy\\setlength{\\tabcolsep}{3pt}\n"
        f"\\begin{{longtable}}{{{columns}}}\n"
        f"\\caption{{{latex(f'{TITLE}. {summary(items)} {EXPLANATION}')}}}\n"
        "\\label{tab:audit}\\\\\n"
        f"\\toprule\n{head}\n\\midrule\n\\endfirsthead\n"
        f"\\toprule\n{head}\n\\midrule\n\\endhead\n"
        "\\bottomrule\n\\endfoot\n" + "\n".join(lines) + "\n\\end{longtable}}\n"
    )


def _texts(item: Item) -> list[str]:
    found = "; ".join(filter(None, (item.found, item.note)))
    return [item.where, item.claim, item.basis, found, item.verdict]


def _line(texts: list[str]) -> str:
    return " & ".join(rf"\raggedright {text}" for text in texts) + r" \tabularnewline"
