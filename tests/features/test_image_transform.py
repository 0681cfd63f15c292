"""Preprocessing, compared with transformers' processor and torchvision's formulas."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.Image import Resampling

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.errors import InputError
from workflow_scripts.features.encoders import biovil_t_image, rad_dino, reid
from workflow_scripts.features.encoders.transform import (
    ImageTransform,
    published_squash,
    read_transform,
    stretch_to_gray,
)


def noise(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 99))
def test_equals_the_processor_of_transformers_to_the_bit(width: int, height: int, seed: int):
    from transformers import AutoImageProcessor, BitImageProcessorPil  # noqa: F401

    processor = BitImageProcessorPil(
        size={"shortest_edge": 37},
        crop_size={"height": 37, "width": 37},
        resample=3,
        image_mean=[0.5307] * 3,
        image_std=[0.2583] * 3,
    )
    ours = ImageTransform(37, (37, 37), Resampling.BICUBIC, mean=(0.5307,) * 3, std=(0.2583,) * 3)
    image = noise(seed, width, height)
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ours(image), theirs)


def test_to_tensor_is_division_by_255():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(levels).convert("RGB")
    got = ImageTransform((16, 16), None, Resampling.BILINEAR)(image)
    want = torch.from_numpy(levels).float().div(255)
    assert torch.equal(got, want.expand(3, -1, -1))


def test_reid_normalises_by_imagenet():
    image = Image.new("RGB", (256, 256), (255, 0, 51))
    got = reid.PUBLISHED(image)[:, 0, 0].tolist()
    want = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert got == pytest.approx(want, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(33, 80))
def test_biovil_crop_is_torchvision_s(width: int):
    """torchvision: `int(round((w - crop) / 2.0))`; the resize keeps the shorter side at 33."""
    image = noise(width, width, 33)
    transform = ImageTransform(33, (20, 20), Resampling.BILINEAR, odd_crop_rounds=True)
    left, top = round((width - 20) / 2.0), round(13 / 2.0)
    want = np.asarray(image)[top : top + 20, left : left + 20]
    assert np.allclose(transform(image).numpy() * 255, want.transpose(2, 0, 1), atol=1e-4)


@given(st.integers(1, 200), st.integers(1, 200))
def test_stretch_reaches_black_and_white(low: int, span: int):
    high = min(low + span, 255)
    pixels = np.full((4, 4, 3), low, np.uint8)
    pixels[0, 0] = high
    pixels[1, 1] = (low + high) // 2
    got = np.asarray(stretch_to_gray(Image.fromarray(pixels)))
    if high == low:
        assert (got == 0).all()
        return
    assert got[0, 0] == 255
    assert got[3, 3] == 0
    assert got[1, 1] == math.floor(((low + high) // 2 - low) / (high - low) * 255)


def test_published_sizes():
    image = noise(0, 700, 600)
    assert rad_dino.PUBLISHED(image).shape == (3, 518, 518)
    assert biovil_t_image.PUBLISHED(image).shape == (3, 448, 448)
    assert reid.PUBLISHED(image).shape == (3, 256, 256)


def test_squashes_of_the_official_release():
    switches = deviations("as_published")
    assert published_squash("fidelity", switches) == (299, Resampling.BILINEAR)
    assert published_squash("privacy", switches) == (512, Resampling.BICUBIC)
    for purpose in ("fidelity", "privacy"):
        assert published_squash(purpose, deviations("sound")) is None


def test_two_transforms_differ_in_words_wherever_they_differ():
    base = rad_dino.PUBLISHED
    changes = [
        {"size": 517},
        {"crop": (500, 500)},
        {"resample": Resampling.BILINEAR},
        {"scale": 0.1},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.2, 0.2, 0.2)},
        {"stretch_gray": True},
        {"squash": (299, Resampling.BILINEAR)},
        {"odd_crop_rounds": True},
    ]
    words = {base.describe()} | {
        ImageTransform(**{**vars(base), **change}).describe() for change in changes
    }
    assert len(words) == len(changes) + 1


@pytest.mark.parametrize(
    "config",
    [
        {"size": {"shortest_edge": 30}, "crop_size": {"height": 40, "width": 40}},
        {"do_rescale": False},
        {"image_mean": [0.5]},
        {"resample": 17},
        {"size": {"longest_edge": 4}},
    ],
)
def test_unusable_preprocessing_is_refused(tmp_path: Path, config: dict):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError) as caught:
        read_transform(path, rad_dino.PUBLISHED)
    assert caught.value.where == path
