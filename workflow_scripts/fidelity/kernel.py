"""KID: the squared maximum mean discrepancy under a cubic polynomial kernel.

Binkowski et al., 2018: k(x, y) = (x.y / d + 1)^3 and the unbiased estimate, which is free of
the sample-size bias of FID and may fall below zero. The usual implementations average it over
random subsets; here every pair counts once, which is the same expectation with less noise.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.fidelity.arrays import CPU, blocks, check_pair, to_float64

SMALLEST_FOR_INTERVAL = 10
"""Images per side below which a bootstrap says nothing of value."""

_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class KernelDistance:
    """KID and its 95% bootstrap interval (None when not asked for, or too few images)."""

    value: float
    interval: tuple[float, float] | None


def kernel_distance(
    real: np.ndarray,
    generated: np.ndarray,
    replicates: int = 0,
    rng: np.random.Generator | None = None,
    device: torch.device = CPU,
) -> KernelDistance:
    """Return KID over all pairs, in one pass over blocks of the kernel matrices.

    The interval is the percentile interval of a multinomial bootstrap of both sides. Pairs of a
    radiograph with its own copy within a replicate do not count: their kernel is that of an image
    with itself, and they would bias every replicate upwards. The interval is conservative where
    KID is near zero: up to sqrt(3) too wide for two samples of one distribution, about right from
    a few standard errors on.

    Args:
        real: (n, d), n >= 2.
        generated: (m, d), m >= 2.
        replicates: bootstrap replicates; 0 for no interval.
        rng: source of the replicates; None for a fresh, unseeded one.
        device: where to compute.

    Raises:
        ValueError: fewer than two rows, another d, or features that are not finite.
    """
    check_pair(real, generated, minimum=2)
    n, m = len(real), len(generated)
    if min(n, m) < SMALLEST_FOR_INTERVAL:
        replicates = 0
    rng = rng or np.random.default_rng()
    x, y = to_float64(real, device), to_float64(generated, device)
    drawn_x = _resampling_counts(n, replicates, rng).to(device)
    drawn_y = _resampling_counts(m, replicates, rng).to(device)
    # A constant taken off all three matrices cancels in KID, and keeps the float32 products of
    # the bootstrap accurate when the features have a large offset.
    shift = float(_kernel(x[:64], y[:64]).mean())
    xx, boot_xx = _within(x, drawn_x, shift)
    yy, boot_yy = _within(y, drawn_y, shift)
    xy, boot_xy = _between(x, y, drawn_x, drawn_y, shift)
    value = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    if not replicates:
        return KernelDistance(value, None)
    # n^2 less the pairs of an image with its own copies: as many as were summed.
    boot_xx /= n * n - drawn_x.double().square().sum(dim=0)
    boot_yy /= m * m - drawn_y.double().square().sum(dim=0)
    boot = boot_xx + boot_yy - 2 * boot_xy / (n * m)
    low, high = np.quantile(boot.cpu().numpy(), [0.025, 0.975])
    return KernelDistance(value, (float(low), float(high)))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)


def _resampling_counts(n: int, replicates: int, rng: np.random.Generator) -> Tensor:
    """Return (n, replicates): how often each row is drawn in each replicate, as float32."""
    drawn = rng.integers(0, n, (replicates, n))
    drawn += np.arange(replicates)[:, None] * n
    counts = np.bincount(drawn.ravel(), minlength=n * replicates).reshape(replicates, n)
    return torch.from_numpy(np.ascontiguousarray(counts.T, np.float32))


def _within(x: Tensor, drawn: Tensor, shift: float) -> tuple[float, Tensor]:
    """Sum k - shift over ordered pairs i != j: once each, and as often as each replicate has them.

    The matrix is symmetric: a block of rows is multiplied with the columns from its own first
    row on, and what lies right of the block counts twice.
    """
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    boot = total.new_zeros(drawn.shape[1])
    for rows in blocks(len(x), len(x), _BLOCK_ELEMENTS):
        kernel = _kernel(x[rows], x[rows.start :]) - shift
        kernel.diagonal().zero_()
        kernel[:, rows.stop - rows.start :] *= 2
        total += kernel.sum()
        boot += (drawn[rows] * (kernel.float() @ drawn[rows.start :])).sum(0, dtype=torch.float64)
    return float(total), boot


def _between(
    x: Tensor, y: Tensor, drawn_x: Tensor, drawn_y: Tensor, shift: float
) -> tuple[float, Tensor]:
    """Sum k - shift over all pairs: once each, and as often as each replicate has them."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    boot = total.new_zeros(drawn_x.shape[1])
    for rows in blocks(len(x), len(y), _BLOCK_ELEMENTS):
        kernel = _kernel(x[rows], y) - shift
        total += kernel.sum()
        boot += (drawn_x[rows] * (kernel.float() @ drawn_y)).sum(0, dtype=torch.float64)
    return float(total), boot
