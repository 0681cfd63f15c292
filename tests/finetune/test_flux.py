"""FLUX.1: how its noise levels lie, what its network is told, and how captions are encoded."""

from types import SimpleNamespace

import pytest
import torch

from tests.finetune.conftest import SIDE
from tests.finetune.recorder import Recorder, told
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.flux import Flux, noise_levels
from workflow_scripts.finetune.families.parts import draw_latents

FAMILY = Flux()
CPU = torch.device("cpu")


@pytest.fixture
def pipeline(pipeline_of):
    return pipeline_of("flux")


def test_noise_levels_are_logit_normal_without_shift():
    sigma = noise_levels(Draws(3, 7, range(4000), CPU))
    # 1 / (1 + exp(-z)) at the normal's 5 %, 25 %, 50 %, 75 % and 95 %: z = -1.645, -0.674, ...
    expected = torch.tensor([0.1618, 0.3375, 0.5, 0.6625, 0.8382])
    found = sigma.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    assert torch.allclose(found, expected, atol=0.02)
    assert sigma.min() > 0
    assert sigma.max() < 1


def _by_hand(pipeline, encoded):
    """Draw what the loss drew, in its order, and pack it token by token."""
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    sigma = draws.normal(()).sigmoid()

    def packed(latents):
        tokens = [
            latents[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1)
            for row in range(SIDE // 16)
            for column in range(SIDE // 16)
        ]
        return torch.stack(tokens, dim=1)

    return packed(clean), packed(noise), sigma


def test_the_network_is_told_sigma_and_asked_for_noise_minus_clean(
    pipeline, large_pixels, two_images
):
    network = Recorder()
    encoded, _, loss = told(FAMILY, pipeline, large_pixels, list(two_images), network)
    clean, noise, sigma = _by_hand(pipeline, encoded)
    given = network.given
    assert torch.equal(given["timestep"], sigma)
    level = sigma[:, None, None]
    assert torch.allclose(given["hidden_states"], (1 - level) * clean + level * noise)
    assert torch.allclose(loss, (noise - clean).square().mean(dim=(1, 2)))
    *_, none_left = told(FAMILY, pipeline, large_pixels, list(two_images), Recorder(noise - clean))
    assert torch.equal(none_left, torch.zeros(2))


def test_the_conditions_have_the_shapes_and_places_of_the_pipeline(
    pipeline, large_pixels, two_images
):
    network = Recorder()
    told(FAMILY, pipeline, large_pixels, list(two_images), network)
    given, tokens = network.given, pipeline.tokenizer_2.model_max_length
    assert given["guidance"].tolist() == [1.0, 1.0]
    assert given["encoder_hidden_states"].shape == (2, tokens, 32)
    assert given["pooled_projections"].shape == (2, 48)
    assert given["txt_ids"].shape == (tokens, 3)
    assert not given["txt_ids"].any()
    rows = [[0, row, column] for row in range(SIDE // 16) for column in range(SIDE // 16)]
    assert given["img_ids"].tolist() == rows


def test_a_network_without_guidance_is_not_told_any(pipeline, large_pixels, two_images):
    network = Recorder()
    config = SimpleNamespace(guidance_embeds=False)
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    schnell = SimpleNamespace(
        **{part: getattr(pipeline, part) for part in parts},
        transformer=SimpleNamespace(config=config),
        tokenizer_max_length=pipeline.tokenizer_max_length,
        _pack_latents=pipeline._pack_latents,
        _prepare_latent_image_ids=pipeline._prepare_latent_image_ids,
    )
    told(FAMILY, schnell, large_pixels, list(two_images), network)
    assert network.given["guidance"] is None


def test_captions_are_encoded_as_the_pipeline_does(pipeline, two_images):
    captions = [*two_images, "", "the heart is large " * 100]
    with torch.no_grad():
        found = FAMILY.encode_captions(pipeline, captions)
        text, pooled, _ = pipeline.encode_prompt(
            captions, max_sequence_length=pipeline.tokenizer_2.model_max_length
        )
    assert torch.equal(found["text"], text)
    assert torch.equal(found["pooled"], pooled)
    assert not torch.equal(found["pooled"][0], found["pooled"][2])


def test_sampling_tells_the_network_what_training_told_it(pipeline, two_images):
    told = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, args, given: told.append(given), with_kwargs=True
    )
    FAMILY.sample(pipeline, list(two_images), [1, 2], SampleSettings(2, 3.5, SIDE))
    hook.remove()
    with torch.no_grad():
        conditions = FAMILY.encode_captions(pipeline, list(two_images))
    assert len(told) == 2  # one pass per step: no second one without the caption
    for given in told:
        assert torch.equal(given["encoder_hidden_states"], conditions["text"])
        assert torch.equal(given["pooled_projections"], conditions["pooled"])
        assert given["guidance"].tolist() == [3.5, 3.5]
    assert told[0]["timestep"].tolist() == [1.0, 1.0]
