"""Scatter plots of one family of metrics against another, with a mark for each model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workflow_scripts.tables.assemble import Cell, Table, cell_of
from workflow_scripts.tables.derive.pareto import Standing
from workflow_scripts.tables.derive.task_ranks import FEWEST_MODELS
from workflow_scripts.tables.figures.rows import cells_of
from workflow_scripts.tables.figures.style import (
    INK,
    RULE,
    SMALL,
    Drawing,
    Styles,
    grid,
    logarithmic,
)
from workflow_scripts.tables.layout import Column
from workflow_scripts.tables.models import ModelEntry, controls_last
from workflow_scripts.tables.utility_words import GAINS, Gain

Points = dict[str, tuple[Cell, Cell]]
"""x and y of models, by key."""

_UTILITY_TITLE: Final = "Fidelity against utility"
_UTILITY_CAPTION: Final = (
    f"{_UTILITY_TITLE}: FID (RAD-DINO) against what a model's images add to real images, with 95% "
    "intervals where they are known. Above the line the images help. The titles give Spearman's "
    "correlation over the models (Table 10b); at 1 the more faithful model is always the more "
    "useful one. Controls are gray and not part of the correlation. Controls far from the models "
    "are not shown."
)
_PARETO_TITLE: Final = "Fidelity, privacy, utility and faithfulness"
_PARETO_CAPTION: Final = (
    f"{_PARETO_TITLE}: KID against the average re-identification score, with 95% intervals. A "
    "larger mark is a larger gain: what the model's images add to the mean AUROC of real images "
    "(in brackets, before the share of findings that they show). Ringed: no other model is as good "
    "in all four and better in one (Table 8c). Controls are gray and do not compete. Nor do models "
    "that lack a value or whose gain comes from a single training run. Controls far from the "
    "models are not shown."
)
_LOST_TITLE: Final = "Texture and topology against utility"
_LOST_CAPTION: Final = (
    f"{_LOST_TITLE}, against what the images add to real images, with 95% intervals where they are "
    "known. Above: the distance of the images' texture from that of radiographs (Table 21). Below: "
    "how close heart and lungs are to those of patients (Table 21b). Controls are gray: blurred "
    "radiographs lose texture, and warped radiographs lose topology. Table 21c has the slopes "
    "along these ladders."
)


def draw_fidelity_utility(
    tables: Mapping[str, Table], models: Sequence[ModelEntry], styles: Styles
) -> Drawing | None:
    """Draw FID against the gain of each task, with both intervals and the rank correlation.

    Args:
        tables: by stem: Table 1, the tables of `GAINS`, and Table 10b, which has the correlations.
        models: the models in the legend's order.
        styles: mark of each model by key.

    Returns:
        The figure, or None if no model has both values.
    """
    fids = cells_of(tables["table01_fidelity"], "fid")
    is_model = {model.key: not model.is_control for model in models}
    panels_of: list[tuple[Gain, Points, _Window]] = []
    for gain in GAINS:
        cells = cells_of(tables[gain.stem], gain.metric)
        points = {key: (fids[key], cell) for key, cell in cells.items() if key in fids}
        if points:
            window = _window(list(points.values()), [is_model[key] for key in points])
            points = {key: point for key, point in points.items() if window.shows(*point)}
            panels_of.append((gain, points, window))
    if not panels_of:
        return None
    keys = {key for _, points, _ in panels_of for key in points}
    named = [model for model in controls_last(models) if model.key in keys]
    figure, (panels,) = grid(2.6 + 0.15 * -(-len(named) // 4), across=len(panels_of))
    marks: dict[str, Any] = {}
    for axes, (gain, points, window) in zip(panels, panels_of, strict=True):
        _draw_points(axes, points, styles, marks)
        window.set(axes)
        words = _correlation(tables["table10b_rank_correlations"], gain.task)
        axes.set_title(f"{gain.task}\n{words}", loc="left", fontsize=SMALL)
        axes.set_xlabel("FID, left is better" + ("\n(logarithmic)" if window.log else ""))
        axes.set_ylabel(f"Gain in {gain.name}")
    legend(figure, marks, {model.key: model.name for model in named}, 4)
    return Drawing(figure, "fidelity-utility", _UTILITY_TITLE, _UTILITY_CAPTION)


def draw_pareto(
    standings: Sequence[Standing], columns: Sequence[Column], styles: Styles
) -> Drawing | None:
    """Draw KID against the average re-identification score, with larger marks for larger gains.

    Models on the Pareto front are ringed.

    Args:
        standings: the models and controls by KID, score, gain and share of findings shown, in the
            legend's order.
        columns: the columns of Table 8c, which say how these are written.
        styles: mark of each model by key.

    Returns:
        The figure, or None if no model has both a KID and a score.
    """
    rows = [
        (standing, tuple(map(cell_of, columns, standing.numbers)))
        for standing in sorted(standings, key=lambda standing: standing.model.is_control)
        if standing.numbers[0].value is not None and standing.numbers[1].value is not None
    ]
    if not rows:
        return None
    points = [(kid, score) for _, (kid, score, *_) in rows]
    window = _window(points, [not standing.model.is_control for standing, _ in rows])
    rows = [(standing, cells) for standing, cells in rows if window.shows(cells[0], cells[1])]
    # Without a gain there is nothing to weigh, and the mark keeps its size.
    gains = {s.model.key: cells[2].value for s, cells in rows if s.on_front is not None}
    sizes = _sizes({key: gain for key, gain in gains.items() if gain is not None})
    figure, ((axes,),) = grid(3.6)
    handles, names = [], []
    for standing, (kid, score, gain, findings) in rows:
        key = standing.model.key
        size = sizes.get(key, 4.6)
        handles.append(point(axes, kid, score, styles[key] | {"markersize": size}))
        if standing.on_front:
            _ring(axes, kid, score, size + 6)
        words = gain.text if gain.value is None else f"{'+' if gain.value > 0 else ''}{gain.text}"
        names.append(f"{standing.model.name} ({words}; {findings.text})")
    window.set(axes)
    axes.set_xlabel("KID (RAD-DINO), left is more faithful")
    axes.set_ylabel("Average re-ID score, low is safer")
    figure.legend(
        handles,
        names,
        loc="outside right upper",
        frameon=False,
        title="Gain in mean AUROC; findings shown",
        title_fontsize=SMALL,
        alignment="left",
        labelspacing=0.7,
    )
    return Drawing(figure, "pareto", _PARETO_TITLE, _PARETO_CAPTION)


def draw_texture_topology(
    tables: Mapping[str, Table], models: Sequence[ModelEntry], styles: Styles
) -> Drawing | None:
    """Draw texture and topology against the gain of each task, for models and ladders.

    Args:
        tables: by stem: Tables 21 and 21b and the tables of `GAINS`.
        models: the models in the legend's order.
        styles: mark of each model by key.

    Returns:
        The figure, or None if no model has both values.
    """
    axes_of = {
        "Power spectrum, dB off\n(left is as radiographs)": cells_of(
            tables["table21_texture"], "spectrum_distance"
        ),
        "Dice of heart and lungs,\nrelative to radiographs": cells_of(
            tables["table21b_topology"], "organ_dice_share"
        ),
    }
    cells_by_gain = {gain: cells_of(tables[gain.stem], gain.metric) for gain in GAINS}
    points_of: dict[tuple[str, Gain], Points] = {
        (label, gain): {
            model.key: (known[model.key], cells[model.key])
            for model in models
            if model.key in known and model.key in cells
        }
        for label, known in axes_of.items()
        for gain, cells in cells_by_gain.items()
    }
    gains = [gain for gain in GAINS if any(points_of[label, gain] for label in axes_of)]
    if not gains:
        return None
    keys = {key for points in points_of.values() for key in points}
    named = [model for model in controls_last(models) if model.key in keys]
    figure, panels = grid(4.7 + 0.15 * -(-len(named) // 3), len(axes_of), len(gains))
    marks: dict[str, Any] = {}
    for row, label in zip(panels, axes_of, strict=True):
        for axes, gain in zip(row, gains, strict=True):
            _draw_points(axes, points_of[label, gain], styles, marks)
            axes.set_title(gain.task, loc="left", fontsize=SMALL)
            axes.set_xlabel(label, fontsize=SMALL)
            axes.set_ylabel(f"Gain in {gain.name}", fontsize=SMALL)
            axes.grid(color=RULE, linewidth=0.6, zorder=0)
    legend(figure, marks, {model.key: model.name for model in named}, 3)
    return Drawing(figure, "texture-topology", _LOST_TITLE, _LOST_CAPTION)


def _draw_points(axes: Any, points: Points, styles: Styles, marks: dict[str, Any]) -> None:
    """Draw models about the line of no gain, and add each model's first mark to `marks`."""
    axes.axhline(0, color=INK, linewidth=0.7, zorder=1)
    for key, cells in points.items():
        marks.setdefault(key, point(axes, *cells, styles[key]))


