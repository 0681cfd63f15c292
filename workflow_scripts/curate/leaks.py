"""Leaks of known kinds, as a model that memorises would make them, and what they are made from.

A leak is made from the middle of a training radiograph at the size of the model's images, because
that is what a model saw. The kinds:

- `copy`: as it is; `flip`: mirrored;
- `brighter`: a tenth brighter; `window`: the outer twentieths of its gray values cut off;
- `crop`: the inner 85 to 95% of each side; `rotation`: turned by 1 to 5 degrees, either way;
- `jpeg`: through a JPEG of quality 50;
- `blend`: the mean of two patients' radiographs.

A ninth kind, `overfitted`, is no change of a radiograph: it is what a model made that was trained
for too long on a few patients (`overfitted.py`).

How much is cropped and how far is turned is drawn for each leak. The search (`likeness.py`) tries
steps of its own, which are not those sizes: what it catches is not what it was tuned on.
"""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageOps

BRIGHTER: Final = 1.1
CUT: Final = 0.05
"""Share of pixels at each end of the gray values."""

KEPT: Final = (0.85, 0.95)
"""Of each side of a crop: least and most."""

DEGREES: Final = (1.0, 5.0)
"""Of a rotation, either way."""

QUALITY: Final = 50


def leak(
    kind: str,
    image: Image.Image,
    other: Image.Image | None = None,
    *,
    rng: np.random.Generator,
) -> Image.Image:
    """Return a leak of a kind.

    Args:
        kind: of `kinds.KINDS`.
        image: a radiograph, mode L, square.
        other: another patient's, of the same size, for `blend`.
        rng: draws the size of a crop and the angle of a rotation.

    Raises:
        KeyError: there is no such kind.
        ValueError: a blend without another patient's radiograph.
    """
    if kind == "blend":
        if other is None:
            raise ValueError("a blend needs a second radiograph")
        return Image.blend(image, other, 0.5)
    if kind == "crop":
        return _crop(image, float(rng.uniform(*KEPT)))
    if kind == "rotation":
        return _rotation(image, float(rng.uniform(*DEGREES) * rng.choice([-1, 1])))
    return _CHANGES[kind](image)


def _brighter(image: Image.Image) -> Image.Image:
    raised = np.asarray(image, np.float64) * BRIGHTER
    return Image.fromarray(np.clip(np.rint(raised), 0, 255).astype(np.uint8))


def _window(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, np.float64)
    low, high = np.quantile(pixels, [CUT, 1 - CUT])
    stretched = (pixels - low) * 255 / max(high - low, 1)
    return Image.fromarray(np.clip(np.rint(stretched), 0, 255).astype(np.uint8))


def _crop(image: Image.Image, kept: float) -> Image.Image:
    margin = (1 - kept) / 2
    width, height = image.size
    box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


def _rotation(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BILINEAR)


def _jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    with Image.open(io.BytesIO(buffer.getvalue())) as coded:
        return coded.convert("L")


_CHANGES: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "copy": lambda image: image,
    "flip": ImageOps.mirror,
    "brighter": _brighter,
    "window": _window,
    "jpeg": _jpeg,
}
