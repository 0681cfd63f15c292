"""Figures with a row for each model: downstream gains, and distributions of privacy scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.privacy.score import EXTREMES, LENSES
from workflow_scripts.tables.assemble import Cell, Table
from workflow_scripts.tables.figures.style import (
    INK,
    MUTED,
    RULE,
    SMALL,
    Drawing,
    Styles,
    grid,
)
from workflow_scripts.tables.models import ModelEntry, controls_last
from workflow_scripts.tables.utility_words import GAINS

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Quantiles over prompts: dots, ends of the thin line, ends of the thick line, and the mark."""

_LENS_TITLES: Final = {
    "reid": "Re-identification score\n(right is riskier)",
    "latent": "Latent distance\n(left is riskier)",
    "pixel": "Pixel distance\n(left is riskier)",
    "mirrored": "Pixel distance, mirrored\n(left is riskier)",
}
_PRIVACY_TITLE: Final = "Privacy scores over prompts, models against controls"
_GAINS_TITLE: Final = "What synthetic images add to real ones, by task"


def draw_gains(
    tables: Mapping[str, Table], models: Sequence[ModelEntry], styles: Styles
) -> Drawing | None:
    """Draw the gain of each task over real data alone, with its interval.

    Args:
        tables: the tables of `GAINS`, by stem.
        models: the models in the order of the rows.
        styles: mark of each model by key.

    Returns:
        The figure, or None if no gain is known.
    """
    cells_by_gain = {gain: cells_of(tables[gain.stem], gain.metric) for gain in GAINS}
    known = {key for cells in cells_by_gain.values() for key in cells}
    shown = [model for model in controls_last(models) if model.key in known]
    panels_of = [gain for gain in GAINS if cells_by_gain[gain]]
    if not shown:
        return None
    figure, panels = _panels(shown, len(panels_of))
    for axes, gain in zip(panels, panels_of, strict=True):
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for y, model in enumerate(shown):
            cell = cells_by_gain[gain].get(model.key)
            if cell is None:
                continue
            if cell.interval is not None:
                color = styles[model.key]["color"]
                axes.plot(cell.interval, [y, y], color=color, linewidth=1.2, zorder=2)
            axes.plot([cell.value], [y], linestyle="", zorder=3, **styles[model.key])
        axes.set_title(f"{gain.task}\n", loc="left")
        axes.set_xlabel(f"Gain in {gain.name}")
    caption = (
        f"{_GAINS_TITLE}: the difference to training on the real images alone, over the same draws "
        "of test patients, with 95% intervals. The intervals include the noise of training only if "
        "a network was trained more than once. Controls are gray."
    )
    return Drawing(figure, "gains", _GAINS_TITLE, caption)


def cells_of(table: Table, metric: str) -> dict[str, Cell]:
    """Return a metric's cells over all images by model and control, if they have a value."""
    return {row.key: cell for row, cell in table.values(metric, "model", "control")}


@dataclass(frozen=True)
class Spread:
    """The distribution of a model's prompts by one lens, with each prompt's riskiest image.

    Attributes:
        lens: one of `privacy.score.LENSES`.
        model: the model's key.
        prompts: number of prompts.
        quantiles: (7,), at `QUANTILES`.
    """

    lens: str
    model: str
    prompts: int
    quantiles: tuple[float, ...]


def spreads(pairs: Mapping[str, pd.DataFrame]) -> list[Spread]:
    """Return the spread of every model in every lens.

    Args:
        pairs: a row for each generated image, by model, see `privacy.score.PAIR_SCHEMA`.
    """
    rows = []
    for lens in LENSES:
        for model, frame in pairs.items():
            # A prompt's replicates share the radiograph that their caption describes.
            of_prompts = frame.groupby("image_id")[lens].agg(EXTREMES[lens])
            points = np.quantile(of_prompts.to_numpy(), QUANTILES)
            rows.append(Spread(lens, model, len(of_prompts), tuple(map(float, points))))
    return rows


