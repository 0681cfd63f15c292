"""Spectrum and noise of images whose texture is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from workflow_scripts.common.images import centre_square
from workflow_scripts.faithfulness.texture import (
    LEARNED_SIDE,
    SIDE,
    at_common_resolution,
    frequencies,
    log_power_spectrum,
    noise_variance,
    signal_dependence,
)


def smooth(seed=0):
    """Return anatomy without texture: a few broad blobs."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).random((SIDE, SIDE)), 25) * 8 - 3.5


@settings(max_examples=15, deadline=None)
@given(st.floats(0.001, 0.2), st.integers(0, 1000))
def test_white_noise_has_its_variance_in_every_bin(deviation, seed):
    pixels = 0.5 + deviation * np.random.default_rng(seed).normal(size=(SIDE, SIDE))
    assert log_power_spectrum(pixels) == pytest.approx(2 * np.log10(deviation), abs=0.12)
    assert noise_variance(pixels) == pytest.approx(deviation**2, rel=0.05)


def test_a_wave_stands_in_the_bin_of_its_frequency():
    x = np.arange(SIDE)
    pixels = np.tile(0.5 + 0.2 * np.sin(2 * np.pi * 0.25 * x), (SIDE, 1))
    peak = frequencies()[log_power_spectrum(pixels).argmax()]
    assert abs(peak - 0.25) <= 0.01


def test_blur_takes_the_high_frequencies_as_its_transfer_function_says():
    noise = 0.5 + 0.1 * np.random.default_rng(1).normal(size=(SIDE, SIDE))
    sigma = 0.6
    lost = log_power_spectrum(noise) - log_power_spectrum(
        ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=12)
    )
    # |H|^2 of a Gaussian: exp(-(2 pi sigma f)^2), in powers of ten; low bins, where sampling
    # the kernel does not matter.
    expected = (2 * np.pi * sigma * frequencies()) ** 2 / np.log(10)
    assert lost[:12] == pytest.approx(expected[:12], abs=0.06)


def test_anatomy_is_no_noise():
    assert noise_variance(smooth()) < 1e-8
    rng = np.random.default_rng(2)
    noisy = smooth() + 0.03 * rng.normal(size=(SIDE, SIDE))
    assert noise_variance(noisy) == pytest.approx(0.03**2, rel=0.05)
    edge = np.where(np.arange(SIDE) < SIDE // 2, 0.2, 0.8)[:, None] + np.zeros((SIDE, SIDE))
    assert noise_variance(edge + 0.03 * rng.normal(size=edge.shape)) == pytest.approx(
        0.03**2, rel=0.05
    )


def test_photon_noise_grows_with_the_signal_and_other_noise_does_not():
    rng = np.random.default_rng(3)
    ramp = np.tile(np.linspace(0.1, 0.9, SIDE), (SIDE, 1))
    photons = ramp + rng.normal(size=ramp.shape) * (0.002 * ramp) ** 0.5
    assert signal_dependence(photons) == pytest.approx(0.002, rel=0.1)
    alike = ramp + 0.03 * rng.normal(size=ramp.shape)
    assert abs(signal_dependence(alike)) < 2e-4
    assert signal_dependence(np.full((SIDE, SIDE), 0.5)) == 0.0


def test_a_film_goes_the_way_of_a_perfect_models_image_of_it():
    grain = np.random.default_rng(4).normal(128, 40, (1400, 1100)).clip(0, 255)
    film = Image.fromarray(grain.astype(np.uint8))
    learned = centre_square(film, LEARNED_SIDE)  # what fine-tuning sees, and a perfect model draws
    assert (at_common_resolution(film) == at_common_resolution(learned)).all()


def test_an_image_without_texture_has_a_finite_spectrum():
    assert np.isfinite(log_power_spectrum(np.full((SIDE, SIDE), 0.3))).all()


def test_every_image_comes_to_one_size():
    big = Image.fromarray(np.tile(np.arange(512, dtype=np.uint8), (300, 1)))
    pixels = at_common_resolution(big)
    assert pixels.shape == (SIDE, SIDE)
    assert pixels[0, 0] * 255 == pytest.approx(106, abs=1), "the central square, not the whole"
    own = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8))
    assert (at_common_resolution(own) * 255 == np.asarray(own)).all()
    assert 0 <= pixels.min() <= pixels.max() <= 1
