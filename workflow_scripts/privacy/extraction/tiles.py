"""Tiled distances (Carlini et al., 2023), and the closest of all training images by them.

An image is a grid of tiles. A tile is a vector: its pixels, or RAD-DINO's mean patch token. The
distance of two tiles is the root mean square of their difference. The tiled distance of two images
is the largest distance of two tiles in the same place. So one tile that differs is enough: equal
backgrounds do not make two images alike.

All pairs are compared by matrix products, block by block, and only each query's smallest values are
kept.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.common.progress import Progress
from workflow_scripts.fidelity.arrays import CPU

_QUERIES: Final = 2048
_REFERENCES: Final = 2048
_EXACT: Final = 1024


@dataclass(frozen=True)
class Tiles:
    """The tiles of images.

    Attributes:
        values: (n, t, p), any number type: n images of t tiles.
        mean: (t, p) float32, or 0; it is subtracted from the values.
        scale: (t, p) float32, or 1; it then divides them.
    """

    values: np.ndarray
    mean: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0

    def __len__(self) -> int:
        return len(self.values)

    def on(self, device: torch.device, rows: slice | np.ndarray, double: bool = False) -> Tensor:
        """Return rows as float32 (t, n, p), or float64, on a device."""
        kind = torch.float64 if double else torch.float32
        found = torch.from_numpy(np.ascontiguousarray(self.values[rows])).to(device).to(kind)
        found = (found - torch.as_tensor(self.mean, device=device)) / torch.as_tensor(
            self.scale, device=device
        )
        return found.to(kind).transpose(0, 1).contiguous()


@dataclass(frozen=True)
class Nearest:
    """The closest reference of each query, by whole images and by each tile alone.

    Attributes:
        whole_row: (m,) the reference at the least tiled distance.
        whole: (m,) float64, that distance.
        whole_mean: (m,) float64, the mean tiled distance of the `neighbours` closest references.
        tile_row, tile, tile_mean: (m, t), the same for each tile, which is compared with the tiles
            in the same place.
    """

    whole_row: np.ndarray
    whole: np.ndarray
    whole_mean: np.ndarray
    tile_row: np.ndarray
    tile: np.ndarray
    tile_mean: np.ndarray


def nearest(
    queries: Tiles,
    references: Tiles,
    neighbours: int,
    device: torch.device = CPU,
    label: str = "extraction",
    exact: bool = True,
) -> Nearest:
    """Return the closest of all references to each query.

    Args:
        queries: m images.
        references: n images, with the same tiles.
        neighbours: see `Nearest`; where there are fewer references, all.
        device: where to compare.
        label: the progress's name.
        exact: whether the least distances are recomputed in float64 by direct difference, so that a
            copy's is 0. Otherwise a copy's may be as large as the square root of float32's rounding
            (some 1e-4 of the values' range), at half the time.

    Raises:
        ValueError: there are no references, or the tiles differ.
    """
    if not len(references) or queries.values.shape[1:] != references.values.shape[1:]:
        raise ValueError("nothing to compare with, or other tiles")
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
    k = min(neighbours, len(references))
    parts = []
    progress = Progress(label, len(queries) * len(references), "pairs")
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, min(start + _QUERIES, len(queries)))
        parts.append(_of_block(queries, rows, references, k, device, progress, exact))
    joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    return Nearest(*joined) if joined else _nothing(queries.values.shape[1])


def _nothing(tiles: int) -> Nearest:
    rows, values = np.zeros(0, np.int64), np.zeros(0)
    return Nearest(
        rows, values, values, *(np.zeros((0, tiles), t) for t in (np.int64, float, float))
    )


def _of_block(
    queries: Tiles,
    rows: slice,
    references: Tiles,
    k: int,
    device: torch.device,
    progress: Progress,
    exact: bool,
) -> tuple[np.ndarray, ...]:
    x = queries.on(device, rows)
    tiles, count, size = x.shape
    squares = x.square().sum(dim=2)
    # The last of the lists is that of whole images.
    best = torch.full((tiles + 1, count, k), torch.inf, device=device)
    found = torch.zeros((tiles + 1, count, k), dtype=torch.int64, device=device)
    for start in range(0, len(references), _REFERENCES):
        columns = slice(start, min(start + _REFERENCES, len(references)))
        y = references.on(device, columns)
        whole = torch.zeros(1, device=device)
        for tile in range(tiles + 1):
            if tile < tiles:
                far = torch.addmm(
                    y[tile].square().sum(dim=1)[None, :], x[tile], y[tile].T, alpha=-2
                )
                far = far.add_(squares[tile][:, None]).clamp_(min=0)
                whole = torch.maximum(whole, far)
            else:
                far = whole
            _keep(best[tile], found[tile], far, start)
        progress.update(count * (columns.stop - columns.start))
    means = (best / size).sqrt().double().mean(dim=2).cpu().numpy()
    first = found[:, :, 0].cpu().numpy()
    if exact:
        least = _exact(queries, rows, references, first, device)
    else:
        least = (best[:, :, 0] / size).sqrt().double().cpu().numpy()
    return first[-1], least[-1], means[-1], first[:-1].T, least[:-1].T, means[:-1].T


def _keep(best: Tensor, found: Tensor, far: Tensor, start: int) -> None:
    """Merge a block's squared distances (m, c), from column `start` on, into the k least."""
    k = best.shape[1]
    # Rows none of whose references is among their k least are most rows after some blocks.
    near = (far.amin(dim=1) < best[:, -1]).nonzero()[:, 0]
    if not len(near):
        return
    values, columns = far[near].topk(min(k, far.shape[1]), dim=1, largest=False)
    both = torch.cat([best[near], values], dim=1)
    rows = torch.cat([found[near], columns + start], dim=1)
    kept, place = both.topk(k, dim=1, largest=False, sorted=True)
    best[near], found[near] = kept, rows.gather(1, place)


def _exact(
    queries: Tiles, rows: slice, references: Tiles, first: np.ndarray, device: torch.device
) -> np.ndarray:
    """Return the distance of the first of each list, (t + 1, m) float64; whole images come last."""
    lists, count = first.shape
    least = np.zeros(first.shape)
    for start in range(0, count, _EXACT):
        part = slice(start, min(start + _EXACT, count))
        x = queries.on(device, slice(rows.start + part.start, rows.start + part.stop), double=True)
        whole = references.on(device, first[-1, part], double=True)
        least[-1, part] = (x - whole).square().mean(dim=2).amax(dim=0).sqrt().cpu().numpy()
        for tile in range(lists - 1):
            own = Tiles(
                references.values[first[tile, part], tile : tile + 1],
                _of_tile(references.mean, tile),
                _of_tile(references.scale, tile),
            ).on(device, slice(None), double=True)
            least[tile, part] = (x[tile] - own[0]).square().mean(dim=1).sqrt().cpu().numpy()
    return least


def _of_tile(values: np.ndarray | float, tile: int) -> np.ndarray | float:
    return values if isinstance(values, float) else values[tile : tile + 1]


def tiled_distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the tiled distances of images, float64 (a, b).

    Args:
        first: (t, a, p), see `Tiles.on`.
        second: (t, b, p).
    """
    far = torch.zeros(first.shape[1], second.shape[1], dtype=torch.float64, device=first.device)
    for x, y in zip(first.double(), second.double(), strict=True):
        far = torch.maximum(far, torch.cdist(x, y) / x.shape[1] ** 0.5)
    return far
