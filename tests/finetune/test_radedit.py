"""RadEdit: put together from its published parts, and what its UNet is told about a caption."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.finetune.damage import check_refused, edit, edited, pointer, removed, rename_key
from workflow_scripts.common.errors import InputError
from workflow_scripts.features.encoders import biovil_t_text
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.radedit import RadEdit
from workflow_scripts.finetune.layout import Base
from workflow_scripts.world.diffusion import tiny_vae
from workflow_scripts.world.encoders import BIOVIL_T, write_encoder_checkpoints
from workflow_scripts.world.tiny_radedit import write_tiny_radedit

FAMILY = RadEdit()
UNET = "unet/diffusion_pytorch_model.safetensors"
CAPTIONS = ["The heart is large.", "No pleural effusion."]
SETTINGS = SampleSettings(steps=3, guidance=4.0, size=32)


@pytest.fixture(scope="session")
def tiny_radedit(tmp_path_factory):
    """A folder with `radedit`, `sdxl-vae` and `biovil-t`, all nearly untrained."""
    root = tmp_path_factory.mktemp("radedit")
    n = 4
    write_encoder_checkpoints(
        np.random.default_rng(0).integers(0, 256, (n, 64, 64), dtype=np.uint8),
        CAPTIONS * 2,
        np.eye(n, 14, dtype=np.int8),
        ["a", "a", "b", "b"],
        root,
        seed=0,
        effort=0.0,
    )
    torch.manual_seed(0)
    write_tiny_radedit(tiny_vae(), root)
    return root


def base_of(root, **parts):
    return Base(
        root / "radedit",
        {"vae": root / "sdxl-vae", "text_encoder": root / BIOVIL_T, **parts},
    )


@pytest.fixture(scope="session")
def pipeline(tiny_radedit):
    loaded = FAMILY.load(base_of(tiny_radedit))
    loaded.set_progress_bar_config(disable=True)
    return loaded


def sampled(pipeline, captions, seeds, settings=SETTINGS):
    images = FAMILY.sample(pipeline, captions, seeds, settings)
    return [np.asarray(image) for image in images]


def seen_by_the_unet(pipeline, captions, guidance):
    """Return the text conditions (n, tokens, width) of the first denoising step."""
    seen = []
    handle = pipeline.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    try:
        sampled(pipeline, captions, range(len(captions)), SampleSettings(1, guidance, 32))
    finally:
        handle.remove()
    return seen[0]


def test_samples_have_the_size_and_depend_on_caption_and_seed_alone(pipeline):
    torch.manual_seed(1)
    first, second = sampled(pipeline, [CAPTIONS[0]] * 2, [7, 8])
    torch.manual_seed(2)
    again, other = sampled(pipeline, CAPTIONS, [7, 7])
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(again, other)
    assert sampled(pipeline, CAPTIONS[:1], [7], SampleSettings(1, 1.0, 64))[0].shape == (64, 64, 3)


def test_images_are_decoded_in_float32_beside_half_the_precision(tiny_radedit, pipeline):
    assert FAMILY.decodes_in_float32
    half = FAMILY.load(base_of(tiny_radedit), torch.bfloat16, vae_dtype=torch.float32)
    half.set_progress_bar_config(disable=True)
    seen = []
    half.vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    found = sampled(half, CAPTIONS[:1], [7])[0]
    assert seen == [torch.float32]
    assert half.unet.dtype == torch.bfloat16
    exact, other = sampled(pipeline, CAPTIONS[:1], [7])[0], sampled(pipeline, CAPTIONS[:1], [8])[0]
    away = np.abs(found.astype(float) - exact).mean()
    assert away < 0.2 * np.abs(other.astype(float) - exact).mean()


def test_conditions_are_the_text_encoders_states_over_all_128_positions(pipeline, tiny_radedit):
    captions = [*CAPTIONS, "heart " * 200]
    given = seen_by_the_unet(pipeline, captions, guidance=1.0)
    # The same weights through the features' encoder, which shares no code with the family.
    reference = biovil_t_text.load(tiny_radedit / BIOVIL_T, torch.device("cpu"), None, "")
    ids = torch.zeros(3, 128, dtype=torch.int64)
    for row, caption in zip(ids, captions, strict=True):
        tokens = reference.tokenizer(caption)["input_ids"]
        tokens = tokens if len(tokens) <= 128 else [*tokens[:127], tokens[-1]]
        row[: len(tokens)] = torch.tensor(tokens)
    assert int(ids[0, -1]) == 0  # padding
    with torch.inference_mode():
        attended = reference.network.bert(
            input_ids=ids, attention_mask=torch.ones_like(ids)
        ).last_hidden_state
        masked = reference.network.bert(
            input_ids=ids, attention_mask=(ids != 0).long()
        ).last_hidden_state
    assert given.shape == (3, 128, 48)
    torch.testing.assert_close(given, attended, rtol=0, atol=1e-5)
    assert float((given[0] - masked[0]).abs().max()) > 1e-3


def test_guidance_steers_away_from_the_empty_caption(pipeline):
    empty = seen_by_the_unet(pipeline, [""], guidance=1.0)
    unconditional, conditional = seen_by_the_unet(pipeline, CAPTIONS[:1], guidance=4.0)
    torch.testing.assert_close(unconditional, empty[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        conditional, seen_by_the_unet(pipeline, CAPTIONS[:1], 1.0)[0], rtol=0, atol=1e-5
    )
    assert float((conditional - unconditional).abs().max()) > 1e-3


def test_the_noise_schedule_is_the_official_releases(pipeline):
    scheduler = pipeline.scheduler
    torch.testing.assert_close(scheduler.betas, torch.linspace(1e-4, 2e-2, 1000))
    scheduler.set_timesteps(100)
    # Trailing: the first step starts from pure noise, steps are ten apart.
    assert scheduler.timesteps.tolist() == list(range(999, 0, -10))
    assert scheduler.config.prediction_type == "epsilon"
    assert not scheduler.config.clip_sample
    assert scheduler.config.steps_offset == 1


def test_published_pickled_weights_and_tokenizer_config_load_alike(
    pipeline, tiny_radedit, tmp_path
):
    """BiomedVLP-BioViL-T publishes pytorch_model.bin and a tokenizer that asks for remote code."""
    text = tmp_path / "biovil-t"
    shutil.copytree(tiny_radedit / BIOVIL_T, text)
    state = load_file(text / "model.safetensors")
    state["bert.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save(state, text / "pytorch_model.bin")
    (text / "model.safetensors").unlink()
    edit(
        text / "tokenizer_config.json",
        tokenizer_class="CXRBertTokenizer",
        auto_map={"AutoTokenizer": ["configuration_cxrbert.CXRBertTokenizer", None]},
    )
    base = base_of(tiny_radedit, text_encoder=text)
    assert text / "pytorch_model.bin" in FAMILY.check(base)
    loaded = FAMILY.load(base)
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(sampled(loaded, CAPTIONS, [1, 2]), sampled(pipeline, CAPTIONS, [1, 2]))


def test_the_tokenizer_may_lie_elsewhere(pipeline, tiny_radedit, tmp_path):
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(tiny_radedit / BIOVIL_T / name, tmp_path)
    base = base_of(tiny_radedit, tokenizer=tmp_path)
    assert tmp_path / "vocab.txt" in FAMILY.check(base)
    assert tiny_radedit / BIOVIL_T / "vocab.txt" not in FAMILY.check(base)
    tokenizer = FAMILY.load(base).tokenizer
    assert tokenizer(CAPTIONS)["input_ids"] == pipeline.tokenizer(CAPTIONS)["input_ids"]


def test_it_is_not_fine_tuned():
    with pytest.raises(InputError, match="not fine-tuned"):
        FAMILY.encode_captions(None, CAPTIONS)


def _no_vae(root):
    shutil.rmtree(root / "sdxl-vae")


def _other_vocabulary(root):
    path = root / BIOVIL_T / "vocab.txt"
    path.write_text(path.read_text() + "another\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_no_vae, "parts.vae"),
        (removed(f"radedit/{UNET}"), UNET),
        (pointer(f"{BIOVIL_T}/model.safetensors"), "git lfs pull"),
        (edited(f"{BIOVIL_T}/config.json", hidden_size=96), "taken by the UNet: 96 and 48"),
        (
            edited("sdxl-vae/config.json", latent_channels=16),
            "latent channels of the VAE, taken by the UNet: 16 and 4",
        ),
        (edited(f"{BIOVIL_T}/config.json", max_position_embeddings=64), "64 positions"),
        (_other_vocabulary, "words of the tokenizer and of the text encoder"),
    ],
)
def test_a_wrong_part_is_refused_by_name(damage, told, tiny_radedit, tmp_path):
    root = shutil.copytree(tiny_radedit, tmp_path / "copy")
    check_refused(FAMILY, root, damage, told, base_of)


def test_a_missing_and_an_unexpected_key_are_refused(tiny_radedit, tmp_path):
    text = shutil.copytree(tiny_radedit / BIOVIL_T, tmp_path / "biovil-t")
    path = text / "model.safetensors"
    rename_key(path, "bert.embeddings.LayerNorm.weight", "bert.renamed.weight")
    with pytest.raises(
        InputError, match=r"missing: embeddings\.LayerNorm\.weight.*unexpected: renamed\.weight"
    ):
        FAMILY.load(base_of(tiny_radedit, text_encoder=text))
