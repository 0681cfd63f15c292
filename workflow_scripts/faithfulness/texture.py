"""Texture of a radiograph: its power spectrum and its noise.

Both are measured at one common resolution. Resampling an image removes texture, or cannot restore
it. So each value must be compared with radiographs that were resampled in the same way: they are
first reduced to the size at which models learn them, with the same filter.
"""

from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from workflow_scripts.common.images import centre_square
from workflow_scripts.common.squares import middle

SIDE: Final = 256
"""Side of the common resolution, pixels: half of the smallest published size."""

LEARNED_SIDE: Final = 512
"""Side at which the published models learn radiographs, pixels (`finetune.size`)."""

LOWEST, HIGHEST, BINS = 0.1, 0.5, 20
"""Range in cycles per pixel, and number of bins. Lower frequencies are anatomy and exposure, 0.5 is
the Nyquist frequency."""


def at_common_resolution(image: Image.Image) -> np.ndarray:
    """Return the luminance of an image's central square as float64 (SIDE, SIDE) in [0, 1].

    An image whose shorter side is above LEARNED_SIDE is first reduced to it as in fine-tuning
    (`centre_square`: bilinear, antialiased), because a perfect model would learn such images. Then
    it is resampled with Pillow's Lanczos filter, which removes frequencies above the new limit.
    """
    gray = image.convert("L")
    gray = centre_square(gray, LEARNED_SIDE) if min(gray.size) > LEARNED_SIDE else middle(gray)
    if gray.size != (SIDE, SIDE):
        gray = gray.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(gray, np.float64) / 255


def frequencies() -> np.ndarray:
    """Return the centres of the spectrum's bins, (BINS,), in cycles per pixel."""
    edges = np.linspace(LOWEST, HIGHEST, BINS + 1)
    return (edges[1:] + edges[:-1]) / 2


def log_power_spectrum(pixels: np.ndarray) -> np.ndarray:
    """Return the log10 of the mean power in rings of frequency, (BINS,).

    The mean is subtracted and a Hann window applied, so that the borders add no frequencies. White
    noise of variance v has log10(v) in every bin.

    Args:
        pixels: float (n, n) in [0, 1].
    """
    n = len(pixels)
    window = np.outer(np.hanning(n), np.hanning(n))
    spectrum = np.fft.fft2((pixels - pixels.mean()) * window)
    power = np.abs(spectrum) ** 2 / (window**2).sum()
    axis = np.fft.fftfreq(n)
    radius = np.hypot(axis[:, None], axis[None, :])
    bins = np.floor((radius - LOWEST) / (HIGHEST - LOWEST) * BINS).astype(int)
    inside = (radius >= LOWEST) & (radius < HIGHEST)
    counts = np.bincount(bins[inside], minlength=BINS)
    sums = np.bincount(bins[inside], weights=power[inside], minlength=BINS)
    # An image without texture has no power. It gets less than the least power that 8 bits can show.
    floor = (1 / 255) ** 2 / 12 * 1e-3
    result: np.ndarray = np.log10(np.maximum(sums / counts, floor))
    return result


_LAPLACIAN: Final = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
"""Difference of two Laplacians (Immerkaer, 1996). It removes smooth structure, and keeps the
variance of white noise."""


def noise_residual(pixels: np.ndarray) -> np.ndarray:
    """Return the noise of each pixel without the border, (n - 2, n - 2)."""
    return ndimage.convolve(pixels, _LAPLACIAN)[1:-1, 1:-1]


def noise_variance(pixels: np.ndarray) -> float:
    """Return the variance of the noise, from a median, on which edges have little effect.

    The median of the squares of a normal variable is 0.4549 times its variance.
    """
    return float(np.median(noise_residual(pixels) ** 2) / 0.4549)


def signal_dependence(pixels: np.ndarray, levels: int = 8) -> float:
    """Return the slope of the noise's variance over the gray value.

    Photon noise grows with the signal. Noise of a decoder or a file format does not. The pixels are
    split by their local mean into `levels` groups of equal size. Each group's variance is computed
    as in `noise_variance`, and the slope by least squares.

    Args:
        pixels: float (n, n) in [0, 1].
        levels: number of groups, at least two.
    """
    residual = noise_residual(pixels).ravel()
    local = ndimage.uniform_filter(pixels, 5)[1:-1, 1:-1].ravel()
    order = np.argsort(local, kind="stable")
    groups = np.array_split(order, levels)
    means = np.array([local[rows].mean() for rows in groups])
    variances = np.array([np.median(residual[rows] ** 2) / 0.4549 for rows in groups])
    spread = means - means.mean()
    if not spread.any():
        return 0.0
    return float((spread * variances).sum() / (spread**2).sum())
