"""Random draws that belong to an image of the training run, not to a process or a batch."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Draws:
    """One random stream per image, seeded by (seed, step, index of the image within the step).

    An image's draws depend neither on the other images of its batch nor on the number of devices. A
    resumed run draws the same values as an uninterrupted one.

    Args:
        seed: the training run's seed.
        step: the optimiser step.
        indices: the index of each image within the whole batch of that step.
        device: the device of the returned values, which are always drawn on the CPU.
    """

    def __init__(self, seed: int, step: int, indices: Sequence[int], device: torch.device):
        self.device = device
        self._generators = [
            torch.Generator().manual_seed(_mixed(seed, step, index)) for index in indices
        ]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draw standard normal values, float32 (n, *shape)."""
        drawn = [torch.randn(tuple(shape), generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self.device)

    def uniform(self) -> Tensor:
        """Draw one value in [0, 1) per image, float32 (n,)."""
        drawn = [torch.rand((), generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self.device)

    def integers(self, high: int) -> Tensor:
        """Draw one integer in [0, high) per image, int64 (n,)."""
        drawn = [torch.randint(high, (), generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self.device)


def batch_order(seed: int, images: int, batch: int, step: int) -> np.ndarray:
    """Return which images the whole batch of an optimiser step shows, int64 (batch,).

    The run goes through one shuffle of all images after another, without gaps. So every batch is
    full, and every image is seen once per epoch.
    """
    first, last = step * batch, (step + 1) * batch
    epochs = range(first // images, (last - 1) // images + 1)
    shuffles = [_shuffle(seed, epoch, images) for epoch in epochs]
    start = first - epochs[0] * images
    return np.concatenate(shuffles)[start : start + batch]


@functools.lru_cache(maxsize=2)
def _shuffle(seed: int, epoch: int, images: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(images)


def _mixed(seed: int, step: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, step, index]).generate_state(1, np.uint64)[0])
