"""The exact search for the closest of all training images to each generated one.

There are two measures of closeness: the distance of features, and the re-identification score.
Low-precision arithmetic compares all pairs, one block at a time. Pairs that its proven rounding
bound leaves undecided are the candidates; they are recomputed in float64 by direct difference. So
the result equals that of comparing all pairs in float64, and a copy has distance 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.common.progress import Progress
from workflow_scripts.fidelity.arrays import CPU, check_pair
from workflow_scripts.fidelity.distances import ROUNDING
from workflow_scripts.privacy.products import (
    InBfloat16,
    InFloat32,
    Products,
    multiplies_bfloat16,
)

_QUERIES = 4096
_REFERENCES = 2048
_CHUNK = 64  # references whose smallest value is checked before each of their values
_MOST_CANDIDATES = 1 << 20


@dataclass(frozen=True)
class Closest:
    """The k closest references of each query, the closest first; ties by row number.

    Attributes:
        rows: (m, k) row numbers of the references.
        values: (m, k) float64: distances, or scores.
    """

    rows: np.ndarray
    values: np.ndarray


def closest_by_distance(
    queries: np.ndarray,
    references: np.ndarray,
    k: int = 1,
    skip: np.ndarray | None = None,
    device: torch.device = CPU,
) -> Closest:
    """Return the k references at the smallest distance ||a - b||_2 / sqrt(d) from each query.

    Args:
        queries: (m, d).
        references: (n, d), n >= k (k + 1 with `skip`).
        k: references to return for each query.
        skip: (m,) for each query a reference to exclude (its own row); None excludes none.
        device: where to compute.

    Raises:
        ValueError: there are too few references, d differs, or features are not finite.
    """
    check_pair(references, queries)
    dimensions = references.shape[1]
    # Centred, so that the products lose no digits to an offset.
    centre = queries.mean(axis=0, dtype=np.float64).astype(np.float32)
    x = _moved(queries, centre, device)
    arithmetic = InBfloat16 if multiplies_bfloat16(device) else InFloat32
    products = arithmetic(x, (_QUERIES, _REFERENCES))

    def block(columns: slice) -> Callable[[slice], Products]:
        return products.against(_moved(references[columns], centre, device))

    def exact(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        difference = queries[row].astype(np.float64) - references[column]
        return np.square(difference).mean(axis=1)

    measure = _Measure(block, exact, dimensions, x.double().square().sum(dim=1).cpu().numpy())
    closest = _search(measure, len(queries), len(references), k, skip, device)
    return Closest(closest.rows, np.sqrt(closest.values))


def closest_by_score(
    queries: np.ndarray,
    references: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    k: int = 1,
    skip: np.ndarray | None = None,
    device: torch.device = CPU,
) -> Closest:
    """Return the k references with the highest re-identification score for each query.

    The score is the logistic function of w.|a - b| + bias, in (0, 1). Its logit is the difference
    of two weighted L1 distances: over the dimensions with positive and with negative weight.

    Args:
        queries: (m, d) features of the network's branch.
        references: (n, d), n >= k (k + 1 with `skip`).
        weight: the weight of `fc_end`, (1, d) or (d,).
        bias: the bias of `fc_end`, one number.
        k: references to return for each query.
        skip: (m,) for each query a reference to exclude; None excludes none.
        device: where to compute.

    Raises:
        ValueError: there are too few references, d differs, or features are not finite.
    """
    check_pair(references, queries)
    weights, offset = np.asarray(weight, np.float64).ravel(), float(np.asarray(bias).ravel()[0])
    logits = _NegativeLogits(queries, weights, device)

    def block(columns: slice) -> Callable[[slice], Products]:
        return logits.against(references[columns])

    def exact(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        difference = np.abs(queries[row].astype(np.float64) - references[column])
        return -(difference @ weights)

    measure = _Measure(block, exact, 1, np.zeros(len(queries)))
    closest = _search(measure, len(queries), len(references), k, skip, device)
    return Closest(closest.rows, 1 / (1 + np.exp(closest.values - offset)))


class _NegativeLogits:
    """Queries (m, d), to be compared with blocks of references by -w.|a - b|, in float32.

    It is negative, because the search looks for the smallest values.
    """

    def __init__(self, queries: np.ndarray, weights: np.ndarray, device: torch.device):
        self.device = device
        self.dimensions = [np.flatnonzero(sign * weights > 0) for sign in (1, -1)]
        self.scales = [np.abs(weights[dimensions]) for dimensions in self.dimensions]
        self.slack = (len(weights) + 8) * ROUNDING
        self.points, self.largest = self._parts(queries)

    def against(self, references: np.ndarray) -> Callable[[slice], Products]:
        """Return a function that compares a slice of the queries with these references (c, d)."""
        points, largest = self._parts(references)
        reaches = zip(self.largest, largest, self.scales, strict=True)
        size = sum(float((a + b) * scale.sum()) for a, b, scale in reaches)

        def compare(rows: slice) -> Products:
            pairs = zip(self.points, points, strict=True)
            positive, negative = (torch.cdist(x[rows], y, p=1) for x, y in pairs)
            error = torch.full((len(positive),), self.slack * size, device=self.device)
            return Products(negative - positive, error)

        return compare

    def _parts(self, features: np.ndarray) -> tuple[list[Tensor], list[np.float32]]:
        """Return features times |w| and the largest |features|, for w > 0 and for w < 0."""
        points, largest = [], []
        for dimensions, scale in zip(self.dimensions, self.scales, strict=True):
            values = features[:, dimensions]
            scaled = (values.astype(np.float64) * scale).astype(np.float32)
            points.append(torch.from_numpy(scaled).to(self.device))
            largest.append(np.abs(values).max(initial=0))
        return points, largest


def _moved(features: np.ndarray, centre: np.ndarray, device: torch.device) -> Tensor:
    """Return the features minus the centre, rounded to float32 once."""
    points, at = torch.from_numpy(features).to(device), torch.from_numpy(centre).to(device)
    return (points - at).float()


@dataclass(frozen=True)
class _Measure:
    """How a query (a row) and a reference (a column) are compared; smaller is closer.

    Attributes:
        block: prepares a block of columns, and returns a function that compares rows with it.
        exact: returns the exact values of the pairs (row, column), (p,) float64.
        factor: see `shift`.
        shift: (rows,) an exact value times `factor` less its row's `shift` is what `block`
            approximates.
    """

    block: Callable[[slice], Callable[[slice], Products]]
    exact: Callable[[np.ndarray, np.ndarray], np.ndarray]
    factor: float
    shift: np.ndarray


def _search(
    measure: _Measure, m: int, n: int, k: int, skip: np.ndarray | None, device: torch.device
) -> Closest:
    """Find the k smallest exact values of each row.

    Args:
        measure: compares rows and columns.
        m: number of queries.
        n: number of references.
        k: values to find in each row.
        skip: (m,) a column to exclude in each row, or None.
        device: where `measure.block` computes.
    """
    if n < k + (skip is not None):
        raise ValueError(f"{n} reference(s) have no {k} closest")
    skipped = None if skip is None else torch.from_numpy(np.asarray(skip)).to(device)
    tables = [_Table(rows, k, measure, device) for rows in _slices(m, _QUERIES)]
    progress = Progress("closest", n, "references")
    for columns in _slices(n, _REFERENCES):
        compare = measure.block(columns)
        for table in tables:
            products = compare(table.rows)
            if skipped is not None:
                skipped_here = skipped[table.rows]
                in_block = (skipped_here >= columns.start) & (skipped_here < columns.stop)
                products.values[
                    in_block.nonzero()[:, 0], skipped_here[in_block] - columns.start
                ] = torch.inf
            table.add(products, columns.start)
        progress.update(columns.stop - columns.start)
    parts = zip(*(table.finish() for table in tables), strict=True)
    return Closest(*(np.concatenate(part) for part in parts))


class _Table:
    """The candidates of some queries: the references that may be among their k closest."""

    def __init__(self, rows: slice, k: int, measure: _Measure, device: torch.device):
        count = rows.stop - rows.start
        self.rows, self.k, self.measure, self.device = rows, k, measure, device
        # Upper bounds of each row's k smallest values: a reference above the last is no candidate.
        self.reach = torch.full((count, k), torch.inf, device=device)
        self.columns = np.full((count, k), -1)
        self.values = np.full((count, k), np.inf)
        self.open: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, products: Products, start: int) -> None:
        """Add the candidates of a block whose first column is `start`."""
        values, error, grain = products.values, products.error, products.grain
        if values.shape[1] % _CHUNK:
            missing = -values.shape[1] % _CHUNK
            values = torch.nn.functional.pad(values, (0, missing), value=torch.inf)
        chunks = values.view(len(values), -1, _CHUNK)
        least = chunks.amin(dim=2).float()
        # The smallest values of k chunks bound k values from above. Padded and skipped entries are
        # infinite and have no rounding error.
        coarse = (grain * least.abs()).nan_to_num(nan=0, posinf=0)
        upper = least + coarse + error[:, None]
        closer = (upper.amin(dim=1) < self.reach[:, -1]).nonzero()[:, 0]
        both = torch.cat([self.reach[closer], upper[closer]], dim=1)
        self.reach[closer] = both.topk(self.k, dim=1, largest=False).values
        limit = self.reach[:, -1] + error
        row, chunk = (least - coarse <= limit[:, None]).nonzero(as_tuple=True)
        if not len(row):
            return
        lower = chunks[row, chunk].float()
        lower -= grain * lower.abs()
        near = (lower <= limit[row, None]) & lower.isfinite()
        chunk_number, place = near.nonzero(as_tuple=True)
        rows = row[chunk_number]
        column = chunk[chunk_number] * _CHUNK + place + start
        self.open.append((rows, column, lower[chunk_number, place] - error[rows]))
        if sum(len(part[0]) for part in self.open) > _MOST_CANDIDATES:
            self.settle()

    def settle(self) -> None:
        """Recompute the undecided candidates that are still within reach; keep the k closest."""
        if not self.open:
            return
        row, column, lower = (torch.cat(parts) for parts in zip(*self.open, strict=True))
        near = lower <= self.reach[row, -1]
        self.open = []
        rows, columns = row[near].cpu().numpy(), column[near].cpu().numpy()
        for part in _slices(len(rows), 1 << 14):
            values = self.measure.exact(rows[part] + self.rows.start, columns[part])
            self._keep(rows[part], columns[part], values)
        # Exact values give tighter bounds; rounding to float32 must not lower them.
        factor, shift = self.measure.factor, self.measure.shift[self.rows, None]
        converted = self.values * factor - shift
        size = np.abs(self.values) * factor + np.abs(shift)
        bound = torch.from_numpy(converted + 4 * ROUNDING * size).float()
        self.reach = torch.minimum(self.reach, bound.to(self.device))

    def _keep(self, row: np.ndarray, column: np.ndarray, values: np.ndarray) -> None:
        """Merge exact values into the k smallest of their rows."""
        touched, position = np.unique(row, return_inverse=True)
        rows = np.concatenate([np.repeat(np.arange(len(touched)), self.k), position])
        columns = np.concatenate([self.columns[touched].ravel(), column])
        both = np.concatenate([self.values[touched].ravel(), values])
        order = np.lexsort((columns, both, rows))
        first = np.searchsorted(rows[order], np.arange(len(touched)))
        chosen = order[first[:, None] + np.arange(self.k)]
        self.columns[touched], self.values[touched] = columns[chosen], both[chosen]

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the references' row numbers and the exact values, (r, k) each."""
        self.settle()
        return self.columns, self.values


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
