"""Attacks against fidelity: what a model gives away, beside how well it fits, along a training."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from workflow_scripts.tables.assemble import Cell, Table
from workflow_scripts.tables.figures.rows import cells_of
from workflow_scripts.tables.figures.style import INK, RULE, SMALL, WIDTH, Drawing, pyplot
from workflow_scripts.tables.figures.trade_offs import point
from workflow_scripts.tables.models import ModelEntry, trainings

_TITLE: Final = "Fidelity against attacks"

ATTACKS: Final = (
    ("table22_membership", "member_loss_calibrated_auc", "Membership by loss, AUC", 0.5),
    ("table22_membership", "member_caption_calibrated_auc", "Membership by caption, AUC", 0.5),
    ("table23_extraction", "images_alarmed", "Images with an alarm of extraction", None),
    ("table03_privacy", "reid_mean_of_max", "Average re-ID score", None),
)
"""Table, metric, label and, where there is one, what chance gives; the lower the better."""

_CORNERS: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Where a training's epochs stand beside its marks: trainings that are as faithful lie close."""


def draw_attacks(
    tables: Mapping[str, Table],
    models: Sequence[ModelEntry],
    styles: Mapping[str, dict[str, Any]],
) -> Drawing | None:
    """Draw KID against four attacks, the checkpoints of one training joined by a line.

    Args:
        tables: by stem: Table 1 and those of `ATTACKS`.
        models: in the legend's order; controls are left out.
        styles: mark of each model by key.

    Returns:
        The figure, or None where no model has both a KID and an attack's value.
    """
    kid = cells_of(tables["table01_fidelity"], "kid")
    found = [cells_of(tables[stem], metric) for stem, metric, _, _ in ATTACKS]
    runs = [
        [model for model in run if model.key in kid and any(model.key in cells for cells in found)]
        for run in trainings([model for model in models if not model.is_control])
    ]
    runs = [run for run in runs if run]
    if not runs:
        return None
    plt = pyplot()
    figure, panels = plt.subplots(
        2,
        2,
        figsize=(WIDTH, 4.4 + 0.15 * -(-len(runs) // 2)),
        squeeze=False,
        layout="constrained",
    )
    labelled: dict[str, Any] = {}
    for axes, (_, _, label, chance), cells in zip(panels.flat, ATTACKS, found, strict=True):
        if chance is not None:
            axes.axhline(chance, color=INK, linewidth=0.7, zorder=1)
        for number, run in enumerate(runs):
            shown = [model for model in run if model.key in cells]
            marks = _line(axes, shown, kid, cells, styles, _CORNERS[number % len(_CORNERS)])
            if marks is not None:
                labelled.setdefault(run[0].key, marks)
        axes.set_xlabel("KID, left is better")
        axes.set_title(f"{label}\n(low is safer)", loc="left", fontsize=SMALL)
        axes.grid(color=RULE, linewidth=0.6, zorder=0)
    named = [run for run in runs if run[0].key in labelled]
    figure.legend(
        [labelled[run[0].key] for run in named],
        [_name(run) for run in named],
        loc="outside upper left",
        ncols=2,
        frameon=False,
    )
    caption = (
        f"{_TITLE}: KID (RAD-DINO, Table 1) against how well an attacker tells who was trained on "
        "(Table 22, two attacks; the line is chance), the share of images that show a training "
        "radiograph (Table 23) and the average re-identification score (Table 3), with 95% "
        "intervals where they are known. Models that differ in the epochs of their fine-tuning "
        "alone are checkpoints of one training: a line joins them, and the number beside a mark is "
        "its epochs. Of two trainings, compare where they are as faithful: the one that leaks less "
        "there memorises less, and does not only fit less. A training passes a KID twice, before "
        "its best one and after it, when it memorises: compare checkpoints on the same side."
    )
    return Drawing(figure, "fidelity-attacks", _TITLE, caption)


def _line(  # type: ignore[no-untyped-def]
    axes,
    run: Sequence[ModelEntry],
    kid: Mapping[str, Cell],
    cells: Mapping[str, Cell],
    styles: Mapping[str, dict[str, Any]],
    corner: tuple[int, int],
):
    """Draw the checkpoints of a training, all as its first one; return a mark, None for none.

    Their epochs stand in a corner of each mark, another one for each training.
    """
    if not run:
        return None
    from matplotlib.patheffects import withStroke

    style = styles[run[0].key]
    marks = [point(axes, kid[model.key], cells[model.key], style) for model in run]
    if len(run) > 1:
        at = [(kid[model.key].value, cells[model.key].value) for model in run]
        axes.plot(*zip(*at, strict=True), color=style["color"], linewidth=1.0, zorder=2)
        for model, place in zip(run, at, strict=True):
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
