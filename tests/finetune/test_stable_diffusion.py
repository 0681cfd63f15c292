"""Stable Diffusion: what it learns, and which checkpoints it refuses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.finetune.damage import check_refused, edited, pointer, removed, rename_key, truncated
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.train import finetune

FAMILY = get_family("stable_diffusion")
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("version", "prediction", "steps", "batch"),
    [
        pytest.param(1, "epsilon", 200, 16, marks=pytest.mark.full),
        (2, "v_prediction", 125, 8),
    ],
)
def test_overfits_until_samples_show_the_image_of_their_caption(
    version, prediction, steps, batch, tiny_sd, check_overfits
):
    pipeline = check_overfits(
        FAMILY, tiny_sd[version], steps, batch, sampling=15, learning_rate=3e-3
    )
    assert pipeline.scheduler.config.prediction_type == prediction


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
