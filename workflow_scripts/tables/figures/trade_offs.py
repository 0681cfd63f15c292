"""One family of metrics against another: fidelity, privacy, texture and topology, and utility."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workflow_scripts.tables.assemble import Cell, Table, cell_of
from workflow_scripts.tables.derive.pareto import Standing
from workflow_scripts.tables.derive.task_ranks import FEWEST_MODELS
from workflow_scripts.tables.figures.rows import gain_cells
from workflow_scripts.tables.figures.style import (
    INK,
    RULE,
    SMALL,
    WIDTH,
    Drawing,
    logarithmic,
    pyplot,
)
from workflow_scripts.tables.layout import Column
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.utility_words import GAINS

_UTILITY_TITLE: Final = "Fidelity against utility"
_PARETO_TITLE: Final = "Fidelity, privacy and utility"
_LOST_TITLE: Final = "Texture and topology against utility"


def draw_fidelity_utility(
    tables: Mapping[str, Table],
    models: Sequence[ModelEntry],
    styles: Mapping[str, dict[str, Any]],
) -> Drawing | None:
    """Draw FID against the gain of each task, with both intervals and the rank correlation.

    Args:
        tables: by stem: Table 1, those of `GAINS` and Table 10b, whose correlations are repeated.
        models: in the legend's order.
        styles: mark of each model by key.

    Returns:
        The figure, or None where no model has both values.
    """
    fids = cells_of(tables["table01_fidelity"], "fid")
    points_by_gain = {
        gain: [(key, cell) for key, cell in cells.items() if key in fids]
        for gain in GAINS
        if (cells := gain_cells(tables[gain.stem], gain))
    }
    points_by_gain = {gain: points for gain, points in points_by_gain.items() if points}
    if not points_by_gain:
        return None
    plt = pyplot()
    is_model = {model.key: not model.is_control for model in models}
    windows = {
        gain: _window([(fids[k], c) for k, c in points], [is_model[k] for k, _ in points])
        for gain, points in points_by_gain.items()
    }
    points_by_gain = {
        gain: [(k, c) for k, c in points if windows[gain].shows(fids[k], c)]
        for gain, points in points_by_gain.items()
    }
    named = [
        m
        for m in _ordered(models)
        if any(m.key == k for p in points_by_gain.values() for k, _ in p)
    ]
    figure, panels = plt.subplots(
        1,
        len(points_by_gain),
        figsize=(WIDTH, 2.6 + 0.15 * -(-len(named) // 4)),
        squeeze=False,
        layout="constrained",
    )
    labelled: dict[str, Any] = {}
    for axes, (gain, points) in zip(panels[0], points_by_gain.items(), strict=True):
        axes.axhline(0, color=INK, linewidth=0.7, zorder=1)
        for key, cell in points:
            marks = point(axes, fids[key], cell, styles[key])
            labelled.setdefault(key, marks)
        windows[gain].set(axes)
        words = _correlation(tables["table10b_rank_correlations"], gain.task)
        axes.set_title(f"{gain.task}\n{words}", loc="left", fontsize=SMALL)
        axes.set_xlabel("FID, left is better")
        axes.set_ylabel(f"Gain in {gain.name}")
    handles = [labelled[model.key] for model in named]
    figure.legend(
        handles,
        [model.name for model in named],
        loc="outside upper left",
        ncols=4,
        frameon=False,
    )
    caption = (
        f"{_UTILITY_TITLE}: FID (RAD-DINO) against what a model's images add to real ones, with "
        "95% intervals where they are known. Above the line the images help. The titles give "
        "Spearman's correlation over the models (1: the more faithful is always the more useful; "
        "Table 10b). Controls, in gray, do not count; those far from the models are not shown."
    )
    return Drawing(figure, "fidelity-utility", _UTILITY_TITLE, caption)


def draw_pareto(
    standings: Sequence[Standing],
    columns: Sequence[Column],
    styles: Mapping[str, dict[str, Any]],
) -> Drawing | None:
    """Draw KID against the average re-identification score, larger marks for larger gains.

    Models that no other one dominates are ringed.

    Args:
        standings: the models and controls by KID, score and gain, in the legend's order.
        columns: of Table 8c, which say how these three are written.
        styles: mark of each model by key.

    Returns:
        The figure, or None where no model has both a KID and a score.
    """
    placed = [(s, tuple(map(cell_of, columns, s.numbers))) for s in standings]
    shown = [
        (standing, cells)
        for standing, cells in sorted(placed, key=lambda entry: entry[0].model.is_control)
        if cells[0].value is not None and cells[1].value is not None
    ]
    if not shown:
        return None
    points = [(kid, score) for _, (kid, score, _) in shown]
    window = _window(points, [not standing.model.is_control for standing, _ in shown])
    shown = [(standing, cells) for standing, cells in shown if window.shows(cells[0], cells[1])]
    sizes = _sizes({s.model.key: _value(cells[2]) for s, cells in shown if s.on_front is not None})
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6), layout="constrained")
    handles, names = [], []
    for standing, (kid, score, gain) in shown:
        key = standing.model.key
        style = styles[key] | {"markersize": sizes.get(key, 4.6)}
        marks = point(axes, kid, score, style)
        if standing.on_front:
            axes.plot(
                [_value(kid)],
                [_value(score)],
                linestyle="",
                marker="o",
                markersize=style["markersize"] + 6,
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=0.9,
                zorder=4,
            )
        handles.append(marks)
        words = gain.text if gain.value is None else f"{'+' if gain.value > 0 else ''}{gain.text}"
        names.append(f"{standing.model.name} ({words})")
    window.set(axes)
    axes.set_xlabel("KID (RAD-DINO), left is more faithful")
    axes.set_ylabel("Average re-ID score, low is safer")
    figure.legend(
        handles,
        names,
        loc="outside right upper",
        frameon=False,
        title="Gain in mean AUROC",
        title_fontsize=SMALL,
        alignment="left",
        labelspacing=0.7,
    )
    caption = (
        f"{_PARETO_TITLE}: KID against the average re-identification score, with 95% intervals; "
        "the larger the mark, the more the model's images add to the mean AUROC of real ones (in "
        "brackets). Ringed: no other model is as good in all three and better in one (Table 8c). "
        "Controls, in gray, do not compete; nor does a model that lacks a value or whose gain is "
        "of one training run. Controls far from the models are not shown."
    )
    return Drawing(figure, "pareto", _PARETO_TITLE, caption)


def draw_texture_topology(
    tables: Mapping[str, Table],
    models: Sequence[ModelEntry],
    styles: Mapping[str, dict[str, Any]],
) -> Drawing | None:
    """Draw texture and topology against the gain of each task, models and ladders on one plot.

    Args:
        tables: by stem: Tables 21 and 21b and those of `GAINS`.
        models: in the legend's order.
        styles: mark of each model by key.

    Returns:
        The figure, or None where no model has both.
    """
    axes_of = {
        "Power spectrum, dB off (left is as radiographs)": cells_of(
            tables["table21_texture"], "spectrum_distance"
        ),
        "Dice of heart and lungs relative to radiographs": cells_of(
            tables["table21b_topology"], "organ_dice_share"
        ),
    }
    gains = {gain: gain_cells(tables[gain.stem], gain) for gain in GAINS}
    gains = {
        gain: cells
        for gain, cells in gains.items()
        if any(key in cells for known in axes_of.values() for key in known)
    }
    if not gains:
        return None
    named = [
        model
        for model in _ordered(models)
        if any(model.key in c and model.key in k for c in gains.values() for k in axes_of.values())
    ]
    plt = pyplot()
    figure, panels = plt.subplots(
        len(axes_of),
        len(gains),
        figsize=(WIDTH, 4.4 + 0.15 * -(-len(named) // 3)),
        squeeze=False,
        layout="constrained",
    )
    labelled: dict[str, Any] = {}
    for row, (label, known) in zip(panels, axes_of.items(), strict=True):
        for axes, (gain, cells) in zip(row, gains.items(), strict=True):
            axes.axhline(0, color=INK, linewidth=0.7, zorder=1)
            for model in named:
                if model.key in known and model.key in cells:
                    marks = point(axes, known[model.key], cells[model.key], styles[model.key])
                    labelled.setdefault(model.key, marks)
            axes.set_title(gain.task, loc="left", fontsize=SMALL)
            axes.set_xlabel(label, fontsize=SMALL)
            axes.set_ylabel(f"Gain in {gain.name}", fontsize=SMALL)
            axes.grid(color=RULE, linewidth=0.6, zorder=0)
    figure.legend(
        [labelled[model.key] for model in named],
        [model.name for model in named],
        loc="outside upper left",
        ncols=3,
        frameon=False,
    )
    caption = (
        f"{_LOST_TITLE}: how far the texture of a model's images is from that of radiographs "
        "(above, Table 21) and how near heart and lungs are to those of patients (below, Table "
        "21b), against what the images add to real ones, with 95% intervals where they are known. "
        "Controls in gray: blurred radiographs lose texture, warped ones topology. Table 21c has "
        "the slopes along these ladders."
    )
    return Drawing(figure, "texture-topology", _LOST_TITLE, caption)


def cells_of(table: Table, metric: str) -> dict[str, Cell]:
    """Return the overall values of a metric by model and control, those that are known."""
    return {
        row.key: cell
        for row in table.rows
        if row.kind in ("model", "control")
        for cell in row.cells
        if (cell.column.metric, cell.column.subset) == (metric, "all") and cell.value is not None
    }


def point(axes, x: Cell, y: Cell, style: dict[str, Any]):  # type: ignore[no-untyped-def]
    """Draw a mark with its intervals and return it.

    Args:
        axes: of a panel.
        x: the cell along it, with a value.
        y: the cell up it, likewise.
        style: of the mark.
    """
    across, up = _value(x), _value(y)
    if x.interval is not None:
        axes.plot(x.interval, [up, up], color=style["color"], linewidth=0.8, alpha=0.7, zorder=2)
    if y.interval is not None:
        axes.plot(
            [across, across], y.interval, color=style["color"], linewidth=0.8, alpha=0.7, zorder=2
        )
    return axes.plot([across], [up], linestyle="", zorder=3, **style)[0]


@dataclass(frozen=True)
class _Window:
    """What a panel shows: bounds of x and y, and whether x is logarithmic."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool

    def shows(self, x: Cell, y: Cell) -> bool:
        """Return whether a point lies within."""
        return self.x[0] <= _value(x) <= self.x[1] and self.y[0] <= _value(y) <= self.y[1]

    def set(self, axes) -> None:  # type: ignore[no-untyped-def]
        """Set the axes and their grid."""
        axes.set_xlim(*self.x)
        axes.set_ylim(*self.y)
        if self.log:
            logarithmic(axes.xaxis)
        axes.grid(color=RULE, linewidth=0.6, zorder=0)