def spread_table(distributions: Sequence[Spread]) -> pd.DataFrame:
    """Return the spreads as a table, a row for each model and lens."""
    names = [f"q{100 * q:g}" for q in QUANTILES]
    rows = [
        {"lens": s.lens, "model": s.model, "prompts": s.prompts}
        | dict(zip(names, s.quantiles, strict=True))
        for s in distributions
    ]
    return pd.DataFrame(rows, columns=["lens", "model", "prompts", *names])


def draw_privacy(
    distributions: Sequence[Spread],
    models: Sequence[ModelEntry],
    styles: Styles,
    threshold: float | None,
) -> Drawing | None:
    """Draw each model's distribution over prompts, a panel for each lens.

    Args:
        distributions: see `spreads`.
        models: the models in the order of the rows; controls follow.
        styles: mark of each model by key.
        threshold: δ of the re-identification score; None if it is not known.

    Returns:
        The figure, or None if there are no scores.
    """
    by_place = {(spread.lens, spread.model): spread for spread in distributions}
    shown = [m for m in controls_last(models) if any(key == m.key for _, key in by_place)]
    if not shown:
        return None
    figure, panels = _panels(shown, len(LENSES))
    for axes, lens in zip(panels, LENSES, strict=True):
        for y, model in enumerate(shown):
            spread = by_place.get((lens, model.key))
            if spread is None:
                continue
            _draw_spread(axes, spread, y, styles[model.key])
        axes.set_title(_LENS_TITLES[lens], loc="left", fontsize=SMALL)
        if lens == "reid":
            axes.set_xlim(-0.03, 1.03)
            if threshold is not None:
                axes.axvline(threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
                axes.annotate(
                    "δ", (threshold, -0.62), (2, 0), textcoords="offset points", fontsize=SMALL
                )
    counts = sorted({spread.prompts for spread in distributions})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    caption = (
        f"{_PRIVACY_TITLE}. The riskiest image of each of {n} prompts is compared with the "
        "training radiograph that the prompt describes. Mark: the median prompt; thick line: the "
        "middle half; thin line: 5% to 95%; dots: the extremes. Training copies are the ceiling of "
        "risk; held-out real images show other patients. Pixel distances are in gray levels of 255."
    )
    if threshold is not None:
        caption += f" δ = {threshold:g} is the score from which two images count as one patient's."
    return Drawing(figure, "privacy", _PRIVACY_TITLE, caption)


def _draw_spread(axes: Any, spread: Spread, y: int, style: dict[str, Any]) -> None:
    """Draw a distribution as two dots, a thin line, a thick line and a mark."""
    low, five, quarter, half, three, most, high = spread.quantiles
    color, thick = style["color"], {"linewidth": 3.2, "alpha": 0.45, "solid_capstyle": "butt"}
    axes.plot([low, high], [y, y], linestyle="", marker=".", color=color, markersize=2)
    axes.plot([five, most], [y, y], color=color, linewidth=0.9, zorder=2)
    axes.plot([quarter, three], [y, y], color=color, zorder=2, **thick)
    axes.plot([half], [y], linestyle="", zorder=3, **style)


def _panels(shown: Sequence[ModelEntry], n: int):  # type: ignore[no-untyped-def]
    """Return a figure of n panels whose rows are the models."""
    figure, (panels,) = grid(0.95 + 0.19 * len(shown), across=n, sharey=True)
    first_control = next((i for i, m in enumerate(shown) if m.is_control), 0)
    for axes in panels:
        axes.grid(axis="x", color=RULE, linewidth=0.6, zorder=0)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
        if first_control:
            axes.axhline(first_control - 0.5, color=MUTED, linewidth=0.6, zorder=0)
    panels[0].set_yticks(range(len(shown)), [model.name for model in shown])
    panels[0].set_ylim(len(shown) - 0.4, -0.75)
    return figure, panels
