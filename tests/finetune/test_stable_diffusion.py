"""Stable Diffusion: what it learns, and which checkpoints it refuses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.train import finetune

FAMILY = get_family("stable_diffusion")


@pytest.mark.parametrize(
    ("version", "prediction", "steps", "batch"),
    [(1, "epsilon", 200, 16), (2, "v_prediction", 125, 8)],
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
    unet = "unet/diffusion_pytorch_model.safetensors"
    before, after = load_file(tiny_sd[1].folder / unet), load_file(tuned / unet)
    assert before.keys() == after.keys()
    assert not torch.equal(before["conv_in.weight"], after["conv_in.weight"])
    index = json.loads((tuned / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "PNDMScheduler"]


def _remove(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()


def _truncate(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _point(folder):
    path = folder / "text_encoder" / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _unfit(folder):
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 32}))


def _no_vocabulary(folder):
    (folder / "tokenizer" / "merges.txt").unlink()


def _other_pipeline(folder):
    path = folder / "model_index.json"
    path.write_text(json.dumps({"_class_name": "FluxPipeline"}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_remove, "vae/diffusion_pytorch_model.safetensors"),
        (_truncate, "unet/diffusion_pytorch_model.safetensors"),
        (_point, "git lfs pull"),
        (_unfit, "taken by the UNet: 32 and 64"),
        (_no_vocabulary, "merges.txt"),
        (_other_pipeline, "FluxPipeline"),
    ],
)
def test_a_wrong_base_is_refused_by_name(damage, told, tiny_sd, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_sd[1].folder, folder)
    FAMILY.check(Base(folder))
    damage(folder)
    with pytest.raises(InputError) as caught:
        FAMILY.check(Base(folder))
    assert told in str(caught.value)


def test_a_missing_and_an_unexpected_key_are_refused(tiny_sd, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_sd[1].folder, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_in.renamed"] = state.pop("conv_in.weight")
    save_file(state, path)
    with pytest.raises(InputError, match=r"missing: conv_in\.weight.*unexpected: conv_in\.renamed"):
        FAMILY.load(Base(folder))


def test_pickled_weights_load_like_safetensors(tiny_sd, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_sd[1].folder, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    expected = FAMILY.load(tiny_sd[1]).unet.state_dict()
    loaded = FAMILY.load(Base(folder)).unet.state_dict()
    assert all(torch.equal(expected[key], loaded[key]) for key in expected)


def test_an_unknown_family_hints_at_the_similar_one():
    with pytest.raises(InputError, match="unknown model family") as caught:
        get_family("stable_difusion")
    assert "stable_diffusion" in str(caught.value)
