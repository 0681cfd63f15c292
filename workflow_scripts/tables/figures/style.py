"""The style of all figures (sizes, colours, marks), and how figures are written.

A figure is as wide as a page's text, and its smallest letters are 7 points, so it can be printed
without scaling. The colour-blind can tell the colours apart. A mark's shape or a bar's hatch says
the same as its colour.
"""

import io
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.files import whole_file
from workflow_scripts.tables.assemble import Row
from workflow_scripts.tables.models import ModelEntry

Styles = Mapping[str, dict[str, Any]]
"""How each model's marks are drawn, by the model's key."""

WIDTH: Final = 7.0
HEIGHT: Final = 9.2
"""Inches: width and height of the text on a page of A4 or letter size."""
FONT: Final = 8.0
SMALL: Final = 7.0
"""Points: the size of letters, and of those in legends and ticks."""

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, without its yellow, which does not show on white."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "<", "X", ">", "*", "d", "p")
"""At least as many as the paper has models, so that the shape identifies the model."""
CONTROL_MARKERS: Final = ("x", "+", "o", "s", "D", "^", "v")
"""Drawn hollow, so that they differ from the models' marks in a gray print, too."""
DASHES: Final = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))

FLOOR: Final[dict[str, Any]] = {
    "color": "#9a9c9e",
    "marker": "|",
    "markersize": 12,
    "markeredgewidth": 2.6,
}

# Near black, gray and near white. Nothing else has these colours: the report replaces them by the
# colours of its theme.
INK, MUTED, RULE, PAPER = "#101112", "#717273", "#d1d2d3", "#fdfefd"
_THEMED: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
}


@dataclass(frozen=True)
class Drawing:
    """A figure, drawn and not yet written.

    Attributes:
        figure: matplotlib's.
        name: the prefix of its ids, so that two figures on one page do not share any.
        title: what it shows, in a few words.
        caption: the caption for readers.
    """

    figure: Any
    name: str
    title: str
    caption: str

    def __post_init__(self) -> None:
        import matplotlib.pyplot as plt

        plt.close(self.figure)  # pyplot forgets it; it can still be written


def pyplot():  # type: ignore[no-untyped-def]
    """Return pyplot, without a screen and with the style of every figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcdefaults()
    plt.rcParams.update(
        {
            "font.size": FONT,
            "text.parse_math": False,  # names and captions are not formulas
            "axes.titlesize": FONT,
            "xtick.labelsize": SMALL,
            "ytick.labelsize": SMALL,
            "legend.fontsize": SMALL,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "axes.axisbelow": True,
            "axes.facecolor": "none",
            "axes.linewidth": 0.6,
            "figure.facecolor": "none",
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "hatch.linewidth": 0.7,
        }
    )
    return plt


def grid(height: float, down: int = 1, across: int = 1, **more: Any):  # type: ignore[no-untyped-def]
    """Return a figure as wide as a page's text, and its panels, (down, across)."""
    size = (WIDTH, height)
    return pyplot().subplots(
        down, across, figsize=size, squeeze=False, layout="constrained", **more
    )


def model_styles(n: int) -> list[dict[str, Any]]:
    """Return n pairs of marker and colour; no pair repeats before all markers had all colours."""
    return [
        {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[(i + i // len(MARKERS)) % len(MARKERS)],
            "markersize": 4.6,
        }
        for i in range(n)
    ]


def control_styles() -> Iterator[dict[str, Any]]:
    """Return the controls' marks, which are gray and hollow."""
    return itertools.cycle(
        {"color": MUTED, "marker": marker, "markersize": 4.6, "markerfacecolor": "none"}
        for marker in CONTROL_MARKERS
    )


def row_styles(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the mark of each row of a table."""
    models, controls = iter(model_styles(len(rows))), control_styles()
    return [next(controls) if row.kind == "control" else next(models) for row in rows]


def styles_by_key(models: Sequence[ModelEntry]) -> dict[str, dict[str, Any]]:
    """Return the mark of each model and control, the same in all figures of a run."""
    of_models, of_controls = iter(model_styles(len(models))), control_styles()
    return {m.key: next(of_controls) if m.is_control else next(of_models) for m in models}


def logarithmic(axis) -> None:  # type: ignore[no-untyped-def]
    """Make an axis logarithmic, its ticks 1, 2, 5, 10, ... in plain numbers.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis._set_axes_scale("log")
    low, high = axis.get_view_interval()
    many = high / low > 300
    axis.set_major_locator(LogLocator(subs=(1,) if many else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))


def inline_svg(drawing: Drawing) -> str:
    """Return an `<svg>` for a page; it takes the page's font and its light or dark colours.

    Its text can be searched. Its ids begin with the figure's name.
    """
    svg = _svg_of(drawing, "none", transparent=True)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = (
        re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")])
        + (svg[svg.index(">") :])
    )
    svg = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", svg)
    svg = re.sub(r'id="([^"]+)"', rf'id="{drawing.name}-\1"', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{drawing.name}-', svg)
    svg = svg.replace("url(#", f"url(#{drawing.name}-")
    for stand_in, variable in _THEMED.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{drawing.title}"', 1)


def write_figure(drawing: Drawing, stem: Path, owner_only: bool) -> list[Path]:
    """Write a figure as `{stem}.svg` and `{stem}.pdf`, which need no other files.

    In the SVG letters are outlines, because the reader may not have the font. In the PDF the
    TrueType font is embedded, and the text can be searched. The same figure gives the same bytes.

    Args:
        drawing: the figure.
        stem: path without a suffix.
        owner_only: whether only the owner may read the files, because they show patients.

    Returns:
        The two files.
    """
    import matplotlib

    svg, pdf = stem.with_suffix(".svg"), stem.with_suffix(".pdf")
    text = re.sub(r"<!DOCTYPE.*?>\s*", "", _svg_of(drawing, "path"), flags=re.DOTALL)
    drawing.figure.set_layout_engine("none")  # it has its layout, in whatever format
    text = text.replace("<svg", f'<svg role="img" aria-label="{drawing.title}"', 1)
    with whole_file(svg, owner_only=owner_only) as temporary:
        temporary.write_text(text, encoding="utf-8")
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs every glyph
    about = {"Title": drawing.title, "CreationDate": None, "Creator": None}
    with matplotlib.rc_context({"pdf.fonttype": 42}), whole_file(pdf, owner_only) as temporary:
        drawing.figure.savefig(temporary, format="pdf", facecolor="white", metadata=about)
    return [svg, pdf]


def no_figure(name: str, title: str, reason: str) -> Drawing:
    """Return a figure that only says why nothing can be drawn."""
    plt = pyplot()
    figure = plt.figure(figsize=(WIDTH, 0.7))
    figure.text(0.5, 0.5, f"Not drawn: {reason}.", ha="center", va="center", color=MUTED)
    return Drawing(figure, name, title, f"{title}. Not drawn: {reason}.")


def _svg_of(drawing: Drawing, letters: str, transparent: bool = False) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": drawing.name, "svg.fonttype": letters}):
        drawing.figure.savefig(
            buffer,
            format="svg",
            facecolor="none" if transparent else "white",
            metadata={"Date": None, "Creator": None, "Title": drawing.title},
        )
    return buffer.getvalue()
