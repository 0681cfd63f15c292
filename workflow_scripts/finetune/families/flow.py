"""Flow matching: straight paths from the image (sigma 0) to noise (sigma 1).

Lipman et al., 2023 (arXiv 2210.02747); Liu et al., 2023 (arXiv 2209.03003). How noise levels are
drawn follows Esser et al., 2024 (arXiv 2403.03206): uniformly or logit-normally, then shifted
towards noise for higher resolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from workflow_scripts.finetune.draws import Draws


def uniform_sigma(draws: Draws) -> Tensor:
    """Draw noise levels uniformly in (0, 1], float32 (n,)."""
    return 1 - draws.uniform()


def logit_normal_sigma(draws: Draws) -> Tensor:
    """Draw noise levels whose logit is standard normal, float32 (n,) in (0, 1)."""
    return draws.normal(()).sigmoid()


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Shift noise levels: shift * sigma / (1 + (shift - 1) * sigma)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def shift_by_size(tokens: int) -> float:
    """Return the shift for an image's number of tokens, as FLUX and Lumina 2 have it.

    The logarithm grows linearly from 0.5 at 256 tokens to 1.15 at 4,096.
    """
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))


def noised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return (1 - sigma) * clean + sigma * noise; sigma (n,)."""
    level = sigma.view(-1, *[1] * (clean.ndim - 1))
    return (1 - level) * clean + level * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Return what the network predicts: noise - clean, the path's direction towards noise."""
    return noise - clean


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return each image's mean squared error, float32 (n,)."""
    error = predicted.float() - target.float()
    if watch := _WATCH.get():
        watch(error)
    return error.square().flatten(1).mean(dim=1)


@contextmanager
def errors_watched(watch: Callable[[Tensor], None]) -> Iterator[None]:
    """Pass each error whose square is averaged to a function; float32, the prediction's shape.

    Membership inference uses it for the spectrum of an error.
    """
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


_WATCH: ContextVar[Callable[[Tensor], None] | None] = ContextVar("watch", default=None)
