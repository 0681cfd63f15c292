"""Sana: its noise levels, what its network is told, its captions and its latents."""

import inspect
import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention_processor import SanaLinearAttnProcessor2_0

from tests.finetune.conftest import SIDE
from tests.finetune.damage import edit
from tests.finetune.recorder import Recorder, told
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.sana import LinearAttention, Sana, noise_levels
from workflow_scripts.finetune.layout import Base
from workflow_scripts.world.tiny_sana import LATENT_CHANNELS, TEXT_TOKENS, TEXT_WIDTH

FAMILY = Sana()
CPU = torch.device("cpu")


@pytest.fixture
def pipeline(pipeline_of):
    return pipeline_of("sana")


@pytest.fixture
def folder(base_of, tmp_path):
    """A copy of the checkpoint to change."""
    return shutil.copytree(base_of("sana").folder, tmp_path / "base")


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        # The logistic of the normal quantiles -1.6449, -0.6745, 0, 0.6745, 1.6449 ...
        (1.0, [0.1618, 0.3375, 0.5, 0.6625, 0.8382]),
        # ... and 3 s / (1 + 2 s) of these.
        (3.0, [0.3667, 0.6045, 0.75, 0.8548, 0.9395]),
    ],
)
def test_noise_levels_are_logit_normal_and_shifted_as_the_scheduler_says(shift, expected):
    scheduler = SimpleNamespace(config=SimpleNamespace(flow_shift=shift))
    sigma = noise_levels(SimpleNamespace(scheduler=scheduler), Draws(3, 7, range(4000), CPU))
    found = sigma.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    assert torch.allclose(found, torch.tensor(expected), atol=0.02)
    assert sigma.min() > 0
    assert sigma.max() < 1


def _by_hand(pipeline, large_pixels):
    """Draw what the loss drew, in its order."""
    draws = Draws(5, 2, range(2), CPU)
    with torch.no_grad():
        clean = pipeline.vae.encode(large_pixels).latent * pipeline.vae.config.scaling_factor
    noise = draws.normal(clean.shape[1:])
    odds = torch.exp(draws.normal(()))
    return clean, noise, 3 * odds / (1 + 3 * odds)


def test_the_network_is_told_1000_sigma_and_asked_for_noise_minus_clean(
    pipeline, large_pixels, two_images
):
    network = Recorder()
    *_, loss = told(FAMILY, pipeline, large_pixels, list(two_images), network)
    clean, noise, sigma = _by_hand(pipeline, large_pixels)
    given = network.given
    torch.testing.assert_close(given["timestep"], 1000 * sigma)
    level = sigma[:, None, None, None]
    torch.testing.assert_close(given["hidden_states"], (1 - level) * clean + level * noise)
    torch.testing.assert_close(loss, (noise - clean).square().mean(dim=(1, 2, 3)))
    *_, none_left = told(FAMILY, pipeline, large_pixels, list(two_images), Recorder(noise - clean))
    torch.testing.assert_close(none_left, torch.zeros(2))


def test_the_checkpoint_says_the_scale_of_time_and_the_shift(folder, large_pixels, two_images):
    edit(folder / "transformer" / "config.json", timestep_scale=0.001)
    edit(folder / "scheduler" / "scheduler_config.json", flow_shift=1.0)
    network, pipeline = Recorder(), FAMILY.load(Base(folder))
    told(FAMILY, pipeline, large_pixels, list(two_images), network)
    shifted = _by_hand(pipeline, large_pixels)[2]
    torch.testing.assert_close(network.given["timestep"], shifted / (3 - 2 * shifted))


def test_the_network_is_told_the_text_and_where_it_ends(pipeline, large_pixels):
    network = Recorder()
    _, conditions, _ = told(FAMILY, pipeline, large_pixels, ["the heart is large", ""], network)
    given = network.given
    assert torch.equal(given["encoder_hidden_states"], conditions["text"])
    assert given["encoder_hidden_states"].shape == (2, TEXT_TOKENS, TEXT_WIDTH)
    tokens = len(pipeline.tokenizer("the heart is large").input_ids)
    mask = torch.arange(TEXT_TOKENS) < torch.tensor([[tokens], [1]])
    assert tokens > 4
    assert torch.equal(given["encoder_attention_mask"].bool(), mask)