def legend(figure: Any, marks: Mapping[str, Any], names: Mapping[str, str], across: int) -> None:
    """Draw a legend of the models that have a mark, `across` in a line."""
    marked = [key for key in names if key in marks]
    figure.legend(
        [marks[key] for key in marked],
        [names[key] for key in marked],
        loc="outside upper left",
        ncols=across,
        frameon=False,
    )


def _ring(axes: Any, x: Cell, y: Cell, size: float) -> None:
    """Draw a ring around a mark."""
    axes.plot(
        [_value(x)],
        [_value(y)],
        linestyle="",
        marker="o",
        markersize=size,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=0.9,
        zorder=4,
    )


def point(axes, x: Cell, y: Cell, style: dict[str, Any]):  # type: ignore[no-untyped-def]
    """Draw a mark with its intervals and return it.

    Args:
        axes: a panel.
        x: the cell of the horizontal axis, with a value.
        y: the cell of the vertical axis, with a value.
        style: the style of the mark.
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
    """The part of the plane that a panel shows.

    Attributes:
        x, y: lower and upper bound.
        log: whether x is logarithmic.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool

    def shows(self, x: Cell, y: Cell) -> bool:
        """Return whether a point lies within the bounds."""
        return self.x[0] <= _value(x) <= self.x[1] and self.y[0] <= _value(y) <= self.y[1]

    def set(self, axes) -> None:  # type: ignore[no-untyped-def]
        """Set the bounds of the axes, and draw a grid."""
        axes.set_xlim(*self.x)
        axes.set_ylim(*self.y)
        if self.log:
            logarithmic(axes.xaxis)
        axes.grid(color=RULE, linewidth=0.6, zorder=0)


