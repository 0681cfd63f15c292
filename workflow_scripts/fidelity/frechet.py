"""FID: the Fréchet distance between two Gaussians fitted to features.

Heusel et al., 2017: |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), where S is the unbiased
covariance. The trace of the root is computed without the root of a non-symmetric product. It equals
the nuclear norm of A1 A2^T, where S = A^T A, and the sum of the square roots of the eigenvalues of
L^T S2 L, where S1 = L L^T. The first form is exact even for singular covariances (fewer images than
dimensions). The second is faster for all others.
"""

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.fidelity.arrays import CPU, check_pair, to_float64


def frechet_distance(real: np.ndarray, generated: np.ndarray, device: torch.device = CPU) -> float:
    """Return the FID of two sets of features, computed in float64.

    FID has an upward bias proportional to 1/n. Compare values of equal n, or use the floors of
    `floor.py`.

    Args:
        real: (n, d), n >= 2.
        generated: (m, d), m >= 2.
        device: where to compute.

    Returns:
        The distance, >= 0 (rounding errors below zero become 0).

    Raises:
        ValueError: a side has fewer than two rows, d differs, or features are not finite.
    """
    check_pair(real, generated, minimum=2)
    mean1, a1 = _mean_and_factor(to_float64(real, device))
    mean2, a2 = _mean_and_factor(to_float64(generated, device))
    means = (mean1 - mean2).square().sum()
    traces = a1.square().sum() + a2.square().sum()
    return max(0.0, float(means + traces - 2 * _trace_of_root(a1, a2)))


def distance_of_moments(means: Tensor, covariance1: Tensor, covariance2: Tensor) -> float:
    """Return the FID of two Gaussians, >= 0; it is fastest if `covariance1` has full rank.

    Args:
        means: (d,) difference of the means, float64.
        covariance1: (d, d) symmetric, float64.
        covariance2: (d, d) symmetric, float64.
    """
    root = _root(covariance1)
    product = root.T @ covariance2 @ root
    trace = torch.linalg.eigvalsh(product).clamp_min(0).sqrt().sum()
    total = means.square().sum() + covariance1.trace() + covariance2.trace() - 2 * trace
    return max(0.0, float(total))


def _mean_and_factor(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (d,) and A (n, d) with A^T A the unbiased covariance."""
    mean = features.mean(dim=0)
    return mean, (features - mean) / (len(features) - 1) ** 0.5


def _trace_of_root(a1: Tensor, a2: Tensor) -> Tensor:
    if min(len(a1), len(a2)) < a1.shape[1]:
        return torch.linalg.svdvals(a1 @ a2.T).sum()
    half = a2 @ _root(a1.T @ a1)
    return torch.linalg.eigvalsh(half.T @ half).clamp_min(0).sqrt().sum()


def _root(covariance: Tensor) -> Tensor:
    """Return a matrix L such that L L^T is the covariance."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    if failed:  # a singular covariance: a constant feature, or duplicated images
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp_min(0).sqrt()
    return root
