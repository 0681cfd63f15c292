"""Squared distances of many pairs by matrix products, each with a proven bound of its error.

The search for the closest image needs to know which pairs cannot be it, and how wrong a product may
be. Where the machine multiplies bfloat16 faster than float32, that arithmetic is used: its error is
larger and its bound as proven, so that a few more pairs are left to be recomputed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from workflow_scripts.fidelity.distances import ROUNDING

BFLOAT16: Final = 2.0**-8
"""Unit roundoff of bfloat16."""


@dataclass(frozen=True)
class Products:
    """What products say of some queries and a block of references.

    The true value lies within `error` + `grain` x |value| of each value.

    Attributes:
        values: (r, c) squared distances less the query's own squared length.
        error: (r,) float32.
        grain: relative rounding of the values themselves.
    """

    values: Tensor
    error: Tensor
    grain: float = 0.0


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


class InFloat32:
    """Queries (m, d), float32, to be compared with blocks of references.

    |x|^2 + |y|^2 - 2 x.y in float32 is wrong by less than (d + 16) u (|x|^2 + |y|^2), see
    fidelity/distances.py; |y|^2, summed in float32, by d u |y|^2 more.
    """

    def __init__(self, queries: Tensor, most: tuple[int, int]):
        self.queries = queries
        self.squares = queries.double().square().sum(dim=1).float()
        # One piece of memory for all blocks: fresh pages cost a fifth of the product itself.
        self.buffer = queries.new_empty(most)

    def against(self, references: Tensor) -> Callable[[slice], Products]:
        """Return what compares some of the queries with a block of references (c, d)."""
        squares = references.square().sum(dim=1)
        slack = (2 * references.shape[1] + 16) * ROUNDING

        def compare(rows: slice) -> Products:
            out = _piece(self.buffer, rows.stop - rows.start, len(references))
            torch.addmm(squares[None, :], self.queries[rows], references.T, alpha=-2, out=out)
            return Products(out, slack * (self.squares[rows] + squares.max()))

        return compare


class InBfloat16:
    """The same in bfloat16: rounded points, whose products are exact and summed in float32.

    With x = x' + e, y = y' + f (rounded points and what was rounded off),
    |x.y - x'.y'| <= |x'| |f| + |e| |y'| + |e| |f|, all of them known. |y|^2 takes part in the sum
    as three more coordinates, 24 bits. The sum of k terms is wrong by less than 4 k u of their
    sizes: matrix units may truncate where a processor rounds.
    """

    def __init__(self, queries: Tensor, most: tuple[int, int]):
        m, d = queries.shape
        self.width = d + 3 + (-(d + 3)) % 16
        self.points = queries.new_zeros(m, self.width, dtype=torch.bfloat16)
        rounded = queries.bfloat16()
        self.points[:, :d] = -2 * rounded
        self.points[:, d : d + 3] = 1
        self.squares, self.length, self.lost = _sizes(queries, rounded)
        self.buffer = self.points.new_empty(most)

    def against(self, references: Tensor) -> Callable[[slice], Products]:
        """Return what compares some of the queries with a block of references (c, d)."""
        c, d = references.shape
        rounded = references.bfloat16()
        squares, length, lost = _sizes(references, rounded)
        points = references.new_zeros(c, self.width, dtype=torch.bfloat16)
        points[:, :d] = rounded
        left = squares
        for i in range(3):
            points[:, d + i] = left.bfloat16()
            left = left - points[:, d + i].double()
        most, longest, most_lost = squares.max(), length.max(), lost.max()

        def compare(rows: slice) -> Products:
            out = _piece(self.buffer, rows.stop - rows.start, c)
            torch.mm(self.points[rows], points.T, out=out)
            own, own_lost = self.length[rows], self.lost[rows]
            error = 2 * (own * most_lost + own_lost * longest + own_lost * most_lost)
            error += 4 * self.width * ROUNDING * (2 * own * longest + most)
            error += 8 * ROUNDING * (self.squares[rows] + most)
            return Products(out, (error * (1 + 4 * ROUNDING)).float(), BFLOAT16)

        return compare


def _sizes(points: Tensor, rounded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return squared lengths, rounded points' lengths and lengths of what was lost; float64."""
    whole, kept = points.double(), rounded.double()
    return whole.square().sum(dim=1), kept.norm(dim=1), (whole - kept).norm(dim=1)


def _piece(buffer: Tensor, rows: int, columns: int) -> Tensor:
    if columns == buffer.shape[1]:
        return buffer[:rows]
    return buffer.new_empty(rows, columns)
