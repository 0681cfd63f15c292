"""Preflight builds every model that will run, without its weights: it finds what jobs would."""

import json
import shutil

import pytest
import torch

from tests.finetune.damage import edit, rename_key
from workflow_scripts.common.checkpoints import headers_only
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.layout import Base
from workflow_scripts.preflight.check import check_model, check_sampling

STAGES = {"finetune", "generate"}
LORA = {"rank": 4, "alpha": 4, "rslora": True, "targets": ["attention"]}
FAMILIES = ["flux", "lumina2", "pixart_sigma", "sana", "stable_diffusion_3"]


def block(family="stable_diffusion", finetune=None, **generate):
    """A model's block of the config."""
    given = {"steps": 2, "guidance": 2.0, "size": 64, "batch_size": 1, **generate}
    tuned = {"method": "full", "size": 64, **finetune} if finetune is not None else None
    return {"family": family, "finetune": tuned, "generate": given}


@pytest.fixture
def sd(tiny_sd, tmp_path):
    """A Stable Diffusion that may be damaged."""
    return shutil.copytree(tiny_sd[1].folder, tmp_path / "sd")


@pytest.fixture
def no_values(monkeypatch):
    """Reading a tensor's values fails."""
    import safetensors.torch

    def refuse(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr(safetensors.torch, "load_file", refuse)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_transformer_is_built_on_the_meta_device(name, base_of, no_values):
    base = base_of(name)
    check_model(base.folder, block(name, {"size": 64}), STAGES)
    with headers_only():
        pipeline = get_family(name).load(base)
    parts = [part for part in vars(pipeline).values() if isinstance(part, torch.nn.Module)]
    assert len(parts) >= 3
    assert {p.device.type for part in parts for p in part.parameters()} == {"meta"}


def test_stable_diffusion_is_built_without_its_weights(sd, no_values):
    check_model(sd, block(finetune={"lora": LORA, "method": "lora"}), STAGES)
    check_model(sd, block("diffusers"), STAGES)


def as_jobs_find(family, folder):
    with pytest.raises(InputError) as caught:
        get_family(family).load(Base(folder))
    return str(caught.value)


def as_preflight_finds(family, folder):
    with pytest.raises(InputError) as caught:
        check_model(folder, block(family), STAGES)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.bias"),
        ("unet/diffusion_pytorch_model.safetensors", "conv_in.weight"),
        ("text_encoder/model.safetensors", "text_model.final_layer_norm.bias"),
    ],
)
def test_a_key_of_any_component_is_missed_as_a_job_misses_it(file, key, sd):
    from workflow_scripts.common.checkpoints import safetensors_shapes

    found = next(k for k in safetensors_shapes(sd / file) if k.endswith(key.split(".", 1)[1]))
    rename_key(sd / file, found, "renamed")
    told = as_preflight_finds("stable_diffusion", sd)
    assert "1 missing: " in told
    assert "unexpected: renamed" in told
    assert told == as_jobs_find("stable_diffusion", sd)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_key_of_a_transformer_is_missed_as_a_job_misses_it(name, base_of, tmp_path):
    folder = shutil.copytree(base_of(name).folder, tmp_path / "base")
    layer = "x_embedder" if name in ("flux", "lumina2") else "proj_out"
    file = folder / "transformer/diffusion_pytorch_model.safetensors"
    rename_key(file, f"{layer}.bias", "renamed")
    assert as_preflight_finds(name, folder) == as_jobs_find(name, folder)


def test_a_tensor_of_another_shape_is_named(sd):
    edit(sd / "vae/config.json", block_out_channels=[8, 16, 32])
    with pytest.raises(InputError, match=r"keys of AutoencoderKL: .*\d+ of another shape: "):
        check_model(sd, block(), STAGES)


