"""Layout of a layered graph with few crossings and short lines (Sugiyama et al., 1981).

A line over several layers has a waypoint in each layer, where it passes between boxes.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SWEEPS: Final = 24

Waypoint = tuple[str, str, int]
"""Source, target and layer."""


@dataclass(frozen=True)
class Placed:
    """Positions of a layered graph.

    Attributes:
        centres: x of each node's middle, from 0 to `width`.
        paths: the points (x, layer) of each edge (source, target), from the source to the target.
    """

    centres: Mapping[str, float]
    paths: Mapping[tuple[str, str], tuple[tuple[float, int], ...]]


def place(
    layers: Mapping[str, int],
    edges: Sequence[tuple[str, str]],
    node_width: float,
    line_width: float,
    width: float,
) -> Placed:
    """Place the nodes of every layer from left to right.

    Args:
        layers: the layer of each node; the target of an edge has a higher layer than its source.
        edges: source and target of each edge.
        node_width: width of a box with its margins.
        line_width: width of a line that passes a layer, with its margins.
        width: width of the drawing; if it is too small, boxes overlap.

    Returns:
        The positions; the same arguments give the same positions.
    """
    rows: list[list[Hashable]] = [[] for _ in range(max(layers.values()) + 1)]
    for node, layer in layers.items():
        rows[layer].append(node)
    above: dict[Hashable, list[Hashable]] = {}
    below: dict[Hashable, list[Hashable]] = {}
    chains: dict[tuple[str, str], list[Hashable]] = {}
    for source, target in edges:
        chain: list[Hashable] = [source]
        for layer in range(layers[source] + 1, layers[target]):
            waypoint: Waypoint = (source, target, layer)
            rows[layer].append(waypoint)
            chain.append(waypoint)
        chain.append(target)
        chains[source, target] = chain
        for first, second in pairwise(chain):
            below.setdefault(first, []).append(second)
            above.setdefault(second, []).append(first)
    rows = _ordered(rows, above, below)
    widths = {node: node_width if isinstance(node, str) else line_width for r in rows for node in r}
    x = _positions(rows, above, below, widths, width)
    of_layer = {node: layer for layer, row in enumerate(rows) for node in row}
    paths = {
        edge: tuple((x[node], of_layer[node]) for node in chain) for edge, chain in chains.items()
    }
    return Placed({node: x[node] for node in layers}, paths)


Rows = list[list[Hashable]]
Neighbours = Mapping[Hashable, Sequence[Hashable]]


def _ordered(rows: Rows, above: Neighbours, below: Neighbours) -> Rows:
    """Return the order with the fewest crossings that barycentre sweeps find."""
    best, fewest = rows, _crossings(rows, below)
    for sweep in range(SWEEPS):
        rows = [list(row) for row in rows]
        down = sweep % 2 == 0
        for layer in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            other = rows[layer - 1 if down else layer + 1]
            at = {node: i for i, node in enumerate(other)}
            neighbours = above if down else below
            # A node without neighbours keeps its place, and ties keep their order.
            middle = {
                node: _mean([at[n] for n in neighbours.get(node, ())], i)
                for i, node in enumerate(rows[layer])
            }
            rows[layer].sort(key=middle.__getitem__)
        crossings = _crossings(rows, below)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _crossings(rows: Rows, below: Neighbours) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        at = {node: i for i, node in enumerate(lower)}
        ends = [sorted(at[n] for n in below.get(node, ())) for node in upper]
        for i, left in enumerate(ends):
            for right in ends[i + 1 :]:
                total += sum(a > b for a in left for b in right)
    return total


def _positions(
    rows: Rows, above: Neighbours, below: Neighbours, widths: Mapping[Hashable, float], width: float
) -> dict[Hashable, float]:
    """Return the middle of each node: near its neighbours, without overlaps."""
    x: dict[Hashable, float] = {}
    for row in rows:
        free = (width - sum(widths[node] for node in row)) / (len(row) + 1)
        left = 0.0
        for node in row:
            left += free
            x[node] = left + widths[node] / 2
            left += widths[node]
    for _ in range(SWEEPS):
        for row in [*rows, *reversed(rows)]:
            targets = [
                _mean([x[n] for n in (*above.get(node, ()), *below.get(node, ()))], x[node])
                for node in row
            ]
            for node, at in zip(row, _apart(row, targets, widths, width), strict=True):
                x[node] = at
    return x


def _apart(
    row: Sequence[Hashable],
    targets: Sequence[float],
    widths: Mapping[Hashable, float],
    width: float,
) -> list[float]:
    """Return positions near the targets, in order, without overlaps and within `width`."""
    squeeze = min(1.0, width / max(sum(widths[node] for node in row), 1e-9))
    half = [widths[node] * squeeze / 2 for node in row]
    from_left: list[float] = []
    edge = 0.0
    for at, room in zip(targets, half, strict=True):
        from_left.append(max(at, edge + room))
        edge = from_left[-1] + room
    from_right: list[float] = []
    edge = width
    for at, room in zip(reversed(from_left), reversed(half), strict=True):
        from_right.append(min(at, edge - room))
        edge = from_right[-1] - room
    return from_right[::-1]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