def test_captions_are_encoded_as_prompts_and_the_empty_one_as_the_negative_prompt(pipeline):
    captions = ["The <heart> is large", "", "the lungs are clear " * 50]
    with torch.no_grad():
        found = FAMILY.encode_captions(pipeline, captions)
        text, mask, negative, negative_mask = pipeline.encode_prompt(
            captions, max_sequence_length=TEXT_TOKENS
        )
    assert torch.equal(found["text"], text)
    assert torch.equal(found["mask"], mask)
    assert torch.equal(found["text"][1], negative[1])
    assert torch.equal(found["mask"][1], negative_mask[1])
    assert found["mask"][2].all()
    assert not torch.equal(found["text"][0], found["text"][1])


def test_at_most_300_tokens_are_encoded(folder):
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=1000)
    pipeline = FAMILY.load(Base(folder))
    with torch.no_grad():
        found = FAMILY.encode_captions(pipeline, ["the lungs are clear " * 200])
    assert found["text"].shape == (1, 300, TEXT_WIDTH)
    assert found["mask"].shape == (1, 300)


def test_sampling_tells_the_network_what_training_told_it(pipeline):
    """No instruction before the caption, no other size, the empty caption for guidance."""
    captions, told = ["the heart is large", "the lungs are clear"], []

    def note(_, given, named):
        told.append({"hidden_states": given[0], **named})

    handle = pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        FAMILY.sample(pipeline, captions, [1, 2], SampleSettings(2, 4.5, SIDE))
    finally:
        handle.remove()
    with torch.no_grad():
        conditions = FAMILY.encode_captions(pipeline, ["", "", *captions])
    assert len(told) == 2
    for given in told:
        assert given["hidden_states"].shape == (4, LATENT_CHANNELS, 8, 8)
        assert torch.equal(given["encoder_hidden_states"], conditions["text"])
        assert torch.equal(given["encoder_attention_mask"], conditions["mask"])


