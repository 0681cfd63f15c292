"""The figures of the report, as `tables.build_figures` drew them, by page."""

import json
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from workflow_scripts.common.access import unreadable
from workflow_scripts.tables.figure_list import FIGURES, INLINE, LIST


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
        folder: the folder of the figures.

    Raises:
        InputError: the folder has no figures, or they cannot be read.
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
    pages: dict[str, list[ShownFigure]] = {}
    for figure in FIGURES:
        if figure.page is not None and figure.stem in texts[1]:
            svg = Markup(texts[1][figure.stem])
            shown = ShownFigure(figure.number, svg, captions[figure.stem])
            pages.setdefault(figure.page, []).append(shown)
    return pages