def _window(points: Sequence[tuple[Cell, Cell]], are_models: Sequence[bool]) -> _Window:
    """Return a window of the models' points, so that a distant control does not shrink it.

    With fewer than `FEWEST_MODELS` models, it is a window of all points. A logarithmic axis has no
    place for a control that a reader sees as zero (copies have an FID of 1e-14).

    Args:
        points: x and y.
        are_models: whether each point is a model's.
    """
    competing = [point for point, is_model in zip(points, are_models, strict=True) if is_model]
    framed = competing if len(competing) >= FEWEST_MODELS else list(points)
    zero = any(x.is_nought for x, _ in competing)
    above = [(x, y) for x, y in framed if not x.is_nought]
    xs = [_value(x) for x, _ in above]
    log = not zero and bool(xs) and min(xs) > 0 and max(xs) / min(xs) > 12
    framed = above if log else framed
    return _Window(
        _bounds([x for x, _ in framed], log), _bounds([y for _, y in framed], False), log
    )


def _bounds(cells: Sequence[Cell], log: bool) -> tuple[float, float]:
    """Return bounds around values and their intervals, with a margin."""
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
    """Return the marks' sizes in points: 3.5 for the smallest gain to 9.5 for the largest."""
    low, high = min(gains.values(), default=0.0), max(gains.values(), default=0.0)
    span = (high - low) or 1.0
    return {key: 3.5 + 6.0 * (gain - low) / span for key, gain in gains.items()}


def _value(cell: Cell) -> float:
    if cell.value is None:
        raise ValueError("a cell without a value cannot be drawn")
    return cell.value