def test_a_folder_of_another_class_is_named(base_of, sd):
    shutil.rmtree(sd / "vae")
    shutil.copytree(base_of("sana").folder / "vae", sd / "vae")
    config = json.loads((sd / "unet/config.json").read_text())
    edit(sd / "vae/config.json", latent_channels=config["in_channels"])
    with pytest.raises(InputError, match=r"AutoencoderKL.*a folder that holds AutoencoderDC"):
        check_model(sd, block(), STAGES)


def test_a_scheduler_and_a_tokenizer_that_cannot_be_made_are_named(sd):
    edit(sd / "scheduler/scheduler_config.json", beta_schedule="none such")
    with pytest.raises(InputError, match=r"cannot be made: none such[\s\S]*scheduler_config"):
        check_model(sd, block(), STAGES)
    edit(sd / "scheduler/scheduler_config.json", beta_schedule="linear")
    (sd / "tokenizer/merges.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="CLIPTokenizer cannot be loaded"):
        check_model(sd, block(), STAGES)


def test_lora_targets_that_match_nothing_are_found_before_a_gpu_is_asked_for(sd):
    tuned = {"method": "lora", "lora": {**LORA, "targets": ["attention", "to_quary"]}}
    with pytest.raises(InputError, match="match no layer of the unet: to_quary"):
        check_model(sd, block(finetune=tuned), STAGES)


@pytest.mark.parametrize(
    ("name", "size", "works_at"),
    [
        ("stable_diffusion", 65, 8),
        ("stable_diffusion", 500, 8),
        ("stable_diffusion_3", 72, 16),
        ("flux", 72, 16),
        ("lumina2", 72, 16),
        ("sana", 72, 32),
    ],
)
@pytest.mark.parametrize("stage", ["finetune", "generate"])
def test_a_size_that_no_network_takes_is_named(name, size, works_at, stage, base_of, tiny_sd):
    base = tiny_sd[1] if name == "stable_diffusion" else base_of(name)
    given = block(name, {"size": size}) if stage == "finetune" else block(name, size=size)
    with pytest.raises(InputError, match=f"multiple of {works_at}") as caught:
        check_model(base.folder, given, {stage})
    assert caught.value.where == f"{stage}.size"


def test_a_tokenizer_with_more_tokens_than_the_encoder_knows_is_refused(base_of, tmp_path):
    folder = shutil.copytree(base_of("sana").folder, tmp_path / "base")
    path = folder / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text())
    token = content["added_tokens"][-1]
    vocabulary = content["model"]["vocab"]
    content["added_tokens"] += [
        {**token, "id": len(vocabulary) + i, "content": f"<more{i}>"} for i in range(3)
    ]
    path.write_text(json.dumps(content))
    known = json.loads((folder / "text_encoder/config.json").read_text())["vocab_size"]
    message = f"knows {known + 3} tokens, but its text encoder only {known}"
    with pytest.raises(InputError, match=message):
        check_model(folder, block("sana"), STAGES)


@pytest.mark.parametrize(
    ("family", "generate", "told"),
    [
        ("stable_diffusion", {"size": 500}, "multiple of 8"),
        ("stable_diffusion", {"steps": None}, "0 denoising steps"),
        ("stable_diffusion", {"guidance": None}, "no guidance scale"),
        ("stable_diffusion", {"options": {"eta": 1.0}}, "no option eta"),
        ("lumina2", {"options": {"cfg_trunc_ration": 0.25}}, "known: cfg_trunc_ratio"),
        ("lumina2", {"options": {"cfg_normalization": 0.5}}, "is true or false, not 0.5"),
        ("lumina2", {"options": {"cfg_trunc_ratio": True}}, "is a number, not True"),
        ("llm_cxr", {"options": {"top_p": 1.5}}, "0 < top_p <= 1"),
    ],
)
def test_how_images_are_sampled_is_checked_without_files(family, generate, told):
    given = block(family, **generate)
    given["generate"] = {k: v for k, v in given["generate"].items() if v is not None}
    with pytest.raises(InputError, match=told):
        check_sampling(given)
    check_sampling(block("lumina2", options={"cfg_normalization": False, "cfg_trunc_ratio": 1}))
