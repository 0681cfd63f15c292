"""HTML pages from the templates: self-contained, with the house's style and script inside."""

from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup


def render(template: str, context: dict[str, Any]) -> str:
    """Render `templates/{template}` with the style and the script as `style` and `script`."""
    folder = files("workflow_scripts.tables") / "templates"

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        **context, style=Markup(text("report.css")), script=Markup(text("report.js"))
    )
