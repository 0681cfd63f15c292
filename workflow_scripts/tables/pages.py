"""HTML pages from the templates: self-contained, with the house's style and scripts inside."""

import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import jinja2
from markupsafe import Markup

from workflow_scripts.tables.assemble import Row, Table

WIDE: Final = 9
"""Columns that a page of 1,280 pixels holds at the usual size, the one of names among them."""


@dataclass(frozen=True)
class Shape:
    """How a table is fitted to a page.

    Attributes:
        headers: attributes of the models that have columns of their own.
        below: attributes that stand below the models' names instead, so that what was measured
            keeps its place.
        dense: whether cells are set closer and intervals may take two lines.
    """

    headers: tuple[str, ...]
    below: tuple[str, ...]
    dense: bool
    _used: tuple[int, ...]

    def columns(self, row: Row) -> list[str]:
        """Return what a row has in the columns `headers`."""
        return [row.attributes[i] if row.attributes else "" for i in self._used if self.headers]

    def values(self, row: Row) -> list[str]:
        """Return what stands below a row's name; nothing where nothing is known of it."""
        values = [row.attributes[i] for i in self._used] if self.below and row.attributes else []
        return values if any(value != _UNKNOWN for value in values) else []


_UNKNOWN: Final = "–"


def shape_of(table: Table) -> Shape:
    """Return how a table is fitted to a page: an attribute that no row has takes no place."""
    layout = table.layout
    if layout.transposed:
        return Shape((), (), 1 + len(table.rows) > WIDE, ())
    used = tuple(
        i
        for i in range(len(layout.attributes))
        if any(row.attributes and row.attributes[i] not in (_UNKNOWN, "") for row in table.rows)
    )
    headers = tuple(layout.attributes[i] for i in used)
    measured = 1 + len(layout.columns)
    if measured + len(headers) > WIDE:
        return Shape((), headers, measured > WIDE, used)
    return Shape(headers, (), False, used)


def render(template: str, context: dict[str, Any]) -> str:
    """Render `templates/{template}`.

    The template finds the style as `style`, what must run before the page is drawn as
    `early_script`, and the rest as `script`.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            style=Markup(_text("report.css")),
            early_script=Markup(_text("early.js")),
            script=Markup(_text("report.js")),
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["shape_of"] = shape_of
    return environment


def _text(name: str) -> str:
    folder = files("workflow_scripts.tables") / "templates"
    return (folder / name).read_text(encoding="utf-8")
