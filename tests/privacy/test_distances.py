"""Pixel and latent distances by hand, and the behaviour of the published pixel distance."""

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.common.as_published import deviations
from workflow_scripts.privacy.distances import (
    PIXEL_SIDE,
    latent_distance,
    pixel_distance,
    pixels,
)

SOUND, PUBLISHED = deviations("sound"), deviations("as_published")


def noise(seed, shape=(PIXEL_SIDE, PIXEL_SIDE)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_pixel_distance_by_hand():
    black, gray = np.zeros((4, 4), np.uint8), np.full((4, 4), 10, np.uint8)
    assert pixel_distance(black, gray, SOUND) == 10
    assert pixel_distance(gray, black, SOUND) == 10
    assert pixel_distance(gray, gray, SOUND) == pixel_distance(gray, gray, PUBLISHED) == 0
    # 0 - 10 is 246 in uint8, 10 - 0 is 10.
    assert pixel_distance(black, gray, PUBLISHED) == 246
    assert pixel_distance(gray, black, PUBLISHED) == 10


def test_gray_and_colour_are_compared_channel_by_channel():
    gray = np.full((2, 2), 100, np.uint8)
    colour = np.stack([gray, gray + 30, gray], axis=2)
    assert pixel_distance(gray, colour, SOUND) == pytest.approx((900 / 3) ** 0.5)
    assert pixel_distance(colour, gray, SOUND) == pytest.approx((900 / 3) ** 0.5)
    assert pixel_distance(np.stack([gray] * 3, axis=2), gray, SOUND) == 0


def test_the_published_distance_of_unrelated_images_is_147_whatever_they_show():
    assert pixel_distance(noise(1), noise(2), SOUND) == pytest.approx(255 / 6**0.5, abs=0.5)
    assert pixel_distance(noise(1), noise(2), PUBLISHED) == pytest.approx(147.2, abs=0.5)
    # Smooth images, whose true distance is far smaller.
    ramp = np.linspace(0, 255, PIXEL_SIDE).astype(np.uint8)[None, :].repeat(PIXEL_SIDE, 0)
    assert pixel_distance(noise(1), ramp, PUBLISHED) == pytest.approx(147.2, abs=1)


def test_the_published_distance_calls_a_near_duplicate_safer_than_an_unrelated_image():
    image = noise(1)
    wobble = np.random.default_rng(3).normal(0, 5, image.shape)
    near = (image.astype(float) + wobble).clip(0, 255).round().astype(np.uint8)
    assert pixel_distance(image, near, SOUND) == pytest.approx(5, abs=0.2)
    assert pixel_distance(image, near, PUBLISHED) > 155
    assert pixel_distance(image, near, PUBLISHED) > pixel_distance(image, noise(2), PUBLISHED)


@pytest.mark.parametrize("size", [(600, 900), (900, 600), (512, 512), (64, 64), (70, 69)])
@pytest.mark.parametrize("switches", [SOUND, PUBLISHED])
def test_images_of_every_size_become_512_pixels(size, switches):
    image = Image.fromarray(noise(0, size[::-1])).convert("RGB")
    assert pixels(image, switches).shape == (PIXEL_SIDE, PIXEL_SIDE)


def test_sound_keeps_the_aspect_and_crops_the_centre_as_published_squashes():
    # A white square in the centre of a wide black image.
    array = np.zeros((512, 1024), np.uint8)
    array[128:384, 384:640] = 255
    image = Image.fromarray(array).convert("RGB")
    kept = pixels(image, SOUND)
    np.testing.assert_array_equal(kept, array[:, 256:768])
    squashed = pixels(image, PUBLISHED)
    white = squashed > 128
    assert white.any(axis=0).sum() == pytest.approx(128, abs=2)
    assert white.any(axis=1).sum() == 256


def test_a_colour_image_keeps_its_channels():
    array = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(Image.fromarray(array), SOUND), array)


def test_latent_distance_by_hand():
    a, b = np.array([[0.0, 0, 0, 0], [1, 2, 3, 4]]), np.array([[2.0, 2, 2, 2], [1, 2, 3, 4]])
    np.testing.assert_array_equal(latent_distance(a, b), [2, 0])


def test_a_copy_far_from_the_origin_reads_exactly_zero():
    features = (np.random.default_rng(0).standard_normal((50, 768)) + 1e4).astype(np.float32)
    assert (latent_distance(features, features.copy()) == 0).all()
    assert (latent_distance(features, np.nextafter(features, np.float32(0))) > 0).all()
