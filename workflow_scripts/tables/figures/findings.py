"""Fidelity per pathology, with its floor and intervals; and fidelity against prevalence."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.tables.assemble import Row, Table
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.derive.long_table import FLOOR_LABEL
from workflow_scripts.tables.derive.prevalence import MEASURES, Measured, average, correlation
from workflow_scripts.tables.figures.style import (
    FLOOR,
    FONT,
    HEIGHT,
    MUTED,
    RULE,
    SMALL,
    Drawing,
    Styles,
    grid,
    logarithmic,
    model_styles,
    row_styles,
)

PATHOLOGY_CAPTIONS: Final = {
    "KID": (
        "KID per pathology, the most frequent finding first, with intervals. KID has no bias by "
        "sample size, so findings of different frequency can be compared. A perfect generator "
        "scores about zero, sometimes below."
    ),
    "FID": (
        "FID per pathology, in the same order. The thick gray mark is the floor: the FID between "
        "two groups of real radiographs with the finding, of as many images and of different "
        "patients. If few radiographs have the finding, the groups are drawn from all radiographs. "
        "The floor is no lower bound: a generator that takes more from its caption than the "
        "finding may score below it."
    ),
}
PREVALENCE_CAPTION: Final = (
    "Fidelity against prevalence. The titles give the rank correlation of the models' mean values "
    "(Table 9b): at 1 the rarer finding is always the worse one. FID is larger on fewer images, "
    "even for a perfect generator. The dashed floor is the FID of real images compared with other "
    "patients' real images. FID less its floor, and KID, which has no such bias, show whether "
    "models draw rare findings worse."
)


def draw_per_pathology(table: Table, cohort: dict[str, SplitCounts], metric: str) -> Drawing | None:
    """Draw a metric per finding: models with intervals, controls, and the floor as a mark.

    Args:
        table: Table 2 or 2b.
        cohort: counts per split; findings are ordered by their number of training images.
        metric: the table's metric, `FID` or `KID`.

    Returns:
        The figure, or None if no value is known.
    """
    order = sorted(range(len(FINDINGS)), key=lambda j: (-_count(cohort, FINDINGS[j]), j))
    every = [row for row in table.rows if row.kind in ("model", "control")]
    styled = [
        (row, style) for row, style in zip(every, row_styles(every), strict=True) if row.has_value
    ]
    rows = [row for row, _ in styled]
    if not rows:
        return None
    around = 1.0 + 0.14 * -(-len(rows) // 4)
    # Room for every mark, as far as the whole still fits on a page.
    pitch = min(max(0.36, 0.052 * (len(rows) + 2)), (HEIGHT - around) / len(order))
    figure, ((axes,),) = grid(around + pitch * len(order))
    floor = next((row for row in table.rows if row.kind == "floor"), None)
    if floor is not None and floor.has_value:
        known = [(y, floor.cells[j].value) for y, j in enumerate(order)]
        marks = [(value, y) for y, value in known if value is not None]
        axes.plot(*zip(*marks, strict=True), linestyle="", label=floor.label, zorder=1, **FLOOR)
    step = 0.8 / max(len(rows), 1)
    for i, (row, style) in enumerate(styled):
        size = min(style["markersize"], 72 * pitch * step * 1.5)
        offset = (i - (len(rows) - 1) / 2) * step
        _draw_row(axes, row, order, offset, style | {"markersize": size})
    labels = []
    for j in order:
        counts = [n for row in rows if (n := row.cells[j].n) is not None]
        labels.append(f"{FINDINGS[j]} (n = {max(counts):,})" if counts else FINDINGS[j])
    axes.set_yticks(range(len(order)), labels)
    axes.tick_params(axis="y", length=0)
    for y in range(1, len(order)):
        axes.axhline(y - 0.5, color=RULE, linewidth=0.5, zorder=0)
    axes.set_ylim(len(order) - 0.5, -0.5)
    cells = [cell for row in rows for cell in row.cells if cell.value is not None]
    values = [cell.value for cell in cells if cell.value is not None]
    # Copies have an FID of 1e-14, which a logarithmic axis would be stretched to.
    of_zero = any(cell.is_nought for cell in cells)
    if not of_zero and min(values) > 0 and max(values) / min(values) > 12:
        logarithmic(axes.xaxis)
    axes.set_xlabel(f"{metric} (RAD-DINO), lower is better")
    axes.grid(axis="x", color=RULE, linewidth=0.6, zorder=0)
    figure.legend(loc="outside upper left", ncols=4, frameon=False)
    title = f"{metric} per pathology"
    return Drawing(figure, f"pathology-{metric.lower()}", title, PATHOLOGY_CAPTIONS[metric])


def _draw_row(
    axes: Any, row: Row, order: Sequence[int], offset: float, style: dict[str, Any]
) -> None:
    """Draw a model's values with their intervals, `offset` below the line of each finding."""
    label: str | None = row.label  # the first mark alone is in the legend
    for y, j in enumerate(order):
        cell = row.cells[j]
        if cell.value is None:
            continue
        at = y + offset
        if cell.interval is not None:
            axes.plot(cell.interval, [at, at], color=style["color"], linewidth=0.9, zorder=2)
        axes.plot([cell.value], [at], linestyle="", label=label, zorder=3, **style)
        label = None


