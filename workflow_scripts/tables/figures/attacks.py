"""Fidelity against attacks: how much a model leaks as it fits better, along a training."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from workflow_scripts.tables.assemble import Cell, Table
from workflow_scripts.tables.figures.rows import cells_of
from workflow_scripts.tables.figures.style import INK, RULE, SMALL, Drawing, Styles, grid
from workflow_scripts.tables.figures.trade_offs import legend, point
from workflow_scripts.tables.models import ModelEntry, trainings

ATTACKS: Final = (
    ("table22_membership", "member_loss_calibrated_auc", "Membership by loss, AUC", 0.5),
    ("table22_membership", "member_caption_calibrated_auc", "Membership by caption, AUC", 0.5),
    ("table23_extraction", "images_alarmed", "Images with an alarm of extraction", None),
    ("table03_privacy", "reid_mean_of_max", "Average re-ID score", None),
)
"""Table, metric and label of each attack, and its value by chance; lower is better."""

_TITLE: Final = "Fidelity against attacks"
_CAPTION: Final = (
    f"{_TITLE}: KID (RAD-DINO, Table 1) against how well an attacker tells on whom a model was "
    "trained (Table 22, two attacks; the line is chance), the share of images that show a training "
    "radiograph (Table 23) and the average re-identification score (Table 3), with 95% intervals "
    "where they are known. Models that differ only in the epochs of their fine-tuning are "
    "checkpoints of one training: a line joins them, and the number beside a mark is its epochs. "
    "Compare two trainings where they have the same KID: the one that leaks less there memorises "
    "less, and does not only fit less. A training passes a KID twice, before its best and, if it "
    "memorises, after it: compare checkpoints on the same side."
)

_CORNERS: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Where a training's epochs stand beside its marks: trainings that are as faithful lie close."""


def draw_attacks(
    tables: Mapping[str, Table], models: Sequence[ModelEntry], styles: Styles
) -> Drawing | None:
    """Draw KID against four attacks; a line joins the checkpoints of one training.

    Args:
        tables: by stem: Table 1 and those of `ATTACKS`.
        models: in the legend's order; controls are left out.
        styles: mark of each model by key.

    Returns:
        The figure, or None if no model has both a KID and an attack's value.
    """
    kid = cells_of(tables["table01_fidelity"], "kid")
    attacks = [cells_of(tables[stem], metric) for stem, metric, _, _ in ATTACKS]
    attacked = {key for cells in attacks for key in cells} & set(kid)
    runs = trainings([model for model in models if not model.is_control])
    runs = [kept for run in runs if (kept := [m for m in run if m.key in attacked])]
    if not runs:
        return None
    figure, panels = grid(4.4 + 0.15 * -(-len(runs) // 2), 2, 2)
    marks: dict[str, Any] = {}
    for axes, (_, _, label, chance), cells in zip(panels.flat, ATTACKS, attacks, strict=True):
        if chance is not None:
            axes.axhline(chance, color=INK, linewidth=0.7, zorder=1)
        for number, run in enumerate(runs):
            shown = [model for model in run if model.key in cells]
            mark = _line(axes, shown, kid, cells, styles, _CORNERS[number % len(_CORNERS)])
            if mark is not None:
                marks.setdefault(run[0].key, mark)
        axes.set_xlabel("KID, left is better")
        axes.set_title(f"{label}\n(low is safer)", loc="left", fontsize=SMALL)
        axes.grid(color=RULE, linewidth=0.6, zorder=0)
    legend(figure, marks, {run[0].key: _name(run) for run in runs}, 2)
    return Drawing(figure, "fidelity-attacks", _TITLE, _CAPTION)


def _line(  # type: ignore[no-untyped-def]
    axes,
    run: Sequence[ModelEntry],
    kid: Mapping[str, Cell],
    cells: Mapping[str, Cell],
    styles: Styles,
    corner: tuple[int, int],
):
    """Draw the checkpoints of a training in the style of the first; return its mark, or None.

    The epochs stand in a corner of each mark, another one for each training.
    """
    if not run:
        return None
    from matplotlib.patheffects import withStroke

    style = styles[run[0].key]
    marks = [point(axes, kid[model.key], cells[model.key], style) for model in run]
    if len(run) > 1:
        places = [(kid[model.key].value, cells[model.key].value) for model in run]
        axes.plot(*zip(*places, strict=True), color=style["color"], linewidth=1.0, zorder=2)
        for model, place in zip(run, places, strict=True):
            axes.annotate(
                f"{model.epochs:g}",
                place,
                xytext=(3 * corner[0], 3 * corner[1]),
                textcoords="offset points",
                ha="left" if corner[0] > 0 else "right",
                va="bottom" if corner[1] > 0 else "top",
                fontsize=SMALL,
                color=style["color"],
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=4,
            )
    return marks[0]


def _name(run: Sequence[ModelEntry]) -> str:
    if len(run) == 1:
        return run[0].name
    return f"{run[-1].name} and {len(run) - 1} earlier"