def test_images_are_encoded_as_the_latents_that_the_autoencoder_decodes(base_of, large_pixels):
    pipeline = FAMILY.load(base_of("sana", seen=40))
    with torch.no_grad():
        encoded = FAMILY.encode_images(pipeline, large_pixels)
        decoded = pipeline.vae.decode(encoded).sample
        assert torch.equal(encoded, FAMILY.encode_images(pipeline, large_pixels))
    assert encoded.shape == (2, *FAMILY.encoded_shape(pipeline, SIDE)) == (2, 8, 8, 8)
    assert (decoded - large_pixels).abs().mean() < 0.2
    assert float((encoded * pipeline.vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.05)


def test_a_network_of_half_the_precision_gives_a_float32_loss(base_of, large_pixels, two_images):
    pipeline = FAMILY.load(base_of("sana"), dtype=torch.bfloat16)
    _, conditions, loss = told(
        FAMILY, pipeline, large_pixels, list(two_images), pipeline.transformer
    )
    assert conditions["text"].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert loss.shape == (2,)
    assert torch.isfinite(loss).all()


def _attended(pipeline, processor, dtype=None):
    """Let the first block's linear attention see random tokens, under autocast where asked.

    Returns what the last layer is given, what it answers, the attention and the tokens.
    """
    attention = pipeline.transformer.transformer_blocks[0].attn1
    width = attention.to_q.in_features
    tokens = torch.randn(2, 64, width, generator=torch.Generator().manual_seed(5))
    seen = []
    handle = attention.to_out[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        answer = processor(attention, tokens)
    handle.remove()
    return seen[0], answer, attention, tokens


def test_the_linear_attention_is_diffusers_in_float32(pipeline):
    ours = pipeline.transformer.transformer_blocks[0].attn1.processor
    assert isinstance(ours, LinearAttention)
    expected = _attended(pipeline, SanaLinearAttnProcessor2_0())[1]
    torch.testing.assert_close(_attended(pipeline, ours)[1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "lost"), [(torch.bfloat16, 1e-3), (torch.float16, 1e-4)])
def test_under_autocast_the_linear_attentions_products_stay_in_float32(pipeline, dtype, lost):
    found, _, attention, tokens = _attended(pipeline, LinearAttention(), dtype)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        projected = [layer(tokens) for layer in (attention.to_q, attention.to_k, attention.to_v)]
    query, key, value = (
        part.double().unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in projected
    )
    weights = query.relu() @ key.relu().transpose(2, 3)
    by_hand = (weights @ value / (weights.sum(-1, keepdim=True) + 1e-15)).transpose(1, 2).flatten(2)

    def away(given):
        return float((given.double() - by_hand).norm() / by_hand.norm())

    assert away(found) < 1e-6
    assert away(_attended(pipeline, SanaLinearAttnProcessor2_0(), dtype)[0]) > lost


def test_training_encodes_images_in_float32_beside_half_the_precision(
    pipeline, base_of, large_pixels
):
    assert FAMILY.encodes_in_float32
    mixed = FAMILY.load(base_of("sana"), torch.bfloat16, vae_dtype=torch.float32)
    assert mixed.vae.dtype == torch.float32
    assert mixed.text_encoder.dtype == mixed.transformer.dtype == torch.bfloat16
    with torch.no_grad():
        found = FAMILY.encode_images(mixed, large_pixels)
        assert torch.equal(found, FAMILY.encode_images(pipeline, large_pixels))


def test_with_the_instruction_captions_are_encoded_as_the_pipelines_own(folder):
    # The tiny tokenizer's 128 tokens would end within the instruction.
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=300)
    pipeline = FAMILY.load(Base(folder))
    call = inspect.signature(type(pipeline).__call__).parameters
    lines = call["complex_human_instruction"].default
    instructed = FAMILY.trained_with({"instruction": True})
    with torch.no_grad():
        found = instructed.encode_captions(pipeline, ["the heart is large", ""])
        text, mask, negative, negative_mask = pipeline.encode_prompt(
            ["the heart is large", ""], complex_human_instruction=lines
        )
        plain = FAMILY.encode_captions(pipeline, ["the heart is large", ""])
    assert torch.equal(found["text"][0], text[0])
    assert torch.equal(found["mask"][0], mask[0])
    assert torch.equal(found["text"][1], negative[1])
    assert torch.equal(found["mask"][1], negative_mask[1])
    assert not torch.equal(found["text"][0], plain["text"][0])
    assert torch.equal(found["mask"][1], plain["mask"][1])


def test_a_dropped_caption_keeps_its_mask_where_that_is_chosen(pipeline):
    captions, dropped = ["the heart is large", "the lungs are clear"], [True, False]
    kept = FAMILY.trained_with({"caption_mask_when_dropped": True})
    with torch.no_grad():
        shown = FAMILY.encode_shown(pipeline, captions, dropped)
        as_in_the_trainer = kept.encode_shown(pipeline, captions, dropped)
        empty = FAMILY.encode_captions(pipeline, ["", captions[1]])
        whole = FAMILY.encode_captions(pipeline, captions)
    assert torch.equal(shown["text"], empty["text"])
    assert torch.equal(shown["mask"], empty["mask"])
    assert torch.equal(as_in_the_trainer["text"], empty["text"])
    assert torch.equal(as_in_the_trainer["mask"], whole["mask"])
    assert not torch.equal(shown["mask"], whole["mask"])


def test_the_instruction_is_an_option_of_sampling(pipeline):
    told = []
    encode = pipeline.encode_prompt

    def note(*given, **named):
        told.append(named["complex_human_instruction"])
        return encode(*given, **{**named, "complex_human_instruction": None})

    pipeline.encode_prompt = note
    try:
        for options in ({}, {"instruction": True}):
            FAMILY.sample(pipeline, ["any"], [1], SampleSettings(1, 1.0, SIDE, options))
    finally:
        del pipeline.encode_prompt
    assert told[0] is None
    assert "Enhanced prompt" in "".join(told[1])
