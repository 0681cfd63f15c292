"""Leaks of known kinds, made from training radiographs as a memorising model might make them.

A leak shows the central square of a training radiograph at the size of the model's images, because
the model was trained on that square. The kinds are:

- `copy`: unchanged; `flip`: mirrored;
- `brighter`: a tenth brighter; `window`: 5% of the pixels at each end of the gray values saturated;
- `crop`: the inner 85 to 95% of each side; `rotation`: rotated by 1 to 5 degrees, either way;
- `jpeg`: compressed as JPEG of quality 50;
- `blend`: the mean of two patients' radiographs.

Images of a ninth kind, `overfitted`, come from a model that was trained for too long on a few
patients (`overfitted.py`).

The size of a crop and the angle of a rotation are drawn for each leak. The search (`likeness.py`)
tries fixed steps of other sizes, so it is not tuned to the leaks that it has to find.
"""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageOps

BRIGHTER: Final = 1.1
CUT: Final = 0.05
"""Share of the pixels at each end of the gray values that a window saturates."""

KEPT: Final = (0.85, 0.95)
"""Least and largest share of each side that a crop keeps."""

DEGREES: Final = (1.0, 5.0)
"""Least and largest angle of a rotation, either way."""

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
        other: another patient's radiograph of the same size, for `blend`.
        rng: draws the size of a crop and the angle of a rotation.

    Raises:
        KeyError: the kind is unknown.
        ValueError: a blend lacks the other radiograph.
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
