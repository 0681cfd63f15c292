"""A table as an HTML page of its own, for readers: it needs no other file and can be sorted."""

from workflow_scripts.tables.assemble import Table
from workflow_scripts.tables.pages import render


def to_html(table: Table) -> str:
    """Render a table as an HTML page: title, caption, table, numbered notes."""
    return render("table_page.html.j2", {"table": table})
