"""The diffusion transformers: what every family of them must do.

What is particular to a family stands in a file of its own.
"""

import numpy as np
import pytest
import torch

from tests.finetune.conftest import SIDE
from tests.finetune.recorder import led_by
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.lora import (
    LoraSettings,
    add_lora,
    load_lora,
    save_lora,
    trained_parameters,
)

# The values that one image is encoded to at 64 pixels: moments of latents, Sana's latents alone.
ENCODED = {
    "flux": (32, 8, 8),
    "lumina2": (32, 8, 8),
    "pixart_sigma": (8, 16, 16),
    "sana": (8, 8, 8),
    "stable_diffusion_3": (32, 8, 8),
}
# At another size: 48 is no multiple of what Sana works at.
OTHER_SIZE = dict.fromkeys(ENCODED, 48) | {"sana": 96}


def sample(family, pipeline, captions, seeds, size=SIDE, guidance=4.0):
    images = family.sample(pipeline, captions, seeds, SampleSettings(2, guidance, size))
    return np.stack([np.asarray(image) for image in images])


# The light twins in the other tier: the loss tells the network its time and asks it for its target
# (each family's own file), and such answers lead to the image (below).
@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "size", "steps", "batch", "rate"),
    [
        ("flux", 64, 300, 8, 3e-3),
        ("lumina2", 64, 400, 8, 3e-3),
        ("pixart_sigma", 32, 700, 16, 3e-3),
        ("sana", 64, 120, 8, 3e-3),
        ("stable_diffusion_3", 64, 200, 8, 2e-3),
    ],
)
def test_overfits_until_samples_show_the_image_of_their_caption(
    name, size, steps, batch, rate, base_of, check_overfits
):
    base = base_of(name, seen=100)
    check_overfits(get_family(name), base, steps, batch, 15, size=size, learning_rate=rate)


@pytest.mark.parametrize(
    ("name", "steps", "changed"),
    [
        ("flux", 20, {}),
        ("lumina2", 20, {}),
        ("sana", 40, {}),
        ("stable_diffusion_3", 40, {"ema_decay": 0.9}),
    ],
)
def test_lora_alone_lowers_the_loss(name, steps, changed, base_of, check_lora_lowers_the_loss):
    base = base_of(name, seen=20)
    check_lora_lowers_the_loss(get_family(name), base, steps, SIDE, **changed)


# How each family's network, if it were perfect, would answer latents x at the time that it is told.
def velocity(x, time, clean):
    return (x - clean) / time


def velocity_of_thousandths(x, time, clean):
    return (x - clean) / (time / 1000)


def velocity_to_the_image(x, time, clean):
    return (clean - x) / (1 - time)


def noise_and_any_variance(x, time, clean):
    kept = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000)))[time.long()].float()
    noise = (x - kept.sqrt() * clean) / (1 - kept).sqrt()
    return torch.cat([noise, torch.full_like(noise, 7.0)], dim=1)


@pytest.mark.parametrize(
    ("name", "answer", "shape", "first_time", "call"),
    [
        ("flux", velocity, (1, 16, 64), 1, {}),
        ("lumina2", velocity_to_the_image, (1, 16, 8, 8), 0, {}),
        (
            *("pixart_sigma", noise_and_any_variance, (1, 4, 16, 16), 999),
            {"use_resolution_binning": False},
        ),
        (
            *("sana", velocity_of_thousandths, (1, 8, 8, 8), 999),
            {"use_resolution_binning": False, "complex_human_instruction": None},
        ),
        ("stable_diffusion_3", velocity_of_thousandths, (1, 16, 8, 8), 1000, {}),
    ],
)
def test_a_network_that_answers_so_leads_the_pipeline_to_the_image(
    name, answer, shape, first_time, call, pipeline_of
):
    """The pipeline's own sampling has the sign and the time of the training target."""
    call = {"height": SIDE, "width": SIDE, "max_sequence_length": 16, **call}
    found, clean, times = led_by(pipeline_of(name), answer, shape, **call)
    # Sana's scheduler cuts its times to whole numbers.
    assert torch.allclose(found, clean, atol=0.01 if name == "sana" else 1e-4)
    assert times[0] == pytest.approx(first_time, abs=1)
    assert times == sorted(times, reverse=first_time > 0)


