"""Texture of a radiograph: its power spectrum and its noise.

All of it is measured at one common resolution: an image of another size is resampled, which itself
takes texture away or makes none up, so each number is to be read beside that of radiographs that
went the same way. So films first come to the size at which models learn them, by the same filter.
"""

from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from workflow_scripts.common.images import centre_square
from workflow_scripts.common.squares import middle

SIDE: Final = 256
"""Of the square that every image is resampled to, pixels: half of the smallest published size."""

LEARNED_SIDE: Final = 512
"""Of the square at which the published models learn films, pixels (`finetune.size`)."""

LOWEST, HIGHEST, BINS = 0.1, 0.5, 20
"""Cycles per pixel: below stand anatomy and exposure, 0.5 is Nyquist's frequency."""


def at_common_resolution(image: Image.Image) -> np.ndarray:
    """Return the luminance of an image's central square as float64 (SIDE, SIDE) in [0, 1].

    An image whose shorter side is above LEARNED_SIDE is first brought to it as fine-tuning does
    (`centre_square`: bilinear, antialiased): a perfect model's images went that way, too. Then it
    is resampled with Pillow's Lanczos filter, which takes away what the new grid cannot hold.
    """
    gray = image.convert("L")
    gray = centre_square(gray, LEARNED_SIDE) if min(gray.size) > LEARNED_SIDE else middle(gray)
    if gray.size != (SIDE, SIDE):
        gray = gray.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(gray, np.float64) / 255


def frequencies() -> np.ndarray:
    """Return the middles of the spectrum's bins, (BINS,), cycles per pixel."""
    edges = np.linspace(LOWEST, HIGHEST, BINS + 1)
    return (edges[1:] + edges[:-1]) / 2


def log_power_spectrum(pixels: np.ndarray) -> np.ndarray:
    """Return the log10 of the mean power in rings of frequency, (BINS,).

    The mean is taken off and a Hann window laid on, so that the borders make no frequencies. White
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
    # An image without texture has no power at all: the least that 8 bits can show stands for it.
    floor = (1 / 255) ** 2 / 12 * 1e-3
    result: np.ndarray = np.log10(np.maximum(sums / counts, floor))
    return result


_LAPLACIAN: Final = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
"""Difference of two Laplacians: blind to what is smooth, and of variance one on white noise of
variance one (Immerkaer, 1996)."""


def noise_residual(pixels: np.ndarray) -> np.ndarray:
    """Return the noise of each pixel but the border's, (n - 2, n - 2)."""
    return ndimage.convolve(pixels, _LAPLACIAN)[1:-1, 1:-1]


def noise_variance(pixels: np.ndarray) -> float:
    """Return the variance of the noise; edges count little, for the median is taken.

    The median of squares of a normal variable is 0.4549 times its variance.
    """
    return float(np.median(noise_residual(pixels) ** 2) / 0.4549)


def signal_dependence(pixels: np.ndarray, levels: int = 8) -> float:
    """Return how the noise's variance grows with the gray value: its slope over gray levels.

    Photon noise grows with the signal, noise of a decoder or a file format does not. The image's
    pixels are split in `levels` groups of equal size by their local mean; of each the variance is
    taken as in `noise_variance`; the slope is the least squares' one.

    Args:
        pixels: float (n, n) in [0, 1].
        levels: groups, at least two.
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
