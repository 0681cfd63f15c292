"""What each model cost: a bar divided by stage."""

from typing import Any

import numpy as np

from workflow_scripts.costs.sums import STAGES
from workflow_scripts.tables.assemble import Table
from workflow_scripts.tables.costs import ALL
from workflow_scripts.tables.figures.style import (
    COLOURS,
    PAPER,
    RULE,
    SMALL,
    Drawing,
    grid,
)

_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "||||", "oooo", "----")


def draw_costs(table: Table) -> Drawing | None:
    """Draw each model's GPU-hours by stage, or wall time if the run used no GPU.

    Args:
        table: the cost table.

    Returns:
        The figure, or None if nothing is known.
    """
    parts = [row for row in table.rows if row.kind != "total" and row.attributes[0] != ALL]
    for j in range(2):
        bars = {(row.key, row.attributes[0]): row.cells[j].value for row in parts}
        if any(bars.values()):
            break
    else:
        return None
    column = table.layout.columns[j]
    owners = {row.key: row.label for row in parts if bars[row.key, row.attributes[0]]}
    name, scale = column.header, 1.0
    if column.metric == "wall_hours" and max(filter(None, bars.values())) < 1:
        name, scale = "Wall time (min)", 60.0
    figure, ((axes,),) = grid(1.2 + 0.25 * len(owners))
    left = np.zeros(len(owners))
    for stage, style in _stage_styles().items():
        widths = scale * np.array([bars.get((key, stage)) or 0.0 for key in owners])
        if widths.any():
            axes.barh(range(len(owners)), widths, left=left, label=stage, **style)
            left += widths
    unknown = {key for (key, _), value in bars.items() if value is None}
    for y, (key, width) in enumerate(zip(owners, left, strict=True)):
        least = "≥ " if key in unknown else ""
        axes.annotate(
            f"{least}{width:,.3g}",
            (width, y),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    axes.set_yticks(range(len(owners)), list(owners.values()))
    axes.invert_yaxis()
    axes.margins(x=0.09)
    axes.set_xlabel(name)
    axes.grid(axis="x", color=RULE, linewidth=0.7, zorder=0)
    figure.legend(loc="outside upper left", ncols=5, frameon=False)
    title = f"{name} by model and stage"
    text = f"{title}, over all attempts. The last bar is work that the models share."
    if unknown:
        text += " Unknown values, dashes in the table, are not drawn."
    return Drawing(figure, "costs", title, text)


def _stage_styles() -> dict[str, dict[str, Any]]:
    """Return the colour of each stage, and the hatch that identifies it in a gray print."""
    return {
        stage: {
            "color": COLOURS[i % len(COLOURS)],
            "hatch": _HATCHES[i % len(_HATCHES)],
            "edgecolor": PAPER,
            "linewidth": 0.6,
            "height": 0.66,
            "zorder": 2,
        }
        for i, stage in enumerate(STAGES.values())
    }
