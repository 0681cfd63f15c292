"""Figures that show radiographs: real and synthetic ones, and the riskiest pairs."""

import base64
import io
import textwrap
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from workflow_scripts.tables.assemble import Table
from workflow_scripts.tables.examples import Gallery
from workflow_scripts.tables.figures.rows import cells_of
from workflow_scripts.tables.figures.style import HEIGHT, INK, MUTED, SMALL, WIDTH, Drawing, pyplot
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.riskiest import LENSES, Shown

ENDS: Final = 2
"""The number of models with the lowest FID, and with the highest, that are shown."""
DOTS: Final = 300
"""Dots per inch, in print."""
PAIRS: Final = 3
"""Most pairs of each model and lens."""

_SIDE_BY_SIDE: Final = "Real beside synthetic radiographs of the same captions"
_RISKIEST: Final = "The riskiest pairs of each model"


def ends_by_fid(table: Table, models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Return the models with the lowest FID and those with the highest, without controls.

    Args:
        table: Table 1.
        models: the models that have images.

    Returns:
        `ENDS` models of each end, or all models if there are no more, with the lowest FID first.
        Models without an FID come last.
    """
    fids = cells_of(table, "fid")
    competing = [model for model in models if not model.is_control]
    order = sorted(
        (model for model in competing if model.key in fids),
        key=lambda model: fids[model.key].value or 0.0,
    )
    order += [model for model in competing if model.key not in fids]
    return order if len(order) <= 2 * ENDS else [*order[:ENDS], *order[-ENDS:]]


def draw_examples(gallery: Gallery, table: Table) -> Drawing | None:
    """Draw each caption's real radiograph and the models' images, the most faithful model first.

    Args:
        gallery: images of the models that `ends_by_fid` chose, in that order.
        table: Table 1, whose FIDs are printed above the columns.

    Returns:
        The figure, or None if there are no images.
    """
    if not gallery.examples or len(gallery.examples[0].images) < 2:
        return None
    plt = pyplot()
    columns = len(gallery.examples[0].images)
    side = (WIDTH - 1.75) / max(columns, 3)
    rows = len(gallery.examples)
    letters = int(side / 0.06)
    heads = [textwrap.wrap(image.label, letters) for image in gallery.examples[0].images]
    head = 0.12 * (2 + max(map(len, heads)))
    figure = plt.figure(figsize=(1.75 + side * columns, head + 0.04 + (side + 0.04) * rows))
    height = figure.get_figheight()
    fids = {row.label: cells for row in table.rows if (cells := row.cells)}
    for i, example in enumerate(gallery.examples):
        top = head + i * (side + 0.04)
        figure.text(
            0.0,
            1 - (top + 0.02) / height,
            _shortened(example.caption, side),
            va="top",
            fontsize=SMALL,
            linespacing=1.25,
        )
        for j, image in enumerate(example.images):
            place = (1.72 + j * side, height - top - side, side - 0.04, side)
            axes = figure.add_axes(_share(place, figure))
            axes.set_axis_off()
            if image.uri is None:
                axes.text(0.5, 0.5, "–", ha="center", va="center", color=MUTED)
            else:
                _show(axes, image.uri, side)
            if i == 0:
                cell = next(
                    (c for c in fids.get(image.label, ()) if c.column.metric == "fid"), None
                )
                words = f"\nFID {cell.text}" if cell is not None and cell.value is not None else ""
                figure.text(
                    (place[0] + (side - 0.04) / 2) / figure.get_figwidth(),
                    1 - (head - 0.04) / height,
                    "\n".join(heads[j]) + words,
                    ha="center",
                    va="bottom",
                    fontsize=SMALL,
                    linespacing=1.1,
                )
    caption = (
        f"{_SIDE_BY_SIDE}: the real radiograph, then the models from the lowest FID to the highest"
        f"{'' if columns <= 2 * ENDS else f' (the first {ENDS} and the last {ENDS})'}. "
        "Shows patients: for the owner of the data only."
    )
    return Drawing(figure, "examples", _SIDE_BY_SIDE, caption)


def draw_riskiest(pairs_by_model: Sequence[tuple[ModelEntry, Sequence[Shown]]]) -> Drawing | None:
    """Draw each model's riskiest pairs by each lens: the generated image left, training right.

    Args:
        pairs_by_model: see `riskiest.every_model`; at most `PAIRS` pairs of each lens are drawn.

    Returns:
        The figure, or None if no model has pairs.
    """
    if not pairs_by_model:
        return None
    plt = pyplot()
    left, gap = 0.85, 0.12
    pair = (WIDTH - left - gap) / (len(LENSES) * PAIRS)
    side = (pair - 0.08) / 2
    pitch = min(side + 0.2, (HEIGHT - 0.3) / len(pairs_by_model))
    side = pitch - 0.2
    figure = plt.figure(figsize=(WIDTH, 0.3 + pitch * len(pairs_by_model)))
    height = figure.get_figheight()
    for k, lens in enumerate(LENSES):
        figure.text(
            (left + k * (PAIRS * pair + gap)) / WIDTH, 1 - 0.04 / height, lens.title, va="top"
        )
    for i, (model, lenses) in enumerate(pairs_by_model):
        top = 0.28 + i * pitch
        label = "\n".join(textwrap.wrap(model.name, 14))
        figure.text(0.0, 1 - (top + side / 2) / height, label, va="center", fontsize=SMALL)
        for k, shown in enumerate(lenses):
            for j, one in enumerate(shown.pairs[:PAIRS]):
                x = left + k * (PAIRS * pair + gap) + j * pair
                for n, uri in enumerate((one.generated, one.training)):
                    place = (x + n * side, height - top - side, side - 0.015, side)
                    axes = figure.add_axes(_share(place, figure))
                    axes.set_axis_off()
                    _show(axes, uri, side)
                words = " own" if one.own else ""
                figure.text(
                    (x + side) / WIDTH,
                    1 - (top + side + 0.015) / height,
                    f"{one.value}{words}",
                    ha="center",
                    va="top",
                    fontsize=SMALL,
                    color=INK if one.own else MUTED,
                )
    caption = (
        f"{_RISKIEST} by each lens. Left is the generated image, right its closest training "
        "radiograph, and below the distance or score. Own: the radiograph shows the patient whose "
        "caption was the prompt. Shows patients: for the owner of the data only."
    )
    return Drawing(figure, "riskiest", _RISKIEST, caption)


def _share(place: tuple[float, float, float, float], figure: Any) -> tuple[float, ...]:
    """Convert a place from inches to shares of the figure."""
    width, height = figure.get_size_inches()
    return place[0] / width, place[1] / height, place[2] / width, place[3] / height


def _show(axes: Any, uri: str, side: float) -> None:
    """Show an image from a data URI, with no more pixels than are printed on `side` inches."""
    data = base64.b64decode(uri.split(",", 1)[1])
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail(2 * (round(DOTS * side),), Image.Resampling.LANCZOS)
    axes.imshow(np.asarray(image), interpolation="none", aspect="equal")


def _shortened(caption: str, side: float) -> str:
    """Wrap a caption for the place beside an image; dots replace what does not fit."""
    lines = textwrap.wrap(caption, 27)
    room = max(int(side / 0.125), 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1][:24].rstrip() + " ..."]
    return "\n".join(lines)
