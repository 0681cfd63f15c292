"""The workflow as a figure: every rule in its stage, what feeds what, and how many jobs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from workflow_scripts.tables.figures.layers import place
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
"""In the order in which data flow; a rule of another one follows."""

_TITLE: Final = "The workflow, drawn from its rules"
_MARGIN: Final = 0.3
"""Inches: of the stages' names, left."""
_BOX: Final = (0.68, 0.42)
_PITCH: Final = 0.58
_LETTERS: Final = 11
"""Of a line in a box."""


def draw_workflow(nodes: Sequence[Node]) -> Drawing | None:
    """Draw the rules, the stages from top to bottom; what a path implies has no line of its own.

    Args:
        nodes: see `rule_graph`.

    Returns:
        The figure, or None where there are no rules.
    """
    if not nodes:
        return None
    from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
    from matplotlib.path import Path

    layers = layers_of(nodes)
    edges = reduced(nodes)
    width = WIDTH - _MARGIN
    placed = place(layers, edges, _BOX[0] + 0.06, 0.06, width)
    rows = max(layers.values()) + 1
    height = _PITCH * rows + 0.05
    plt = pyplot()
    figure = plt.figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-_MARGIN, width)
    axes.set_ylim(height, 0)

    def middle(layer: int) -> float:
        return _PITCH * (layer + 0.5) + 0.025

    colours = {stage: COLOURS[i % len(COLOURS)] for i, stage in enumerate(_stages(nodes))}
    for i, stage in enumerate(_stages(nodes)):
        own = [layers[node.name] for node in nodes if node.stage == stage]
        top, bottom = middle(min(own)) - _PITCH / 2, middle(max(own)) + _PITCH / 2
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
    for (source, _), points in placed.paths.items():
        line = _curve([(x, middle(layer)) for x, layer in points])
        colour = colours[source.split("_")[0]]
        axes.add_patch(
            PathPatch(
                Path(*line), fill=False, edgecolor=colour, linewidth=0.8, alpha=0.75, zorder=1
            )
        )
    for node in nodes:
        x, y = placed.centres[node.name], middle(layers[node.name])
        box = FancyBboxPatch(
            (x - _BOX[0] / 2, y - _BOX[1] / 2),
            *_BOX,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=PAPER,
            edgecolor=INK if node.jobs else MUTED,
            linewidth=0.8,
            linestyle="-" if node.jobs else (0, (2.5, 2)),
            zorder=2,
            gid=f"rule-{node.name}",
        )
        axes.add_patch(box)
        lines = label_of(node)
        axes.text(
            x,
            y,
            "\n".join(lines),
            ha="center",
            va="center",
            fontsize=SMALL,
            linespacing=1.05,
            color=INK if node.jobs else MUTED,
            zorder=3,
        )
    total = sum(node.jobs for node in nodes)
    caption = (
        f"{_TITLE}: {len(nodes)} rules, with the number of jobs of this run ({total:,} in all; "
        "fine-tuning is counted once per model, however often it is continued). A line leads from "
        "a rule to one that reads its outputs; where a longer path implies it, it is left out. "
        "Dashed: rules that this run does not need."
    )
    return Drawing(figure, "workflow", _TITLE, caption)


def label_of(node: Node) -> list[str]:
    """Return the lines in a rule's box: its name without the stage, and how many jobs it has."""
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
    """Return each rule's layer: its stage's, below every rule of the stage that it reads from."""
    inputs = {node.name: node.inputs for node in nodes}
    stage_of = {node.name: node.stage for node in nodes}

    def depth(name: str) -> int:
        own = [depth(other) for other in inputs[name] if stage_of[other] == stage_of[name]]
        return 1 + max(own, default=-1)

    layers: dict[str, int] = {}
    first = 0
    for stage in _stages(nodes):
        depths = {node.name: depth(node.name) for node in nodes if node.stage == stage}
        layers |= {name: first + own for name, own in depths.items()}
        first += max(depths.values()) + 1
    return layers


def reduced(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """Return the edges (source, target) that no longer path implies."""
    import networkx

    edges = [(source, node.name) for node in nodes for source in node.inputs]
    kept = networkx.transitive_reduction(networkx.DiGraph(edges)).edges
    return [edge for edge in edges if edge in kept]


def _stages(nodes: Sequence[Node]) -> list[str]:
    """Return the stages that have rules, those of `STAGES` first."""
    found = list(dict.fromkeys(node.stage for node in nodes))
    order: Mapping[str, int] = {stage: i for i, stage in enumerate(STAGES)}
    return sorted(found, key=lambda stage: order.get(stage, len(STAGES)))


def _curve(points: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], list[Any]]:
    """Return vertices and codes of a line that leaves and enters every point straight down."""
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (y1 - y0) * 0.5
        vertices += [(x0, y0 + bend), (x1, y1 - bend), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return vertices, codes
