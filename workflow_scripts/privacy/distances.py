"""Distances between a generated image and one radiograph: in pixels and in an encoder's space."""

from typing import Final

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from workflow_scripts.common.as_published import Deviations

PIXEL_SIDE: Final = 512


def pixels(image: Image.Image, switches: Deviations) -> np.ndarray:
    """Return an image at the size of the pixel distance: uint8, 512 x 512 (x 3 if in colour).

    The shorter side is resized to 512 and the centre cropped; `as_published` squashes the whole
    image to 512 x 512. Both are bicubic, PIL's default and so the official release's. A gray image
    keeps one channel, which takes a third of the memory and gives the same distances.

    Args:
        image: 8-bit RGB.
        switches: the protocol's switches.
    """
    side = PIXEL_SIDE
    if _is_gray(np.asarray(image)):
        image = image.getchannel(0)  # one channel to resize instead of three equal ones
    width, height = image.size
    if switches.privacy_squash_512:
        if image.size != (side, side):
            image = image.resize((side, side), Resampling.BICUBIC)
    else:
        scale = side / min(width, height)
        target = (max(side, round(width * scale)), max(side, round(height * scale)))
        if image.size != target:
            image = image.resize(target, Resampling.BICUBIC)
        left, top = (target[0] - side) // 2, (target[1] - side) // 2
        image = image.crop((left, top, left + side, top + side))
    array = np.asarray(image)
    if array.ndim == 3 and _is_gray(array):
        array = array[..., 0]
    return np.ascontiguousarray(array)


def _is_gray(array: np.ndarray) -> bool:
    """Return whether all channels of an image (h, w, c) are equal."""
    return bool((array == array[..., :1]).all())


def pixel_distance(real: np.ndarray, generated: np.ndarray, switches: Deviations) -> float:
    """Return the root mean square difference of two images' pixels, 0 to 255.

    The paper names the L2 norm, but its values (143 to 162) are this root mean square; the norm is
    sqrt(512 * 512 * 3) = 887 times as large. Under `as_published` the difference is taken in uint8
    and wraps modulo 256. Unrelated images then score about 255 / sqrt(3) = 147, whatever they show.
    Near-duplicates score more, because their small negative differences become large.

    Args:
        real: uint8, from `pixels`.
        generated: uint8, from `pixels`.
        switches: the protocol's switches.
    """
    if real.ndim != generated.ndim:
        real, generated = (x[..., None] if x.ndim == 2 else x for x in (real, generated))
    if switches.pixel_wrapped_uint8:
        squares = np.square(real - generated, dtype=np.float32)
    else:
        squares = np.subtract(real, generated, dtype=np.float32)
        np.square(squares, out=squares)
    return float(np.sqrt(squares.mean(dtype=np.float64)))


def latent_distance(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Return ||a - b||_2 / sqrt(d) for each pair of rows, (n,), >= 0; copies give exactly 0.

    Args:
        real: (n, d).
        generated: (n, d), compared row by row.
    """
    difference = np.asarray(real, np.float64) - np.asarray(generated, np.float64)
    return np.sqrt(np.square(difference).mean(axis=1))
