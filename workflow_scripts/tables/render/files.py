"""The files of a table, one in each format."""

from pathlib import Path
from typing import Final

from workflow_scripts.common.files import write_text
from workflow_scripts.tables.assemble import Table
from workflow_scripts.tables.render.as_csv import to_csv
from workflow_scripts.tables.render.as_html import to_html
from workflow_scripts.tables.render.as_latex import to_latex
from workflow_scripts.tables.render.as_markdown import to_markdown

FORMATS: Final = {"csv": to_csv, "md": to_markdown, "tex": to_latex, "html": to_html}


def write_tables(tables: dict[str, Table], folder: str | Path) -> None:
    """Write each table in every format as `{folder}/{stem}.{csv,md,tex,html}`."""
    for stem, table in tables.items():
        for suffix, render in FORMATS.items():
            write_text(Path(folder) / f"{stem}.{suffix}", render(table))
