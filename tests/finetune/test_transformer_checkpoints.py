"""The checkpoints of diffusion transformers that their families refuse, by name."""

import shutil

import pytest

from tests.finetune.damage import check_refused, edited, pointer, removed, rename_key, truncated
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.layout import Base

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
# What each family asks of a checkpoint beyond whole files.
WRONG = {
    "flux": [
        (removed("text_encoder_2/model.safetensors"), "text_encoder_2/model.safetensors"),
        (pointer("text_encoder_2/model.safetensors"), "git lfs pull"),
        (
            edited("text_encoder_2/config.json", d_model=64),
            "T5, taken by the transformer: 64 and 32",
        ),
        (
            edited("text_encoder/config.json", hidden_size=32),
            "pooled vector, taken by the transformer: 32 and 48",
        ),
        (edited("vae/config.json", latent_channels=4), "16 and 64"),
        (edited("text_encoder/config.json", vocab_size=10), "text_encoder only 10"),
        (removed("tokenizer_2/tokenizer.json"), "tokenizer_2"),
        (edited(SCHEDULER, _class_name="DDIMScheduler"), "DDIMScheduler"),
        (edited("model_index.json", _class_name="FluxFillPipeline"), "FluxFillPipeline"),
        (edited("model_index.json", text_encoder_2=[None, None]), "no text_encoder_2"),
    ],
    "lumina2": [
        (removed("text_encoder/model.safetensors"), "text_encoder/model.safetensors"),
        (pointer("vae/diffusion_pytorch_model.safetensors"), "git lfs pull"),
        (
            edited("text_encoder/config.json", hidden_size=48),
            "values per token of the text encoder, taken by the transformer: 48 and 32",
        ),
        (
            edited("vae/config.json", latent_channels=4),
            "latent channels of the VAE, taken by the transformer: 4 and 16",
        ),
        (
            edited("vae/config.json", block_out_channels=[8, 16, 16]),
            "levels of the VAE, taken by the pipeline: 3 and 4",
        ),
        (edited("vae/config.json", shift_factor=None), "shift_factor"),
        (removed("tokenizer/tokenizer.json"), "tokenizer"),
        (edited(SCHEDULER, _class_name="DDIMScheduler"), "DDIMScheduler"),
        (edited(SCHEDULER, use_dynamic_shifting=True), "no fixed `shift`"),
        (edited(SCHEDULER, shift=None), "no fixed `shift`"),
        (edited("model_index.json", _class_name="LuminaPipeline"), "LuminaPipeline"),
        (edited("model_index.json", text_encoder=[None, None]), "no text_encoder"),
    ],
    "pixart_sigma": [(edited("transformer/config.json", caption_channels=48), "32 and 48")],
    "sana": [
        (removed("text_encoder/model.safetensors"), "text_encoder/model.safetensors"),
        (pointer("vae/diffusion_pytorch_model.safetensors"), "git lfs pull"),
        (
            edited("text_encoder/config.json", hidden_size=48),
            "text encoder, taken by the transformer: 48 and 32",
        ),
        (
            edited("vae/config.json", latent_channels=32),
            "latent channels of the VAE, taken by the transformer: 32 and 8",
        ),
        (
            edited("transformer/config.json", out_channels=16),
            "takes and that it predicts: 8 and 16",
        ),
        (edited("transformer/config.json", guidance_embeds=True), "Sana-Sprint"),
        (edited("model_index.json", _class_name="SanaSprintPipeline"), "SanaSprintPipeline"),
        (removed("tokenizer/tokenizer.json"), "tokenizer.model"),
        (removed(SCHEDULER), SCHEDULER),
        (
            edited(SCHEDULER, prediction_type="epsilon"),
            "'epsilon') is not one for flow matching",
        ),
        (edited(SCHEDULER, use_flow_sigmas=False), "is not one for flow matching"),
        (edited(SCHEDULER, flow_shift=None), "no `flow_shift`"),
    ],
    "stable_diffusion_3": [
        (edited("text_encoder_2/config.json", projection_dim=8), "both CLIP"),
        (edited("text_encoder_3/config.json", d_model=8), "text_encoder_3"),
    ],
}


@pytest.fixture
def copy_of(base_of, tmp_path):
    """Copy a family's checkpoint, to damage it."""
    return lambda name: shutil.copytree(base_of(name).folder, tmp_path / "base")


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (removed(WEIGHTS), WEIGHTS),
        (pointer(WEIGHTS), "git lfs pull"),
        (truncated(WEIGHTS), WEIGHTS),
    ],
    ids=["removed", "pointer", "truncated"],
)
def test_a_missing_cut_or_pointing_file_is_named(name, damage, told, copy_of):
    check_refused(get_family(name), copy_of(name), damage, told)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [(name, damage, told) for name, rows in WRONG.items() for damage, told in rows],
)
def test_a_wrong_base_is_refused_by_name(name, damage, told, copy_of):
    check_refused(get_family(name), copy_of(name), damage, told)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        *(("flux", "x_embedder"), ("lumina2", "x_embedder")),
        *(("pixart_sigma", "proj_out"), ("sana", "proj_out"), ("stable_diffusion_3", "proj_out")),
    ],
)
def test_a_missing_and_an_unexpected_key_are_refused(name, layer, copy_of):
    folder = copy_of(name)
    rename_key(folder / WEIGHTS, f"{layer}.bias", f"{layer}.renamed")
    told = rf"missing: {layer}\.bias.*unexpected: {layer}\.renamed"
    with pytest.raises(InputError, match=told):
        get_family(name).load(Base(folder))
