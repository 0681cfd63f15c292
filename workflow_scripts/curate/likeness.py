"""Likeness of gray values: does an image repeat a training radiograph, or a mixture of two?

Images are compared as vectors of gray values with mean 0 and norm 1. Brightness and contrast do not
matter then, and the product of two vectors is their correlation. Every image is compared with every
training radiograph, because the encoders may miss a copy that is rotated or cropped.

- `pixel`: the highest correlation with any radiograph, over small rotations of the image and
  enlargements of the radiograph;
- `mixture`: the highest multiple correlation with any two radiographs, one of which is among the
  FIRST radiographs that correlate most.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workflow_scripts.common.images import centre_square, decode_image
from workflow_scripts.common.progress import Progress
from workflow_scripts.curate.kept import Kept

SIDE: Final = 32
"""Side of the compared images in pixels; 237,000 radiographs take 1 GB."""

TURNS: Final = (0.0, -4.0, -2.0, 2.0, 4.0)
"""Rotations of the image, degrees; the first leaves it unchanged."""

INNER: Final = (1.0, 0.96, 0.92, 0.88)
"""Shares of a radiograph's side whose centre is compared; the first takes all of it."""

FIRST: Final = 5
AT_ONCE: Final = 128
_FILMS_AT_ONCE: Final = 2048


@dataclass(frozen=True)
class Likeness:
    """How alike images are to training radiographs.

    Attributes:
        pixel: (n,), see the module.
        nearest: (n,), row number of the radiograph with the correlation `pixel`.
        mixture: (n,), see the module.
    """

    pixel: np.ndarray
    nearest: np.ndarray
    mixture: np.ndarray


def normalised(image: Image.Image) -> np.ndarray:
    """Return an image's gray values with mean 0 and norm 1, float32 (SIDE**2,); 0 if constant."""
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64).ravel()
    pixels = pixels - pixels.mean()
    norm = float(np.sqrt(np.square(pixels).sum()))
    return (pixels / norm if norm > 1e-9 else np.zeros_like(pixels)).astype(np.float32)


def views_of_film(image: Image.Image) -> np.ndarray:
    """Return the vectors of a square radiograph at each of INNER, float32 (k, SIDE**2)."""
    side = image.width
    edges = [round(side * (1 - share) / 2) for share in INNER]
    return np.stack([normalised(image.crop((e, e, side - e, side - e))) for e in edges])


def views_of_image(image: Image.Image) -> np.ndarray:
    """Return the vectors of an image at each of TURNS, float32 (k, SIDE**2)."""
    small = image.convert("L").resize((2 * SIDE, 2 * SIDE), Image.Resampling.BOX)
    return np.stack(
        [
            normalised(small.rotate(turn, Image.Resampling.BILINEAR) if turn else small)
            for turn in TURNS
        ]
    )


def film_vectors(files: Sequence[str], threads: int, kept: Kept | None = None) -> np.ndarray:
    """Return the vectors of radiographs, float32 (len(INNER), n, SIDE**2).

    Args:
        files: the radiographs.
        threads: number of threads that decode.
        kept: parts that an earlier attempt decoded.

    Raises:
        InputError: a file cannot be decoded.
    """
    meter = Progress("gray values of radiographs", len(files), "images")
    vectors = np.empty((len(INNER), len(files), SIDE**2), np.float32)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for start in range(0, len(files), _FILMS_AT_ONCE):
            some = files[start : start + _FILMS_AT_ONCE]
            compute = partial(_views_of_files, some, pool)
            part = _kept(kept, f"films-{start:08d}", compute)
            vectors[:, start : start + len(some)] = part
            meter.update(len(some))
    return vectors


def _views_of_files(files: Sequence[str], pool: ThreadPoolExecutor) -> np.ndarray:
    def read(path: str) -> np.ndarray:
        film = decode_image(Path(path), path, keep_gray=True, at_least=4 * SIDE)
        return views_of_film(centre_square(film, 4 * SIDE).convert("L"))

    return np.stack([*pool.map(read, files)], axis=1)


def likeness(
    images: Iterable[Callable[[], np.ndarray]],
    films: np.ndarray,
    device: torch.device,
    kept: Kept | None = None,
) -> Likeness:
    """Compare images with radiographs.

    Args:
        images: a function for each image that returns its `views_of_image`. It is called unless
            an earlier attempt compared the image.
        films: see `film_vectors`.
        device: the device that computes.
        kept: parts that an earlier attempt compared.
    """
    held = torch.from_numpy(films).to(device)
    waiting = iter(images)
    parts: list[np.ndarray] = []
    while batch := [*itertools.islice(waiting, AT_ONCE)]:
        compute = partial(_compared, batch, held, device)
        parts.append(_kept(kept, f"likeness-{len(parts):08d}", compute))
    pixel, nearest, mixture = np.concatenate(parts, axis=1)
    return Likeness(pixel, nearest.astype(np.int64), mixture)


def _kept(kept: Kept | None, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    return kept.array(name, compute) if kept else compute()


def _compared(
    batch: Sequence[Callable[[], np.ndarray]], films: Tensor, device: torch.device
) -> np.ndarray:
    """Return `pixel`, `nearest` and `mixture` of some images, float64 (3, n)."""
    views = torch.from_numpy(np.stack([views_of() for views_of in batch])).to(device)
    return np.stack([part.cpu().numpy().astype(np.float64) for part in compare(views, films)])


def compare(views: Tensor, films: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare some images with all radiographs, on the device that holds them.

    Args:
        views: (n, len(TURNS), SIDE**2) float32, see `views_of_image`.
        films: (len(INNER), m, SIDE**2) float32, see `film_vectors`.

    Returns:
        `pixel`, `nearest` and `mixture` of `Likeness`, (n,) each.
    """
    best = torch.full((len(views),), -2.0, device=views.device)
    nearest = torch.zeros(len(views), dtype=torch.long, device=views.device)
    for turn in range(views.shape[1]):
        for inner in films:
            value, row = (views[:, turn] @ inner.T).max(dim=1)
            closer = value > best
            best, nearest = torch.where(closer, value, best), torch.where(closer, row, nearest)
    return best, nearest, _mixture(views[:, 0], films[0])


def _mixture(images: Tensor, films: Tensor) -> Tensor:
    """Return the highest multiple correlation of each image with two radiographs, (n,)."""
    alike = images @ films.T
    value, first = alike.topk(min(FIRST, len(films)), dim=1)
    best = value[:, 0].clone()
    for place in range(first.shape[1]):
        one = films[first[:, place]]
        between = one @ films.T
        a = value[:, place, None]
        # R squared of two predictors. A radiograph and its duplicate are no mixture.
        rest = (1 - between.square()).clamp(min=1e-3)
        squared = (a.square() + alike.square() - 2 * a * alike * between) / rest
        squared = squared.masked_fill(between > 0.999, 0)
        # Both weights of a mixture are positive: a difference of two radiographs is no mixture.
        squared = squared.masked_fill((alike - a * between <= 0) | (a - alike * between <= 0), 0)
        best = torch.maximum(best, squared.amax(dim=1).clamp(0, 1).sqrt())
    return best
