"""Squared distances of many pairs by matrix products, with a proven error bound for each.

The search for the closest image excludes pairs that cannot be the closest, so it must know the
largest possible error of a product. Products are computed in bfloat16 if the machine multiplies
that faster than float32. Their error bound is larger but also proven, so that only a few more pairs
must be recomputed.
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
    """Approximate squared distances between some queries and a block of references.

    The true value is within `error` + `grain` x |value| of each value.

    Attributes:
        values: (r, c) squared distances minus the query's squared length.
        error: (r,) float32, absolute error bound of each query's values.
        grain: relative rounding error of the values.
    """

    values: Tensor
    error: Tensor
    grain: float = 0.0


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16 products."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class InFloat32:
    """Queries (m, d), float32, to be compared with blocks of references.

    The error of |x|^2 + |y|^2 - 2 x.y in float32 is below (d + 16) u (|x|^2 + |y|^2), see
    fidelity/distances.py. Summing |y|^2 in float32 adds up to d u |y|^2.
    """

    def __init__(self, queries: Tensor, most: tuple[int, int]):
        self.queries = queries
        self.squares = queries.double().square().sum(dim=1).float()
        # One buffer for all blocks: fresh pages would cost a fifth of the product's time.
        self.buffer = queries.new_empty(most)

    def against(self, references: Tensor) -> Callable[[slice], Products]:
        """Return a function that compares a slice of the queries with these references (c, d)."""
        squares = references.square().sum(dim=1)
        slack = (2 * references.shape[1] + 16) * ROUNDING

        def compare(rows: slice) -> Products:
            out = _piece(self.buffer, rows.stop - rows.start, len(references))
            torch.addmm(squares[None, :], self.queries[rows], references.T, alpha=-2, out=out)
            return Products(out, slack * (self.squares[rows] + squares.max()))

        return compare


class InBfloat16:
    """The same in bfloat16: products of rounded points are exact and summed in float32.

    With x = x' + e and y = y' + f, where x' and y' are rounded, |x.y - x'.y'| <= |x'| |f| +
    |e| |y'| + |e| |f|, and all these lengths are known. |y|^2 enters the product as three more
    coordinates, which hold 24 bits. The error of a sum of k terms is below 4 k u times the sum of
    their magnitudes, because matrix units may truncate where a processor rounds.
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
        """Return a function that compares a slice of the queries with these references (c, d)."""
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
            row_length, row_lost = self.length[rows], self.lost[rows]
            error = 2 * (row_length * most_lost + row_lost * longest + row_lost * most_lost)
            error += 4 * self.width * ROUNDING * (2 * row_length * longest + most)
            error += 8 * ROUNDING * (self.squares[rows] + most)
            return Products(out, (error * (1 + 4 * ROUNDING)).float(), BFLOAT16)

        return compare


def _sizes(points: Tensor, rounded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the points' squared lengths, their rounded lengths and the rounding errors' lengths.

    All three are (n,) float64.
    """
    exact, approximate = points.double(), rounded.double()
    return exact.square().sum(dim=1), approximate.norm(dim=1), (exact - approximate).norm(dim=1)


def _piece(buffer: Tensor, rows: int, columns: int) -> Tensor:
    """Return room for a block (rows, columns): a part of the buffer, if the block is as wide."""
    if columns == buffer.shape[1]:
        return buffer[:rows]
    return buffer.new_empty(rows, columns)
