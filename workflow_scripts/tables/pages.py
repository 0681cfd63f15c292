"""HTML pages from the templates: self-contained, with the house's style and scripts inside."""

import functools
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from workflow_scripts.tables.render.escapes import html_prose, plain
from workflow_scripts.tables.render.page_grid import is_dense, page_grid


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
    environment.globals |= {"page_grid": page_grid, "is_dense": is_dense}
    environment.filters |= {"prose": html_prose, "plain": plain}
    return environment


def _text(name: str) -> str:
    folder = files("workflow_scripts.tables") / "templates"
    return (folder / name).read_text(encoding="utf-8")
