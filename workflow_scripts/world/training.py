"""The training of the world's tiny networks: seeded, on one thread, for a fixed number of steps."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_BATCH: Final = 48
_THREADS: Final = 1  # a fixed number, so that a seed gives the same weights on any machine


def training(
    modules: Sequence[nn.Module],
    steps: int,
    effort: float,
    n: int,
    learning_rate: float,
    batch: int = _BATCH,
) -> Iterator[Tensor]:
    """Yield batches of indices below n; after each batch, step with its gradients."""
    steps = max(2, round(steps * effort))
    parameters = [p for module in modules for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _Schedule(steps))
    for module in modules:
        module.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < min(batch, n):
            order = torch.cat([order, torch.randperm(n)])
        yield order[:batch].unique()
        order = order[batch:]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()


def rarity(positive: Tensor) -> Tensor:
    """Return weights of positives, in [1, 10], which are larger for rare findings."""
    share = positive.mean(0)
    return ((1 - share) / share.clamp(min=1e-3)).sqrt().clamp(1, 10)


def jitter(x: Tensor, contrast: float, shift: float) -> Tensor:
    """Change contrast and brightness a little and move each image by up to `shift` pixels."""
    n = len(x)
    gain = 1 + contrast * (2 * torch.rand(n, 1, 1, 1) - 1)
    bias = contrast * (2 * torch.rand(n, 1, 1, 1) - 1)
    theta = torch.eye(2, 3).repeat(n, 1, 1)
    theta[:, :, 2] = (2 * torch.rand(n, 2) - 1) * 2 * shift / x.shape[-1]
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    moved = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return moved * gain + bias


@contextmanager
def reproducible() -> Iterator[None]:
    """Use a fixed number of threads; restore it and torch's random state afterwards."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


@dataclass
class _Schedule:
    """Learning-rate factor: warm-up over a tenth of the steps, then a cosine decay to 0.05."""

    steps: int

    def __call__(self, step: int) -> float:
        warm = max(1, self.steps // 10)
        return min((step + 1) / warm, 0.05 + 0.475 * (1 + math.cos(math.pi * step / self.steps)))
