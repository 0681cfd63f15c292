"""Stable Diffusion 3: its noise levels, what its network is told, and how captions are encoded."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.finetune.recorder import Recorder
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families.parts import draw_latents
from workflow_scripts.finetune.families.stable_diffusion_3 import StableDiffusion3, noise_levels

FAMILY = StableDiffusion3()
CPU = torch.device("cpu")


@pytest.fixture
def pipeline(pipeline_of):
    return pipeline_of("stable_diffusion_3")


def test_noise_levels_are_uniform_whatever_the_shift():
    scheduler = SimpleNamespace(config=SimpleNamespace(shift=3.0))
    sigma = noise_levels(SimpleNamespace(scheduler=scheduler), Draws(3, 0, range(8000), CPU))
    assert sigma.shape == (8000,)
    assert float(sigma.min()) > 0
    assert float(sigma.max()) <= 1
    np.testing.assert_allclose(
        np.quantile(sigma.numpy(), [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02
    )


def test_captions_are_encoded_as_the_pipeline_encodes_its_prompts(pipeline, two_images):
    """Sampling must see the conditions that training saw, the empty caption's too."""
    caption = next(iter(two_images))
    with torch.no_grad():
        ours = FAMILY.encode_captions(pipeline, [caption, ""])
        text, empty, *_ = pipeline.encode_prompt(caption, None, None, max_sequence_length=64)
    torch.testing.assert_close(ours["text"][0], text[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours["text"][1], empty[0], rtol=0, atol=1e-5)
    assert not torch.equal(ours["text"][0], ours["text"][1])


def test_the_network_is_told_sigma_and_asked_for_noise_minus_clean(
    pipeline, large_pixels, two_images
):
    with torch.no_grad():
        encoded = FAMILY.encode_images(pipeline, large_pixels)
        conditions = FAMILY.encode_captions(pipeline, list(two_images))
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    sigma = noise_levels(pipeline, draws)
    network = Recorder(noise - clean)
    loss = FAMILY.loss(pipeline, network, encoded, conditions, Draws(5, 2, range(2), CPU))
    assert torch.equal(loss, torch.zeros(2))
    level = sigma[:, None, None, None]
    torch.testing.assert_close(network.given["timestep"], 1000 * sigma)
    torch.testing.assert_close(network.given["hidden_states"], (1 - level) * clean + level * noise)
    opposite = Recorder(clean - noise)
    loss = FAMILY.loss(pipeline, opposite, encoded, conditions, Draws(5, 2, range(2), CPU))
    torch.testing.assert_close(loss, 4 * (clean - noise).square().mean(dim=(1, 2, 3)))


def test_training_takes_as_many_tokens_of_t5_as_it_is_told(pipeline):
    chosen = FAMILY.trained_with({"text_tokens": 16})
    captions = ["the heart is large " * 9]
    with torch.no_grad():
        short = chosen.encode_captions(pipeline, captions)["text"]
        expected = pipeline.encode_prompt(captions, None, None, max_sequence_length=16)[0]
        long = FAMILY.encode_captions(pipeline, captions)["text"]
    assert torch.equal(short, expected)
    assert short.shape[1] == 77 + 16
    assert long.shape[1] > short.shape[1]
    for wrong in (0, 513, 16.5):
        with pytest.raises(InputError, match="text_tokens"):
            FAMILY.trained_with({"text_tokens": wrong})
