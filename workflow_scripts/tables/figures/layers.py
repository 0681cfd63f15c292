"""Where the boxes of a layered graph stand: few crossings, short lines (Sugiyama et al., 1981).

A line over several layers bends at a waypoint in each, so that it passes between boxes.
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
        centres: x of the middle of each node, from 0 to `width`.
        paths: for each edge (source, target) its points (x, layer) from the source to the target.
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
        layers: of each node; every edge goes to a higher one.
        edges: source and target.
        node_width: of a box with the room around it.
        line_width: room of a line that passes a layer.
        width: of the whole; boxes get closer than their width where it does not suffice.

    Returns:
        Positions that depend on the arguments alone.
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
Beside = Mapping[Hashable, Sequence[Hashable]]


def _ordered(rows: Rows, above: Beside, below: Beside) -> Rows:
    """Return the order with the fewest crossings that sweeps of barycentres come to."""
    best, fewest = rows, _crossings(rows, below)
    for sweep in range(SWEEPS):
        rows = [list(row) for row in rows]
        down = sweep % 2 == 0
        for layer in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            other = rows[layer - 1 if down else layer + 1]
            at = {node: i for i, node in enumerate(other)}
            beside = above if down else below
            own = {node: i for i, node in enumerate(rows[layer])}
            key = {
                node: _mean([at[n] for n in beside.get(node, ())], own[node])
                for node in rows[layer]
            }
            rows[layer].sort(key=lambda node, key=key, own=own: (key[node], own[node]))  # type: ignore[misc]
        crossings = _crossings(rows, below)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _crossings(rows: Rows, below: Beside) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        at = {node: i for i, node in enumerate(lower)}
        ends = [sorted(at[n] for n in below.get(node, ())) for node in upper]
        for i, left in enumerate(ends):
            for right in ends[i + 1 :]:
                total += sum(a > b for a in left for b in right)
    return total


def _positions(
    rows: Rows, above: Beside, below: Beside, widths: Mapping[Hashable, float], width: float
) -> dict[Hashable, float]:
    """Return the middle of every node: near its neighbours, none over another."""
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
            wanted = [
                _mean([x[n] for n in (*above.get(node, ()), *below.get(node, ()))], x[node])
                for node in row
            ]
            for node, at in zip(row, _apart(row, wanted, widths, width), strict=True):
                x[node] = at
    return x


def _apart(
    row: Sequence[Hashable], wanted: Sequence[float], widths: Mapping[Hashable, float], width: float
) -> list[float]:
    """Return positions close to those wanted: in order, apart by the widths, within the whole."""
    squeeze = min(1.0, width / max(sum(widths[node] for node in row), 1e-9))
    half = [widths[node] * squeeze / 2 for node in row]
    from_left: list[float] = []
    edge = 0.0
    for at, room in zip(wanted, half, strict=True):
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
