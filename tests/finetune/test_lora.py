"""LoRA: starts at the base, lowers the loss, and comes back from its file at its own scale."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.lora import (
    LORA_FILE,
    LoraSettings,
    add_lora,
    load_lora,
    module_endings,
    save_lora,
    trained_parameters,
)

FAMILY = get_family("stable_diffusion")
LORA = LoraSettings(rank=4, alpha=4, rslora=True, targets=("attention",))


@pytest.fixture(scope="module")
def adapted(tiny_sd, two_images, tmp_path_factory):
    """A pipeline with a random, non-zero adapter, and the folder that it was saved to."""
    pipeline = FAMILY.load(tiny_sd[1])
    torch.manual_seed(0)
    add_lora(pipeline.unet, FAMILY, LORA)
    with torch.no_grad():
        for parameter in trained_parameters(pipeline.unet).values():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("adapter")
    save_lora(FAMILY, pipeline, folder)
    return pipeline, folder


def _images(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    settings = SampleSettings(steps=2, guidance=2.0, size=32)
    captions = ["the heart is large", "the lungs are clear"]
    images = FAMILY.sample(pipeline, captions, [1, 2], settings)
    return np.stack([np.asarray(image) for image in images])


def test_a_new_adapter_changes_nothing(tiny_sd):
    plain, adapted = FAMILY.load(tiny_sd[1]), FAMILY.load(tiny_sd[1])
    add_lora(adapted.unet, FAMILY, LORA)
    assert np.array_equal(_images(plain), _images(adapted))


def test_outputs_before_saving_and_after_loading_are_equal(adapted, tiny_sd):
    pipeline, folder = adapted
    loaded = FAMILY.load(tiny_sd[1])
    base = _images(loaded)
    load_lora(FAMILY, loaded, folder)
    config = loaded.unet.peft_config["default"]
    assert (config.r, config.lora_alpha, config.use_rslora) == (4, 4, True)
    images = _images(loaded)
    assert np.array_equal(images, _images(pipeline))
    assert np.abs(images.astype(int) - base).max() > 2  # of a decoder that shows little


def test_a_plain_diffusers_user_gets_the_same_images(adapted, tiny_sd):
    from diffusers import StableDiffusionPipeline

    pipeline, folder = adapted
    theirs = StableDiffusionPipeline.from_pretrained(tiny_sd[1].folder, safety_checker=None)
    theirs.load_lora_weights(folder)
    assert np.array_equal(_images(theirs), _images(pipeline))


def test_only_the_layers_named_get_weights_of_the_rank(adapted):
    parameters = trained_parameters(adapted[0].unet)
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in parameters}
    assert layers == {"to_q", "to_k", "to_v"}
    assert {min(p.shape) for p in parameters.values()} == {LORA.rank}
    assert all(p.dtype == torch.float32 for p in parameters.values())


def test_a_target_that_matches_nothing_is_refused_by_name(tiny_sd):
    unet = FAMILY.load(tiny_sd[1]).unet
    wrong = LoraSettings(4, 4, True, ("attention", "attn.to_query"))
    with pytest.raises(InputError, match=r"no layer of the unet: attn\.to_query") as caught:
        add_lora(unet, FAMILY, wrong)
    assert "to_q" in str(caught.value)


def test_a_family_whose_pipeline_cannot_save_lora_is_refused(toy):
    with pytest.raises(InputError, match="cannot save LoRA weights"):
        module_endings(toy.family, ["attention"])


def test_a_file_that_does_not_say_its_scale_is_refused(adapted, tiny_sd, tmp_path):
    save_file(load_file(adapted[1] / LORA_FILE), tmp_path / LORA_FILE)
    with pytest.raises(InputError, match="does not state its rank"):
        load_lora(FAMILY, FAMILY.load(tiny_sd[1]), tmp_path)


def test_an_adapter_of_another_base_is_refused(adapted, tiny_sd):
    with pytest.raises(InputError, match="LoRA"):
        load_lora(FAMILY, FAMILY.load(tiny_sd[2]), adapted[1])


def test_training_lowers_the_loss_and_writes_the_adapter_alone(tiny_sd, check_lora_lowers_the_loss):
    check_lora_lowers_the_loss(
        FAMILY, tiny_sd[1], steps=60, ema_decay=0.9, gradient_checkpointing=True
    )


def test_a_folder_of_another_library_is_refused(tiny_sd, adapted, tmp_path):
    shutil.copytree(adapted[1], tmp_path / "adapter")
    (tmp_path / "adapter" / LORA_FILE).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        load_lora(FAMILY, FAMILY.load(tiny_sd[1]), tmp_path / "adapter")


def test_the_file_carries_the_whole_config(adapted):
    with (adapted[1] / LORA_FILE).open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    stored = json.loads(header["__metadata__"]["lora_adapter_metadata"])
    assert stored["unet.r"] == 4
    assert stored["unet.use_rslora"] is True
