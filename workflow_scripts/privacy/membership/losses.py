"""Losses of images under a checkpoint, which attacks on membership read.

A family's own loss of an image (`Family.loss`) depends on the noise level, the noise and the
caption. Here all three are fixed. The levels are the same quantiles of the family's own
distribution of noise levels, and every image gets the same noise at a level and seed. So the losses
of two images, two captions or two checkpoints do not differ by the noise.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.finetune.data import load_pixels
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.families.flow import errors_watched
from workflow_scripts.finetune.layout import Base

MEASURED: Final = ("conditional", "unconditional", "low_frequencies")
"""What is measured of an image: its loss with its caption, its loss with the empty caption, and its
squared error with its caption, in which low spatial frequencies weigh more. The loss is the one
that training lowers: a squared error, or for image tokens the mean of -log p."""

SCALE: Final = 0.25
"""Cycles per latent pixel at which a frequency's weight has fallen to 1/e; the most are 0.5."""


class FixedDraws(Draws):
    """Draws that are the same for all images, with the noise level at a given quantile.

    Families draw a noise level by `uniform()`, `integers(...)` or `normal(())`, and noise by
    `normal(shape)`.

    Args:
        level: quantile of the noise level, in (0, 1). The family decides which end is clean.
        seed: seed of the noise.
        images: number of images.
        device: where the drawn values go.
    """

    def __init__(self, level: float, seed: int, images: int, device: torch.device):
        super().__init__(seed, 0, [0] * images, device)
        self._level = level

    def normal(self, shape: Sequence[int]) -> Tensor:
        """See `Draws.normal`; a single value per image is the quantile of a noise level."""
        if len(tuple(shape)) == 0:
            return self._alike(NormalDist().inv_cdf(self._level))
        return super().normal(shape)

    def uniform(self) -> Tensor:
        """See `Draws.uniform`: the quantile."""
        return self._alike(self._level)

    def integers(self, high: int) -> Tensor:
        """See `Draws.integers`: the quantile, rounded down."""
        return self._alike(int(self._level * high))

    def _alike(self, value: float | int) -> Tensor:
        return torch.full((len(self._generators),), value, device=self.device)


@dataclass(frozen=True)
class Measuring:
    """How losses are measured.

    Attributes:
        size: side of the images in pixels, as in training.
        levels: number of noise levels: the middles of as many equal parts of (0, 1).
        seeds: number of draws of noise at each level.
        precision: dtype that networks compute in, as in training.
    """

    size: int
    levels: int
    seeds: int
    precision: torch.dtype = torch.float32

    @property
    def draws(self) -> list[tuple[float, int]]:
        """Level and seed of each pass."""
        middles = [(k + 0.5) / self.levels for k in range(self.levels)]
        return [(level, seed) for level in middles for seed in range(self.seeds)]


def image_losses(
    family: Family,
    pipeline: Any,
    paths: Sequence[str],
    captions: Sequence[str],
    how: Measuring,
) -> np.ndarray:
    """Return the losses of images with their captions under a checkpoint.

    Args:
        family: the checkpoint's family, with its options of training chosen.
        pipeline: the checkpoint, loaded and placed on its device; in eval mode.
        paths: n image files, measured together.
        captions: the images' captions.
        how: see `Measuring`.

    Returns:
        float32 (n, levels * seeds, 3), the last axis in the order of `MEASURED`. The squared error
        is NaN if the family's loss is not one. A family that adds no noise has one pass.
    """
    network = family.network(pipeline)
    device = next(network.parameters()).device
    pixels = np.stack([load_pixels(path, how.size) for path in paths])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
    with torch.inference_mode(), computing(device, how.precision):
        encoded = family.encode_images(pipeline, images).float().contiguous()
        conditions = family.encode_shown(pipeline, captions, [False] * len(paths))
        empty_captions = family.encode_shown(pipeline, captions, [True] * len(paths))
        passes = []
        for level, seed in how.draws if family.denoises else how.draws[:1]:
            spectra: list[Tensor] = []

            def watch(error: Tensor, weighted: list[Tensor] = spectra) -> None:
                weighted.append(weighted_error(error))

            def draws(level: float = level, seed: int = seed) -> Draws:
                return FixedDraws(level, seed, len(paths), device)

            with errors_watched(watch):
                loss = family.loss(pipeline, network, encoded, conditions, draws())
            without = family.loss(pipeline, network, encoded, empty_captions, draws())
            low = spectra[0] if spectra else torch.full_like(loss, torch.nan)
            passes.append(torch.stack([loss.float(), without.float(), low.float()], dim=-1))
    return torch.stack(passes, dim=1).cpu().numpy()


def weighted_error(error: Tensor) -> Tensor:
    """Return each image's squared error with weights that fall with spatial frequency, (n,).

    With weights of 1 it is the mean square (Parseval). The weight is exp(-(f / SCALE)^2), f in
    cycles per latent pixel. Fine texture is noise to a model, whether it has seen the image or not.

    Args:
        error: (n, channels, height, width), or (n, tokens, values) of a square of tokens in rows.
    """
    if error.ndim == 3:
        side = int(error.shape[1] ** 0.5)
        error = error.transpose(1, 2).reshape(len(error), error.shape[2], side, -1)
    spectrum = torch.fft.fft2(error.float(), norm="ortho")
    rows, columns = (torch.fft.fftfreq(n, device=error.device) for n in error.shape[-2:])
    weights = torch.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / SCALE**2)
    power = spectrum.real.square() + spectrum.imag.square()
    return (power * weights).mean(dim=(1, 2, 3)) / weights.mean()


def loaded_as_trained(family: Family, base: Base, method: str, dtype: torch.dtype) -> Any:
    """Load a pipeline as training computes with it.

    Args:
        family: the checkpoint's family.
        base: the checkpoint, or an adapter's base.
        method: `full` (the network stays in float32) or `lora`.
        dtype: dtype of training's mixed precision.

    Raises:
        InputError: a component is missing or damaged.
    """
    return family.load(
        base,
        dtype,
        torch.float32 if method == "full" else None,
        **({"vae_dtype": torch.float32} if family.encodes_in_float32 else {}),
    )


@contextlib.contextmanager
def computing(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Compute in mixed precision, if training does."""
    if precision == torch.float32:
        yield
    else:
        with torch.autocast(device.type, precision):
            yield
