"""MS-SSIM: the similarity of two images over five scales (Wang et al., 2003)."""

from typing import Final

import numpy as np
from scipy import ndimage

WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The published weights of the scales, from the finest."""

_SIGMA: Final = 1.5
_RADIUS: Final = 5
_C1, _C2 = 0.01**2, 0.03**2


def multiscale_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Return the MS-SSIM of two images; 1 for the same, near 0 for unlike ones.

    The window is Gaussian, with 11 pixels and a standard deviation of 1.5. It stays within the
    image. A scale of negative contrast counts as 0, as in the common libraries.

    Args:
        one: float (n, n) in [0, 1], n at least 176: the window must fit in the coarsest scale.
        other: of the same shape.

    Raises:
        ValueError: the images differ in shape, or are too small.
    """
    least = (2 * _RADIUS + 1) * 2 ** (len(WEIGHTS) - 1)
    if one.shape != other.shape or min(one.shape) < least:
        raise ValueError(f"images of {one.shape} and {other.shape}, {least} pixels at least")
    result = 1.0
    for scale, weight in enumerate(WEIGHTS):
        contrast, ssim = _scale(one, other)
        last = scale == len(WEIGHTS) - 1
        result *= max(0.0, ssim if last else contrast) ** weight
        one, other = _halved(one), _halved(other)
    return float(result)


def _scale(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the means of contrast and structure without luminance, and with it."""
    mean1, mean2 = _smooth(one), _smooth(other)
    variance1 = _smooth(one * one) - mean1 * mean1
    variance2 = _smooth(other * other) - mean2 * mean2
    covariance = _smooth(one * other) - mean1 * mean2
    contrast = (2 * covariance + _C2) / (variance1 + variance2 + _C2)
    luminance = (2 * mean1 * mean2 + _C1) / (mean1**2 + mean2**2 + _C1)
    return float(contrast.mean()), float((luminance * contrast).mean())


def _smooth(x: np.ndarray) -> np.ndarray:
    smooth = ndimage.gaussian_filter(x, _SIGMA, radius=_RADIUS)
    return np.asarray(smooth)[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def _halved(x: np.ndarray) -> np.ndarray:
    """Return the means of 2 x 2 pixels, without an odd last row or column."""
    height, width = x.shape[0] // 2, x.shape[1] // 2
    return x[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))
