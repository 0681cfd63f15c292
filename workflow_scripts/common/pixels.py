"""Radiographs as gray squares in memory, and what training does to them before a network sees them.

A radiograph has no colour: images are kept as 8-bit luminance, (n, size, size), and networks that
want three channels are given it three times.
"""

import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.progress import Progress

_MEAN: Final = (0.485, 0.456, 0.406)  # of ImageNet
_STD: Final = (0.229, 0.224, 0.225)
_DECODE_AHEAD: Final = 16  # encoded images in memory per thread


def decode_square(
    items: Iterable[ImageItem], count: int, size: int, squash: bool, threads: int, label: str
) -> np.ndarray:
    """Decode `count` images to uint8 (count, size, size), in their order, in threads."""
    pixels = np.empty((count, size, size), np.uint8)
    meter = Progress(label, count, "images")
    stream = iter(items)
    row = 0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        # In pieces: an executor's map would read every shard into memory first.
        while piece := list(itertools.islice(stream, _DECODE_AHEAD * max(1, threads))):
            for image in pool.map(lambda item: square(item.open(), size, squash), piece):
                pixels[row] = image
                row += 1
            meter.update(len(piece))
    return pixels


def square(image: Image.Image, size: int, squash: bool) -> np.ndarray:
    """Return an image as uint8 luminance (size, size), bilinear with antialiasing.

    Args:
        image: any size.
        size: side of the square, pixels.
        squash: scale both sides to `size`; else keep the aspect and take the central square, as
            the text-to-image models are trained on.
    """
    gray = image.convert("L")
    box = None if squash else central_square(*gray.size)
    return np.asarray(gray.resize((size, size), Image.Resampling.BILINEAR, box=box))


def central_square(width: int, height: int) -> tuple[float, float, float, float]:
    """Return left, upper, right and lower edge of an image's central square, in pixels."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def to_unit(pixels: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Map uint8 (n, h, w) to float32 (n, 1, h, w) in [0, 1] on a device."""
    return torch.as_tensor(pixels).to(device).unsqueeze(1).float() / 255


def normalise(images: Tensor) -> Tensor:
    """Map luminance (n, 1, h, w) or RGB (n, 3, h, w) in [0, 1] to what ImageNet weights expect."""
    mean = torch.tensor(_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(_STD, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn images (n, c, h, h) counter-clockwise by `degrees` (n,), bilinear, black outside."""
    radians = torch.deg2rad(degrees)
    cosine, sine, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    # affine_grid maps places in the result to places in the source, y pointing down.
    matrix = torch.stack(
        [torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def mirror(images: Tensor, which: Tensor) -> Tensor:
    """Swap left and right of the images (n, c, h, w) where `which` (n,) is true."""
    return torch.where(which.view(-1, 1, 1, 1), images.flip(-1), images)
