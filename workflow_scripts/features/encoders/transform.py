"""Preprocessing of a decoded image: resize, crop, scale and normalise, with PIL and numpy.

Depending on its fields, the result equals that of transformers' `BitImageProcessor` (PIL backend)
or of torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` on PIL images to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.errors import InputError
from workflow_scripts.features.encoders.layout import read_json

SIDECAR: Final = "preprocessor_config.json"
"""The file beside the weights with image sizes and normalisation, in Hugging Face's layout."""


@dataclass(frozen=True)
class ImageTransform:
    """One encoder's preprocessing of an 8-bit RGB image.

    Attributes:
        size: length of the shorter side after resizing; or (height, width), which loses the aspect.
        crop: (height, width) of the central crop; None for no crop.
        resample: PIL's filter for `size`.
        odd_crop_rounds: how an odd margin is halved: False rounds down (transformers), True rounds
            half to even (torchvision).
        scale: factor of the pixel values.
        mean: subtracted from each channel after scaling.
        std: divides each channel after that.
        stretch_gray: first stretch the range of all values to 0..255 and convert to gray (BioViL's
            `remap_to_uint8`).
        squash: (side, filter) to squash the image to a square before anything else, as the official
            release does; None does not.
    """

    size: int | tuple[int, int]
    crop: tuple[int, int] | None
    resample: Resampling
    odd_crop_rounds: bool = False
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stretch_gray: bool = False
    squash: tuple[int, Resampling] | None = None

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return float32 (3, height, width); for a gray image it may be one channel, expanded."""
        if image.mode != "L":
            image = image.convert("RGB")
        if self.squash is not None:
            side, resample = self.squash
            image = image.resize((side, side), resample)
        pixels = self.fit(stretch_to_gray(image) if self.stretch_gray else image)
        table = self._table()
        if pixels.ndim == 2 and (table == table[0]).all():
            return torch.from_numpy(table[0][pixels]).expand(3, -1, -1)
        channels = [pixels if pixels.ndim == 2 else pixels[..., i] for i in range(3)]
        return torch.from_numpy(np.stack([table[i][channels[i]] for i in range(3)]))

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop an 8-bit image; return its pixels, (height, width) or with channels."""
        width, height = image.size
        if isinstance(self.size, tuple):
            target = self.size
        elif width <= height:
            target = (int(self.size * height / width), self.size)
        else:
            target = (self.size, int(self.size * width / height))
        if (height, width) != target:
            image = image.resize((target[1], target[0]), self.resample)
        pixels = np.asarray(image)
        if self.crop is not None:
            top, left = (self._margin(a - b) for a, b in zip(target, self.crop, strict=True))
            pixels = pixels[top : top + self.crop[0], left : left + self.crop[1]]
        return pixels

    def describe(self) -> str:
        """Return the whole preprocessing in words, for the cache's key."""
        steps = []
        if self.squash is not None:
            side, resample = self.squash
            steps.append(f"squash {side}x{side} {resample.name.lower()}")
        steps.append("range of the array to 0..255, gray" if self.stretch_gray else "RGB")
        if isinstance(self.size, tuple):
            steps.append(f"resize {self.size[0]}x{self.size[1]} {self.resample.name.lower()}")
        else:
            steps.append(f"resize shorter side {self.size} {self.resample.name.lower()}")
        if self.crop is not None:
            rounding = "nearest" if self.odd_crop_rounds else "down"
            steps.append(f"centre crop {self.crop[0]}x{self.crop[1]}, margin rounded {rounding}")
        steps.append(f"scale {self.scale:.9g}")
        if any(self.mean) or any(value != 1 for value in self.std):
            steps.append("mean " + ",".join(f"{value:g}" for value in self.mean))
            steps.append("std " + ",".join(f"{value:g}" for value in self.std))
        return "; ".join(steps)

    def _margin(self, excess: int) -> int:
        return round(excess / 2) if self.odd_crop_rounds else excess // 2

    def _table(self) -> NDArray[np.float32]:
        """Return the value of each of the 256 gray levels per channel, (3, 256)."""
        levels = (np.arange(256, dtype=np.float64) * self.scale).astype(np.float32)
        mean, std = (np.array(values, np.float32)[:, None] for values in (self.mean, self.std))
        return (levels - mean) / std


