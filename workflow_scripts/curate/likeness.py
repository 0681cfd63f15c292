"""Likeness of gray values: does an image show a training radiograph, moved a little, or two mixed?

Images are compared as vectors of gray values of mean 0 and norm 1, so that brightness and contrast
do not matter and the product of two is their correlation. Every image is compared with every
training radiograph: the encoders may miss what is turned or cropped.

- `pixel`: the highest correlation with any radiograph, over small rotations of the image and
  enlargements of the radiograph;
- `mixture`: the highest multiple correlation with any two of them, one of which is among the FIRST
  most alike.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workflow_scripts.common.images import centre_square, decode_image
from workflow_scripts.common.progress import Progress

SIDE: Final = 32
"""Pixels; 237,000 radiographs take 1 GB."""

TURNS: Final = (0.0, -4.0, -2.0, 2.0, 4.0)
"""Degrees by which the image is turned back; the first is none."""

INNER: Final = (1.0, 0.96, 0.92, 0.88)
"""Shares of a radiograph's side whose middle is compared; the first is all of it."""

FIRST: Final = 5
_AT_ONCE: Final = 128


@dataclass(frozen=True)
class Likeness:
    """How alike images are to training radiographs.

    Attributes:
        pixel: (n,) see the module.
        nearest: (n,) row of the radiograph of `pixel`.
        mixture: (n,) see the module.
    """

    pixel: np.ndarray
    nearest: np.ndarray
    mixture: np.ndarray


def normalised(image: Image.Image) -> np.ndarray:
    """Return gray values at SIDE x SIDE with mean 0 and norm 1, float32; zeros if constant."""
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64).ravel()
    pixels = pixels - pixels.mean()
    norm = float(np.sqrt(np.square(pixels).sum()))
    return (pixels / norm if norm > 1e-9 else np.zeros_like(pixels)).astype(np.float32)


def views_of_film(image: Image.Image) -> np.ndarray:
    """Return what a square radiograph is compared as, float32 (len(INNER), SIDE**2)."""
    side = image.width
    found = []
    for share in INNER:
        edge = round(side * (1 - share) / 2)
        found.append(normalised(image.crop((edge, edge, side - edge, side - edge))))
    return np.stack(found)


def views_of_image(image: Image.Image) -> np.ndarray:
    """Return what an image is compared as, float32 (len(TURNS), SIDE**2)."""
    small = image.convert("L").resize((2 * SIDE, 2 * SIDE), Image.Resampling.BOX)
    return np.stack(
        [
            normalised(small.rotate(turn, Image.Resampling.BILINEAR) if turn else small)
            for turn in TURNS
        ]
    )


def film_vectors(files: Sequence[str], threads: int) -> np.ndarray:
    """Return what radiographs are compared as, float32 (len(INNER), n, SIDE**2).

    Raises:
        InputError: one cannot be decoded.
    """
    meter = Progress("gray values of radiographs", len(files), "images")
    found = np.empty((len(INNER), len(files), SIDE**2), np.float32)

    def read(path: str) -> np.ndarray:
        film = decode_image(Path(path), path, keep_gray=True, at_least=4 * SIDE)
        return views_of_film(centre_square(film, 4 * SIDE).convert("L"))

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for row, views in enumerate(pool.map(read, files)):
            found[:, row] = views
            meter.update()
    return found


def likeness(images: Iterable[np.ndarray], films: np.ndarray, device: torch.device) -> Likeness:
    """Compare images with radiographs.

    Args:
        images: of each image its `views_of_image`.
        films: see `film_vectors`.
        device: where to compute.
    """
    held = torch.from_numpy(films).to(device)
    parts = []
    batch: list[np.ndarray] = []
    for views in images:
        batch.append(views)
        if len(batch) == _AT_ONCE:
            parts.append(_compare(torch.from_numpy(np.stack(batch)).to(device), held))
            batch = []
    if batch:
        parts.append(_compare(torch.from_numpy(np.stack(batch)).to(device), held))
    pixel, nearest, mixture = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return Likeness(pixel.astype(np.float64), nearest, mixture.astype(np.float64))


def _compare(views: Tensor, films: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
        # R squared of two predictors; the same radiograph twice says nothing new.
        rest = (1 - between.square()).clamp(min=1e-3)
        squared = (a.square() + alike.square() - 2 * a * alike * between) / rest
        squared = squared.masked_fill(between > 0.999, 0)
        # A mixture adds; what is taken away from a radiograph is none.
        squared = squared.masked_fill((alike - a * between <= 0) | (a - alike * between <= 0), 0)
        best = torch.maximum(best, squared.amax(dim=1).clamp(0, 1).sqrt())
    return best
