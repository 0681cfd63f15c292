"""The figures inside the report: drawn by `tables.build_figures`, each on its page."""

import json
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from workflow_scripts.common.access import unreadable
from workflow_scripts.tables.build_figures import FIGURES, INLINE, LIST


@dataclass(frozen=True)
class ShownFigure:
    """A figure of the report.

    Attributes:
        number: as in its files' names.
        svg: the figure, in the page's font and colours.
        caption: with its title.
    """

    number: str
    svg: Markup
    caption: str


def figures_by_page(folder: str | Path) -> dict[str, list[ShownFigure]]:
    """Return the figures that were drawn and show no patients, by the key of their page.

    Args:
        folder: where `tables.build_figures` wrote them.

    Raises:
        InputError: it wrote none there.
    """
    texts = []
    for name in (LIST, INLINE):
        path = Path(folder) / name
        try:
            texts.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise unreadable(
                "cannot read the figures",
                error,
                path,
                "run workflow_scripts.tables.build_figures first",
            ) from None
    captions = {entry["stem"]: entry["caption"] for entry in texts[0]}
    found: dict[str, list[ShownFigure]] = {}
    for figure in FIGURES:
        if figure.page is not None and figure.stem in texts[1]:
            svg = Markup(texts[1][figure.stem])
            shown = ShownFigure(figure.number, svg, captions[figure.stem])
            found.setdefault(figure.page, []).append(shown)
    return found