def to_device(inputs: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Stack inputs of one shape on a device; of expanded channels only one is transferred."""
    if all(pixels.ndim == 3 and pixels.stride(0) == 0 for pixels in inputs):
        one = torch.stack([pixels[:1] for pixels in inputs]).to(device)
        return one.expand(-1, inputs[0].shape[0], -1, -1).contiguous()
    return torch.stack(list(inputs)).to(device)


def stretch_to_gray(image: Image.Image) -> Image.Image:
    """Stretch the range of all values to 0..255 (fractions cut off), then convert to gray.

    This is hi-ml's `remap_to_uint8` and `convert("L")`. A constant image, for which the original
    divides by zero, becomes black.
    """
    extremes = np.asarray(image.getextrema()).reshape(-1, 2)
    low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    if high == low:
        return Image.new("L", image.size, 0)
    levels = (np.arange(256, dtype=np.float64) - low) / (high - low) * 255
    stretched = levels.clip(0, 255).astype(np.uint8).tolist()
    return image.point(stretched * len(image.getbands())).convert("L")


def published_squash(purpose: str, switches: Deviations) -> tuple[int, Resampling] | None:
    """Return the squash that the official release applies before an encoder's preprocessing.

    Fidelity uses torchvision's `Resize((299, 299))`, bilinear; privacy PIL's `resize((512, 512))`,
    bicubic by default. Each encoder's module decides whether it applies.
    """
    if purpose == "fidelity" and switches.fidelity_squash_299:
        return 299, Resampling.BILINEAR
    if purpose == "privacy" and switches.privacy_squash_512:
        return 512, Resampling.BICUBIC
    return None


def read_transform(path: Path, default: ImageTransform) -> ImageTransform:
    """Override a transform's fields by those of a `preprocessor_config.json`.

    Args:
        path: the file; fields that it lacks keep their default.
        default: the published preprocessing.

    Raises:
        InputError: the file is damaged, or asks for preprocessing that is not supported.
    """
    config = read_json(path)
    result = default
    try:
        if config.get("do_resize") is False or config.get("do_rescale") is False:
            raise ValueError("do_resize and do_rescale must be true")
        if "size" in config:
            result = replace(result, size=_size(config["size"]))
        if config.get("do_center_crop") is False:
            result = replace(result, crop=None)
        elif "crop_size" in config:
            height, width = _pair(config["crop_size"])
            result = replace(result, crop=(height, width))
        if "resample" in config:
            result = replace(result, resample=Resampling(config["resample"]))
        if "rescale_factor" in config:
            result = replace(result, scale=float(config["rescale_factor"]))
        if config.get("do_normalize") is False:
            result = replace(result, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        else:
            if "image_mean" in config:
                result = replace(result, mean=_three(config["image_mean"]))
            if "image_std" in config:
                result = replace(result, std=_three(config["image_std"]))
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"unusable preprocessing: {error}", path, "restore the file from its source"
        ) from None
    shortest = min(result.size) if isinstance(result.size, tuple) else result.size
    if result.crop is not None and max(result.crop) > shortest:
        raise InputError(
            f"a crop of {result.crop} is larger than the resized image ({result.size})",
            path,
            "restore the file from its source",
        )
    return result


def _size(value: Any) -> int | tuple[int, int]:
    if isinstance(value, dict) and "shortest_edge" in value:
        return int(value["shortest_edge"])
    return int(value) if isinstance(value, int) else _pair(value)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return int(value["height"]), int(value["width"])


def _three(value: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(number) for number in value)
    return first, second, third
