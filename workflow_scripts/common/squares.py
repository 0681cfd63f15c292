"""Radiographs as gray squares in memory.

A radiograph has no colour. Images are kept as 8-bit luminance, (n, size, size), and repeated for
networks that take three channels.
"""

import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from PIL import Image

from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.progress import Progress

_DECODE_AHEAD: Final = 16  # encoded images in memory per thread


def decode_square(
    items: Iterable[ImageItem], count: int, size: int, squash: bool, threads: int, label: str
) -> np.ndarray:
    """Decode images to uint8 luminance (count, size, size), in their order, in threads.

    Args:
        items: the images.
        count: number of images.
        size: side of the square, pixels.
        squash: see `square`.
        threads: number of images that are decoded at a time.
        label: names the work in the log.
    """
    pixels = np.empty((count, size, size), np.uint8)
    meter = Progress(label, count, "images")
    stream = iter(items)
    row = 0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        # Decoded in chunks, because an executor's map would first read every shard into memory.
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


def middle(image: Image.Image) -> Image.Image:
    """Return an image's central square in whole pixels, unscaled, as models are trained on it."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def central_square(width: int, height: int) -> tuple[float, float, float, float]:
    """Return left, upper, right and lower edge of an image's central square, in pixels."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