def draw_prevalence(
    measured: Sequence[Measured],
    floor: np.ndarray,
    counts: np.ndarray,
    styles: Styles | None = None,
) -> Drawing | None:
    """Draw FID, FID less its floor and KID against the training images with each finding.

    Each panel's title has the rank correlation of the models' mean values, as Table 9b has it.
    FID's panel also has the floor's correlation.

    Args:
        measured: the models' values per finding; controls are left out.
        floor: the floor of FID, (14,).
        counts: training images with each finding, (14,).
        styles: mark of each model by key; None chooses marks.

    Returns:
        The figure, or None if no value or no count is known.
    """
    models = [entry for entry in measured if entry.kind == "model"]
    shown = counts > 0
    if not shown.any() or not any(np.isfinite(m.values["fid"][shown]).any() for m in models):
        return None
    default_styles = {m.key: s for m, s in zip(models, model_styles(len(models)), strict=True)}
    styles = default_styles if styles is None else styles
    lines = -(-(len(models) + 1) // 4)
    figure, (panels,) = grid(2.75 + 0.16 * lines, across=3)
    order = [j for j in np.argsort(-counts, kind="stable") if shown[j]]
    for axes, (key, name) in zip(panels, MEASURES.items(), strict=True):
        if key == "fid" and np.isfinite(floor[order]).any():
            style = {**FLOOR, "marker": "_", "markersize": 9}
            axes.plot(
                counts[order],
                floor[order],
                linestyle=(0, (4, 3)),
                linewidth=1.0,
                label=FLOOR_LABEL,
                **style,
            )
        else:
            axes.axhline(0, color=MUTED, linewidth=0.8)
        for entry in models:
            label = entry.label if key == "fid" else None
            values = entry.values[key][order]
            axes.plot(
                counts[order], values, linestyle="", label=label, zorder=3, **styles[entry.key]
            )
        logarithmic(axes.xaxis)
        words = _words_of_correlation(key, models, floor, counts).replace("; ", ";\n")
        axes.set_title(f"{name}\n{words}", fontsize=SMALL, loc="left", linespacing=1.35)
        axes.grid(color=RULE, linewidth=0.6, zorder=0)
        axes.tick_params(axis="x", rotation=0)
    panels[1].set_xlabel("Training images with the finding (logarithmic)", fontsize=FONT)
    figure.legend(loc="outside upper left", ncols=4, frameon=False)
    title = "Fidelity against the number of training images of a finding"
    return Drawing(figure, "prevalence", title, PREVALENCE_CAPTION)


def _words_of_correlation(
    key: str, models: Sequence[Measured], floor: np.ndarray, counts: np.ndarray
) -> str:
    found = correlation(counts, average(models)[key])[0]
    text = "no rank correlation" if found is None else f"rank correlation {found:+.2f}"
    perfect = correlation(counts, floor)[0] if key == "fid" else None
    return text + ("" if perfect is None else f"; floor {perfect:+.2f}")


def _count(cohort: dict[str, SplitCounts], finding: str) -> int:
    return cohort["train"].positives[finding] if "train" in cohort else 0
