"""Stable Diffusion: what it learns, and which checkpoints it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from safetensors.torch import load_file

from tests.finetune.damage import check_refused, edited, pointer, removed, rename_key, truncated
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.parts import draw_latents
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.train import finetune

FAMILY = get_family("stable_diffusion")
CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"


# The light twins in the other tier are the next two tests.
@pytest.mark.full
@pytest.mark.parametrize(
    ("version", "prediction", "steps", "batch"),
    [(1, "epsilon", 200, 16), (2, "v_prediction", 125, 8)],
)
def test_overfits_until_samples_show_the_image_of_their_caption(
    version, prediction, steps, batch, sd_of, check_overfits
):
    pipeline = check_overfits(
        FAMILY, sd_of(100)[version], steps, batch, sampling=15, learning_rate=3e-3
    )
    assert pipeline.scheduler.config.prediction_type == prediction


@pytest.mark.parametrize("version", [1, 2])
def test_the_network_is_told_the_timestep_and_asked_for_noise_or_velocity(
    version, tiny_sd, two_images
):
    pipeline = FAMILY.load(tiny_sd[version])
    pixels = torch.from_numpy(np.stack(list(two_images.values()))).float() / 127.5 - 1
    with torch.no_grad():
        encoded = FAMILY.encode_images(pipeline, pixels[:, None].expand(-1, 3, -1, -1))
        conditions = FAMILY.encode_captions(pipeline, list(two_images))
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    times = draws.integers(1000)
    # Both were published with betas whose roots are evenly spaced.
    kept = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()).cumprod(0)[times]
    kept = kept[:, None, None, None]
    target = noise if version == 1 else kept.sqrt() * noise - (1 - kept).sqrt() * clean
    told = []

    def perfect(*given):
        told.extend(given)
        return UNet2DConditionOutput(sample=target)

    loss = FAMILY.loss(pipeline, perfect, encoded, conditions, Draws(5, 2, range(2), CPU))
    torch.testing.assert_close(loss, torch.zeros(2))
    noisy, timesteps, text = told
    assert torch.equal(timesteps, times)
    torch.testing.assert_close(noisy, kept.sqrt() * clean + (1 - kept).sqrt() * noise)
    assert torch.equal(text, conditions["text"])
    assert not torch.equal(text[0], text[1])


@pytest.mark.parametrize("version", [1, 2])
def test_a_network_that_answers_so_leads_the_pipeline_to_the_image(version, tiny_sd, load_quiet):
    """The pipeline's own sampling has the sign and the time of the training target."""
    pipeline = load_quiet(FAMILY, tiny_sd[version])
    clean, start = (
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
    )
    kept_of = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()).cumprod(0)

    class Perfect(type(pipeline.unet)):
        def forward(self, x, time, **_):
            kept = kept_of[int(time)]
            noise = (x - kept.sqrt() * clean) / (1 - kept).sqrt()
            velocity = kept.sqrt() * noise - (1 - kept).sqrt() * clean
            return (noise if version == 1 else velocity,)

    pipeline.unet = Perfect.from_config(pipeline.unet.config)
    found = pipeline(
        "any",
        height=32,
        width=32,
        num_inference_steps=20,
        guidance_scale=1.0,
        latents=start,
        output_type="latent",
    ).images
    assert (found - clean).abs().mean() < 0.1 * (start - clean).abs().mean()


def test_only_the_unet_changes_and_the_scheduler_stays(
    tiny_sd, two_images, cohort_writer, settings, tmp_path
):
    finetune(
        FAMILY,
        tiny_sd[1],
        cohort_writer(tmp_path, two_images),
        tmp_path / "span",
        tmp_path / "progress",
        settings(epochs=4, gradient_checkpointing=True),
    )
    tuned = tmp_path / "span" / "checkpoint"
    for part, stem in (("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        before = load_file(tiny_sd[1].folder / part / f"{stem}.safetensors")
        after = load_file(tuned / part / f"{stem}.safetensors")
        assert all(torch.equal(before[key], after[key]) for key in before)
    before, after = load_file(tiny_sd[1].folder / UNET), load_file(tuned / UNET)
    assert before.keys() == after.keys()
    assert not torch.equal(before["conv_in.weight"], after["conv_in.weight"])
    index = json.loads((tuned / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "PNDMScheduler"]


@pytest.fixture
def folder(tiny_sd, tmp_path):
    """A copy of a checkpoint to damage."""
    return shutil.copytree(tiny_sd[1].folder, tmp_path / "base")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (removed("vae/diffusion_pytorch_model.safetensors"), "vae/diffusion_pytorch_model.safe"),
        (truncated(UNET), UNET),
        (pointer("text_encoder/model.safetensors"), "git lfs pull"),
        (edited("text_encoder/config.json", hidden_size=32), "taken by the UNet: 32 and 64"),
        (removed("tokenizer/merges.txt"), "merges.txt"),
        (edited("model_index.json", _class_name="FluxPipeline"), "FluxPipeline"),
    ],
)
def test_a_wrong_base_is_refused_by_name(damage, told, folder):
    check_refused(FAMILY, folder, damage, told)


def test_a_missing_and_an_unexpected_key_are_refused(folder):
    rename_key(folder / UNET, "conv_in.weight", "conv_in.renamed")
    with pytest.raises(InputError, match=r"missing: conv_in\.weight.*unexpected: conv_in\.renamed"):
        FAMILY.load(Base(folder))


def test_pickled_weights_load_like_safetensors(tiny_sd, folder):
    path = folder / UNET
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    expected = FAMILY.load(tiny_sd[1]).unet.state_dict()
    loaded = FAMILY.load(Base(folder)).unet.state_dict()
    assert all(torch.equal(expected[key], loaded[key]) for key in expected)


def test_an_unknown_family_hints_at_the_similar_one():
    with pytest.raises(InputError, match="unknown model family") as caught:
        get_family("stable_difusion")
    assert "stable_diffusion" in str(caught.value)
