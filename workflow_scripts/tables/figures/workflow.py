"""The workflow as a figure: the rules by stage, their dependencies and numbers of jobs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from workflow_scripts.tables.figures.layers import Placed, place
from workflow_scripts.tables.figures.style import (
    COLOURS,
    INK,
    MUTED,
    PAPER,
    RULE,
    SMALL,
    WIDTH,
    Drawing,
    pyplot,
)
from workflow_scripts.tables.rule_graph import Node

STAGES: Final = (
    "cohort",
    "finetune",
    "generate",
    "features",
    "fidelity",
    "privacy",
    "downstream",
    "faithfulness",
    "costs",
    "paper",
    "tables",
)
"""The stages in the order in which data flow; any other stage follows."""

_TITLE: Final = "The workflow, drawn from its rules"
_MARGIN: Final = 0.3
"""Inches: the left margin, which has the stages' names."""
_BOX: Final = (0.68, 0.42)
"""Inches: width and height of a rule's box."""
_PITCH: Final = 0.58
"""Inches: distance of two layers."""
_LETTERS: Final = 11
"""Letters in a line of a box."""


def draw_workflow(nodes: Sequence[Node]) -> Drawing | None:
    """Draw the rules, with the stages from top to bottom.

    A dependency that a longer path implies has no line of its own.

    Args:
        nodes: the rules, see `rule_graph`.

    Returns:
        The figure, or None if there are no rules.
    """
    if not nodes:
        return None
    layers = layers_of(nodes)
    width = WIDTH - _MARGIN
    placed = place(layers, reduced(nodes), _BOX[0] + 0.06, 0.06, width)
    height = _PITCH * (max(layers.values()) + 1) + 0.05
    figure = pyplot().figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-_MARGIN, width)
    axes.set_ylim(height, 0)
    _draw_stages(axes, nodes, layers)
    _draw_lines(axes, placed, _stages(nodes))
    for node in nodes:
        _draw_box(axes, node, placed.centres[node.name], _middle(layers[node.name]))
    total = sum(node.jobs for node in nodes)
    caption = (
        f"{_TITLE}: {len(nodes)} rules with their numbers of jobs in this run ({total:,} in all). "
        "Fine-tuning counts once per model, however often it is continued. A line leads from a "
        "rule to a rule that reads its outputs, in the colour of the stage that it leaves. A line "
        "that a longer path implies is left out. Dashed: rules that this run does not need."
    )
    return Drawing(figure, "workflow", _TITLE, caption)


def _middle(layer: int) -> float:
    """Return the y of a layer's middle, inches."""
    return _PITCH * (layer + 0.5) + 0.025


def _draw_stages(axes: Any, nodes: Sequence[Node], layers: Mapping[str, int]) -> None:
    """Write the stages' names in the margin, every second stage on a band."""
    from matplotlib.patches import Rectangle

    for i, stage in enumerate(_stages(nodes)):
        rows = [layers[node.name] for node in nodes if node.stage == stage]
        top, bottom = _middle(min(rows)) - _PITCH / 2, _middle(max(rows)) + _PITCH / 2
        if i % 2 == 0:
            band = Rectangle((-_MARGIN, top), WIDTH, bottom - top, color=RULE, alpha=0.4, zorder=0)
            axes.add_patch(band)
        axes.text(
            -_MARGIN + 0.12,
            (top + bottom) / 2,
            stage,
            rotation=90,
            ha="center",
            va="center",
            fontsize=SMALL,
            fontweight="bold",
        )


def _draw_lines(axes: Any, placed: Placed, stages: Sequence[str]) -> None:
    """Draw the lines between rules, in the colour of the stage that they leave."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    colours = {stage: COLOURS[i % len(COLOURS)] for i, stage in enumerate(stages)}
    look = {"fill": False, "linewidth": 0.8, "alpha": 0.75, "zorder": 1}
    for (source, _), points in placed.paths.items():
        line = Path(*_curve([(x, _middle(layer)) for x, layer in points]))
        axes.add_patch(PathPatch(line, edgecolor=colours[source.split("_")[0]], **look))


def _draw_box(axes: Any, node: Node, x: float, y: float) -> None:
    """Draw a rule's box with its middle at x and y; dashed if the run does not need the rule."""
    from matplotlib.patches import FancyBboxPatch

    colour = INK if node.jobs else MUTED
    axes.add_patch(
        FancyBboxPatch(
            (x - _BOX[0] / 2, y - _BOX[1] / 2),
            *_BOX,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=PAPER,
            edgecolor=colour,
            linewidth=0.8,
            linestyle="-" if node.jobs else (0, (2.5, 2)),
            zorder=2,
            gid=f"rule-{node.name}",
        )
    )
    axes.text(
        x,
        y,
        "\n".join(label_of(node)),
        ha="center",
        va="center",
        fontsize=SMALL,
        linespacing=1.05,
        color=colour,
        zorder=3,
    )


def label_of(node: Node) -> list[str]:
    """Return the lines in a rule's box: its name without the stage, and its number of jobs."""
    words = node.name.removeprefix(f"{node.stage}_").split("_")
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 1 > _LETTERS:
            lines[-1] += "_"
            lines.append(word)
        else:
            lines[-1] += f"_{word}"
    return [*lines, f"× {node.jobs:,}"] if node.jobs else lines


def layers_of(nodes: Sequence[Node]) -> dict[str, int]:
    """Return each rule's layer: within its stage, below all rules that it reads from."""
    inputs = {node.name: node.inputs for node in nodes}
    stage_of = {node.name: node.stage for node in nodes}

    def depth(name: str) -> int:
        above = [depth(other) for other in inputs[name] if stage_of[other] == stage_of[name]]
        return 1 + max(above, default=-1)

    layers: dict[str, int] = {}
    first = 0
    for stage in _stages(nodes):
        depths = {node.name: depth(node.name) for node in nodes if node.stage == stage}
        layers |= {name: first + below for name, below in depths.items()}
        first += max(depths.values()) + 1
    return layers


def reduced(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """Return the edges (source, target) that no longer path implies."""
    import networkx

    edges = [(source, node.name) for node in nodes for source in node.inputs]
    needed = networkx.transitive_reduction(networkx.DiGraph(edges)).edges
    return [edge for edge in edges if edge in needed]


def _stages(nodes: Sequence[Node]) -> list[str]:
    """Return the stages that have rules, those of `STAGES` first."""
    stages = dict.fromkeys(node.stage for node in nodes)
    order: Mapping[str, int] = {stage: i for i, stage in enumerate(STAGES)}
    return sorted(stages, key=lambda stage: order.get(stage, len(STAGES)))


def _curve(points: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], list[Any]]:
    """Return vertices and codes of a curve that is vertical at every point."""
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (y1 - y0) * 0.5
        vertices += [(x0, y0 + bend), (x1, y1 - bend), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return vertices, codes