def _window(points: Sequence[tuple[Cell, Cell]], of_models: Sequence[bool]) -> _Window:
    """Return the window of all points, or of the models where a control would press them together.

    Args:
        points: x and y.
        of_models: whether each is a model's; fewer than `FEWEST_MODELS` of them set no window.
    """
    competing = [point for point, model in zip(points, of_models, strict=True) if model]
    shown = competing if len(competing) >= FEWEST_MODELS else list(points)
    xs = [_value(x) for x, _ in shown]
    log = min(xs) > 0 and max(xs) / min(xs) > 12
    return _Window(_bounds([x for x, _ in shown], log), _bounds([y for _, y in shown], False), log)


def _bounds(cells: Sequence[Cell], log: bool) -> tuple[float, float]:
    """Return bounds around the values and their intervals, with some room."""
    ends = [end for cell in cells for end in (_value(cell), *(cell.interval or ()))]
    if log:
        ends = [end for end in ends if end > 0]
        room = (max(ends) / min(ends)) ** 0.08
        return min(ends) / room, max(ends) * room
    room = 0.08 * (max(ends) - min(ends)) or 0.05 * abs(ends[0]) or 1.0
    return min(ends) - room, max(ends) + room


def _correlation(table: Table, task: str) -> str:
    cell = next(
        cell
        for row in table.rows
        if row.label == task
        for cell in row.cells
        if cell.column.metric == "spearman"
    )
    if cell.value is None:
        return f"no correlation (n = {cell.n})"
    return f"ρ = {cell.value:+.2f}, n = {cell.n}"


def _sizes(gains: Mapping[str, float]) -> dict[str, float]:
    """Return a mark's size in points, 3.5 to 9.5 from the smallest gain to the largest."""
    low, high = min(gains.values(), default=0.0), max(gains.values(), default=0.0)
    span = (high - low) or 1.0
    return {key: 3.5 + 6.0 * (gain - low) / span for key, gain in gains.items()}


def _value(cell: Cell) -> float:
    if cell.value is None:
        raise ValueError("a cell without a value cannot be drawn")
    return cell.value


def _ordered(models: Sequence[ModelEntry]) -> list[ModelEntry]:
    return sorted(models, key=lambda model: model.is_control)