@pytest.mark.parametrize(
    ("name", "position", "layers"),
    [
        # 1 double block with 6 projections of attention and 4 layers of MLPs; 2 single blocks with
        # 3 projections, `proj_mlp` and `proj_out`; the last layer.
        ("flux", "attention", 6 + 2 * 3),
        ("flux", "attention_mlp", 6 + 4 + 2 * (3 + 2) + 1),
        # 5 blocks (a refiner of the text, one of the image, three joint ones), each with 3
        # projections of attention and a gated MLP of 3 layers.
        ("lumina2", "attention", 5 * 3),
        ("lumina2", "attention_mlp", 5 * (3 + 3)),
    ],
)
def test_lora_takes_its_place_and_comes_back_from_its_file(
    name, position, layers, base_of, load_quiet, tmp_path
):
    family = get_family(name)
    trained = load_quiet(family, base_of(name))
    torch.manual_seed(0)
    add_lora(trained.transformer, family, LoraSettings(4, 4, True, (position,)))
    factors = trained_parameters(trained.transformer)
    assert len(factors) == 2 * layers
    with torch.no_grad():
        for factor in factors.values():
            factor.copy_(0.3 * torch.randn_like(factor))
    save_lora(family, trained, tmp_path)
    loaded = load_quiet(family, base_of(name))
    load_lora(family, loaded, tmp_path)
    shown = sample(family, loaded, ["the heart is large"], [1])
    assert np.array_equal(shown, sample(family, trained, ["the heart is large"], [1]))


@pytest.mark.parametrize("name", ENCODED)
def test_an_image_follows_from_its_prompt_seed_size_and_guidance(name, pipeline_of):
    family, pipeline = get_family(name), pipeline_of(name)
    first, second = "the heart is large", "the lungs are clear"
    torch.manual_seed(3)
    images = sample(family, pipeline, [first, first, second], [1, 2, 1])
    torch.manual_seed(99)
    assert np.array_equal(images, sample(family, pipeline, [first, first, second], [1, 2, 1]))
    assert images.shape == (3, SIDE, SIDE, 3)
    assert np.abs(images[0].astype(int) - images[1]).max() > 10
    assert not np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], sample(family, pipeline, [first], [1], guidance=1.0)[0])
    size = OTHER_SIZE[name]
    assert sample(family, pipeline, [first], [1], size).shape == (1, size, size, 3)


@pytest.mark.parametrize(
    ("name", "side", "sizes"),
    [("flux", 16, [0, 40, 72]), ("lumina2", 16, [0, 40, 72]), ("sana", 32, [0, 48, 72])],
)
def test_a_size_that_the_pipeline_does_not_sample_is_refused(name, side, sizes, pipeline_of):
    family, pipeline = get_family(name), pipeline_of(name)
    for size in sizes:
        with pytest.raises(InputError, match=f"multiple of {side}"):
            family.encoded_shape(pipeline, size)
        with pytest.raises(InputError, match=f"multiple of {side}"):
            sample(family, pipeline, ["the heart is large"], [1], size)


@pytest.mark.parametrize("name", ENCODED)
def test_images_are_encoded_to_the_shape_that_the_cache_reserves(name, pipeline_of, large_pixels):
    family, pipeline = get_family(name), pipeline_of(name)
    with torch.no_grad():
        encoded = family.encode_images(pipeline, large_pixels)
    assert encoded.shape == (2, *family.encoded_shape(pipeline, SIDE)) == (2, *ENCODED[name])
