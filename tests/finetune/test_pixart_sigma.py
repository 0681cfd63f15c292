"""PixArt-Sigma: what its network is told, its captions, and its parts from two repositories."""

import shutil

import numpy as np
import pytest
import torch

from tests.finetune.recorder import Recorder
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.parts import draw_latents
from workflow_scripts.finetune.families.pixart_sigma import PixArtSigma
from workflow_scripts.finetune.layout import Base

FAMILY = PixArtSigma()
CPU = torch.device("cpu")


@pytest.fixture
def pipeline(pipeline_of):
    return pipeline_of("pixart_sigma")


def test_captions_are_encoded_as_the_pipeline_encodes_its_prompts(pipeline, two_images):
    """Sampling must see the conditions that training saw, the empty caption's too."""
    caption = next(iter(two_images))
    with torch.no_grad():
        ours = FAMILY.encode_captions(pipeline, [caption, ""])
        text, _, empty, _ = pipeline.encode_prompt(
            caption, True, max_sequence_length=ours["text"].shape[1], clean_caption=False
        )
    torch.testing.assert_close(ours["text"][0], text[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours["text"][1], empty[0], rtol=0, atol=1e-5)
    assert not torch.equal(ours["text"][0], ours["text"][1])


def test_it_learns_the_noise_and_leaves_its_variance_alone(pipeline, large_pixels, two_images):
    """Of twice the channels, the second half is a variance that this loss says nothing of."""
    with torch.no_grad():
        encoded = FAMILY.encode_images(pipeline, large_pixels)
        conditions = FAMILY.encode_captions(pipeline, list(two_images))
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    network = Recorder(torch.cat([noise, torch.full_like(noise, 7.0)], dim=1))
    loss = FAMILY.loss(pipeline, network, encoded, conditions, Draws(5, 2, range(2), CPU))
    assert torch.equal(loss, torch.zeros(2))
    kept = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000)))
    kept = kept[network.given["timestep"].long()].float()[:, None, None, None]
    torch.testing.assert_close(
        network.given["hidden_states"],
        kept.sqrt() * clean + (1 - kept).sqrt() * noise,
        rtol=0,
        atol=1e-4,
    )


def test_it_is_put_together_from_two_repositories(base_of, load_quiet, two_images, tmp_path):
    whole = base_of("pixart_sigma").folder
    shutil.copytree(whole / "transformer", tmp_path / "one" / "transformer")
    names = ("vae", "text_encoder", "tokenizer")
    parts = {part: tmp_path / "two" / part for part in names}
    for part, folder in parts.items():
        shutil.copytree(whole / part, folder)
    images = []
    for base in (Base(whole), Base(tmp_path / "one", parts)):
        pipeline = load_quiet(FAMILY, base)
        sampled = FAMILY.sample(pipeline, list(two_images), [1, 2], SampleSettings(2, 4.0, 32))
        images.append(np.stack([np.asarray(image) for image in sampled]))
    assert np.array_equal(*images)


def test_a_dropped_caption_keeps_its_mask_where_that_is_chosen(pipeline):
    captions, dropped = ["the heart is large", "the lungs are clear"], [False, True]
    kept = FAMILY.trained_with({"caption_mask_when_dropped": True})
    with torch.no_grad():
        shown = FAMILY.encode_shown(pipeline, captions, dropped)
        as_in_the_trainer = kept.encode_shown(pipeline, captions, dropped)
        whole = FAMILY.encode_captions(pipeline, captions)
    assert torch.equal(as_in_the_trainer["text"], shown["text"])
    assert torch.equal(as_in_the_trainer["mask"], whole["mask"])
    assert shown["mask"].sum(dim=1).tolist() == [whole["mask"][0].sum(), 1]


def test_images_are_decoded_in_float32_beside_half_the_precision(base_of, load_quiet):
    assert FAMILY.decodes_in_float32
    half = FAMILY.load(base_of("pixart_sigma"), torch.float16, vae_dtype=torch.float32)
    half.set_progress_bar_config(disable=True)
    seen = []
    half.vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    settings = SampleSettings(2, 4.0, 32)
    image = FAMILY.sample(half, ["the heart is large"], [1], settings)[0]
    assert seen == [torch.float32]
    assert half.transformer.dtype == torch.float16
    whole = load_quiet(FAMILY, base_of("pixart_sigma"))
    exact = FAMILY.sample(whole, ["the heart is large"], [1], settings)[0]
    away = np.abs(np.asarray(image, float) - np.asarray(exact, float))
    assert away.mean() < 1
