"""Lumina Image 2.0: its noise levels, what its network is told, its captions and its options."""

import numpy as np
import pytest
import torch

from tests.finetune.conftest import SIDE
from tests.finetune.recorder import Recorder, told
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.lumina2 import Lumina2, noise_levels
from workflow_scripts.finetune.families.parts import draw_latents
from workflow_scripts.finetune.lora import LoraSettings, add_lora, trained_parameters
from workflow_scripts.world.tiny_lumina2 import TEXT_TOKENS, TEXT_WIDTH

FAMILY = Lumina2()
CPU = torch.device("cpu")


@pytest.fixture
def pipeline(pipeline_of):
    return pipeline_of("lumina2")


QUANTILES = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])


def test_noise_levels_are_uniform_as_in_the_authors_tool():
    """Theirs: 0.051, 0.251, 0.500, 0.750, 0.950 (a shift of 6 would give 0.24 to 0.99)."""
    sigma = noise_levels(Draws(3, 7, range(4000), CPU))
    expected = torch.tensor([0.051, 0.251, 0.500, 0.750, 0.950])
    assert torch.allclose(sigma.quantile(QUANTILES), expected, atol=0.025)
    assert sigma.min() > 0
    assert sigma.max() <= 1


def test_lumina_s_own_trainer_shifts_by_the_size():
    uniform = noise_levels(Draws(3, 7, range(4000), CPU)).double()
    # 512 pixels are 32 x 32 tokens; the exponent is 0.5 + 0.65 x 768 / 3,840 = 0.63.
    odds = np.exp(0.63) * uniform / (1 - uniform)
    found = noise_levels(Draws(3, 7, range(4000), CPU), tokens=1024)
    assert torch.allclose(found.double(), odds / (1 + odds), atol=1e-6)
    assert np.exp(0.63) == pytest.approx(1.88, abs=0.005)


def test_the_option_shifts_the_levels_of_training(pipeline, large_pixels, two_images):
    plain, shifted = Recorder(), Recorder()
    told(FAMILY, pipeline, large_pixels, list(two_images), plain)
    chosen = FAMILY.trained_with({"shift_by_size": True})
    told(chosen, pipeline, large_pixels, list(two_images), shifted)
    # 64 pixels are 4 x 4 tokens.
    shift = np.exp(0.5 - 0.65 * 240 / 3840)
    sigma = 1 - plain.given["timestep"]
    expected = shift * sigma / (1 + (shift - 1) * sigma)
    assert torch.allclose(1 - shifted.given["timestep"], expected, atol=1e-6)
    assert FAMILY.training_option("shift_by_size") is False


def test_the_network_is_told_one_minus_sigma_and_asked_for_clean_minus_noise(
    pipeline, large_pixels, two_images
):
    network = Recorder()
    encoded, _, loss = told(FAMILY, pipeline, large_pixels, list(two_images), network)
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    sigma = 1 - draws.uniform()  # uniform, whatever the scheduler's shift, which is 6
    given = network.given
    assert torch.allclose(given["timestep"], 1 - sigma)
    level = sigma[:, None, None, None]
    assert torch.allclose(given["hidden_states"], (1 - level) * clean + level * noise)
    assert torch.allclose(loss, (clean - noise).square().mean(dim=(1, 2, 3)))
    *_, none_left = told(FAMILY, pipeline, large_pixels, list(two_images), Recorder(clean - noise))
    assert torch.equal(none_left, torch.zeros(2))


def test_the_network_is_told_the_text_and_where_it_ends(pipeline, large_pixels, two_images):
    network = Recorder()
    told(FAMILY, pipeline, large_pixels, [next(iter(two_images)), ""], network)
    given = network.given
    assert given["encoder_hidden_states"].shape == (2, TEXT_TOKENS, TEXT_WIDTH)
    assert given["encoder_attention_mask"].shape == (2, TEXT_TOKENS)
    prompt = f"{pipeline.system_prompt} <Prompt Start> the heart is large"
    lengths = [len(pipeline.tokenizer(text).input_ids) for text in (prompt, "")]
    assert given["encoder_attention_mask"].sum(dim=1).tolist() == lengths
    assert lengths[0] > 10 * lengths[1] > 0


def test_captions_are_encoded_as_prompts_and_the_empty_one_as_the_negative_prompt(pipeline):
    captions = ["the heart is large", "", "the lungs are clear " * 50]
    with torch.no_grad():
        found = FAMILY.encode_captions(pipeline, captions)
        text, mask, negative, negative_mask = pipeline.encode_prompt(
            captions, max_sequence_length=TEXT_TOKENS
        )
    for i, (wanted, wanted_mask) in enumerate(
        [(text[0], mask[0]), (negative[1], negative_mask[1]), (text[2], mask[2])]
    ):
        assert torch.equal(found["text"][i], wanted)
        assert torch.equal(found["mask"][i], wanted_mask)
    assert not torch.equal(found["text"][1], text[1])
    assert found["mask"][2].all()


def test_a_caption_without_empty_ones_beside_it_is_encoded_the_same(pipeline):
    with torch.no_grad():
        alone = FAMILY.encode_captions(pipeline, ["the heart is large"])
        beside = FAMILY.encode_captions(pipeline, ["the heart is large", ""])
    assert torch.allclose(alone["text"][0], beside["text"][0], atol=1e-5)
    assert torch.equal(alone["mask"][0], beside["mask"][0])


def _sampled(pipeline, captions, seeds, **changed):
    settings = SampleSettings(**{"steps": 2, "guidance": 4.0, "size": SIDE, **changed})
    return np.stack(
        [np.asarray(image) for image in FAMILY.sample(pipeline, captions, seeds, settings)]
    )


def test_the_options_say_which_steps_are_guided_and_whether_the_norm_stays(pipeline):
    def sampled(**options):
        return _sampled(pipeline, ["the heart is large"], [1], steps=4, options=options)

    guided = sampled()
    unguided = _sampled(pipeline, ["the heart is large"], [1], steps=4, guidance=1.0)
    assert np.array_equal(guided, sampled(cfg_trunc_ratio=1.0, cfg_normalization=True))
    assert np.array_equal(unguided, sampled(cfg_trunc_ratio=0.0))
    first = sampled(cfg_trunc_ratio=0.25)
    assert not np.array_equal(first, guided)
    assert not np.array_equal(first, unguided)
    assert not np.array_equal(guided, sampled(cfg_normalization=False))


def test_a_bfloat16_network_trains_its_float32_adapter(base_of, large_pixels, two_images):
    pipeline = FAMILY.load(base_of("lumina2"), network_dtype=torch.bfloat16)
    torch.manual_seed(0)
    add_lora(pipeline.transformer, FAMILY, LoraSettings(4, 4, True, ("attention_mlp",)))
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            encoded = FAMILY.encode_images(pipeline, large_pixels)
            conditions = FAMILY.encode_captions(pipeline, list(two_images))
        draws = Draws(5, 2, range(2), CPU)
        loss = FAMILY.loss(pipeline, pipeline.transformer, encoded, conditions, draws)
    assert loss.dtype == torch.float32
    assert loss.shape == (2,)
    loss.mean().backward()
    gradients = [p.grad for p in trained_parameters(pipeline.transformer).values()]
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients)
