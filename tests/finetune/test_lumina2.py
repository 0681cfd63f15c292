"""Lumina Image 2.0: what it learns, what its network is told, and which checkpoints it refuses."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.lumina2 import Lumina2, noise_levels
from workflow_scripts.finetune.families.parts import draw_latents
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.lora import (
    LoraSettings,
    add_lora,
    load_lora,
    save_lora,
    trained_parameters,
)
from workflow_scripts.world.diffusion import tiny_vae, train_vae
from workflow_scripts.world.tiny_lumina2 import TEXT_TOKENS, TEXT_WIDTH, write_tiny_lumina2

FAMILY = Lumina2()
SIDE = 64
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def pixels(two_images):
    """The two images as the VAE takes them."""
    large = [Image.fromarray(image).resize((SIDE, SIDE)) for image in two_images.values()]
    shown = torch.from_numpy(np.stack([np.asarray(image) for image in large])).float()
    return (shown / 127.5 - 1)[:, None].repeat(1, 3, 1, 1)


@pytest.fixture(scope="session")
def tiny_lumina2(tmp_path_factory, two_images, pixels):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = train_vae(pixels, 100, 4, tiny_vae(16, 4, False))
    folder = tmp_path_factory.mktemp("tiny_lumina2") / "lumina2"
    write_tiny_lumina2(list(two_images), vae, folder)
    return Base(folder)


@pytest.fixture(scope="module")
def pipeline(tiny_lumina2):
    """The base, untrained. Tests must leave it as it is."""
    loaded = FAMILY.load(tiny_lumina2)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def folder(tiny_lumina2, tmp_path):
    """A copy of the checkpoint to damage."""
    return shutil.copytree(tiny_lumina2.folder, tmp_path / "base")


def test_overfits_until_samples_show_the_image_of_their_caption(tiny_lumina2, check_overfits):
    check_overfits(FAMILY, tiny_lumina2, 120, 8, sampling=15, size=SIDE, learning_rate=3e-3)


def test_lora_alone_lowers_the_loss(tiny_lumina2, check_lora_lowers_the_loss):
    check_lora_lowers_the_loss(FAMILY, tiny_lumina2, 20, size=SIDE)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        # 6 u / (1 + 5 u) at u = 0.05, 0.25, 0.5, 0.75, 0.95.
        (6.0, [0.24, 0.6667, 0.8571, 0.9474, 0.9913]),
        (1.0, [0.05, 0.25, 0.5, 0.75, 0.95]),
    ],
)
def test_noise_levels_are_uniform_and_shifted_as_the_scheduler_says(shift, expected):
    scheduler = SimpleNamespace(config=SimpleNamespace(shift=shift))
    sigma = noise_levels(SimpleNamespace(scheduler=scheduler), Draws(3, 7, range(4000), CPU))
    found = sigma.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    assert torch.allclose(found, torch.tensor(expected), atol=0.025)
    assert sigma.min() > 0
    assert sigma.max() <= 1


class Recorder:
    """A network that answers with what it is told to, and keeps what it was given."""

    def __init__(self, answer=0.0):
        self.answer = answer

    def __call__(self, **given):
        self.given = given
        return (given["hidden_states"] * 0 + self.answer,)


def _told(pipeline, pixels, captions, network):
    draws = Draws(5, 2, range(2), CPU)
    with torch.no_grad():
        encoded = FAMILY.encode_images(pipeline, pixels)
        conditions = FAMILY.encode_captions(pipeline, captions)
        return encoded, FAMILY.loss(pipeline, network, encoded, conditions, draws)


def test_the_network_is_told_one_minus_sigma_and_asked_for_clean_minus_noise(
    pipeline, pixels, two_images
):
    network = Recorder()
    encoded, loss = _told(pipeline, pixels, list(two_images), network)
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    uniform = 1 - draws.uniform()
    sigma = 6 * uniform / (1 + 5 * uniform)
    given = network.given
    assert torch.allclose(given["timestep"], 1 - sigma)
    level = sigma[:, None, None, None]
    assert torch.allclose(given["hidden_states"], (1 - level) * clean + level * noise)
    assert torch.allclose(loss, (clean - noise).square().mean(dim=(1, 2, 3)))
    _, none_left = _told(pipeline, pixels, list(two_images), Recorder(clean - noise))
    assert torch.equal(none_left, torch.zeros(2))


def test_a_network_that_answers_so_leads_the_pipeline_to_the_image(pipeline):
    """The pipeline's own sampling has the sign and the time of the training target."""
    clean = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    start = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(2))
    times = []

    class Perfect(type(pipeline.transformer)):
        def forward(self, hidden_states, timestep, **_):
            times.append(float(timestep[0]))
            sigma = 1 - timestep.view(-1, 1, 1, 1)
            return ((clean - hidden_states) / sigma,)

    network = Perfect.from_config(pipeline.transformer.config)
    sampler = type(pipeline)(**{**pipeline.components, "transformer": network})
    sampler.set_progress_bar_config(disable=True)
    found = sampler(
        "any",
        height=SIDE,
        width=SIDE,
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=start,
        max_sequence_length=TEXT_TOKENS,
        output_type="latent",
    ).images
    assert torch.allclose(found, clean, atol=1e-4)
    assert times[0] == 0
    assert times == sorted(times)


def test_the_network_is_told_the_text_and_where_it_ends(pipeline, pixels, two_images):
    network = Recorder()
    _told(pipeline, pixels, [next(iter(two_images)), ""], network)
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


def test_an_image_follows_from_its_prompt_seed_size_and_guidance(pipeline):
    captions = ["the heart is large", "the lungs are clear"]
    images = _sampled(pipeline, captions, [1, 1])
    torch.manual_seed(99)
    assert np.array_equal(images, _sampled(pipeline, captions, [1, 1]))
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], _sampled(pipeline, captions, [2, 1])[0])
    assert not np.array_equal(images, _sampled(pipeline, captions, [1, 1], guidance=1.0))
    assert _sampled(pipeline, captions, [1, 1], size=48).shape == (2, 48, 48, 3)


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


@pytest.mark.parametrize("size", [0, 40, 72])
def test_a_size_that_is_no_whole_number_of_patches_is_refused(size, pipeline):
    with pytest.raises(InputError, match="multiples of 16"):
        FAMILY.encoded_shape(pipeline, size)
    with pytest.raises(InputError, match="multiples of 16"):
        _sampled(pipeline, ["the heart is large"], [1], size=size)


def test_the_encoded_shape_is_that_of_the_moments(pipeline, pixels):
    with torch.no_grad():
        encoded = FAMILY.encode_images(pipeline, pixels)
    assert encoded.shape == (2, *FAMILY.encoded_shape(pipeline, SIDE)) == (2, 32, 8, 8)


@pytest.mark.parametrize(
    ("position", "layers"),
    # 5 blocks (a refiner of the text, one of the image, three joint ones), each with 3 projections
    # of attention and a gated MLP of 3 layers.
    [("attention", 5 * 3), ("attention_mlp", 5 * (3 + 3))],
)
def test_lora_takes_its_place_and_comes_back_from_its_file(
    position, layers, tiny_lumina2, tmp_path
):
    trained = FAMILY.load(tiny_lumina2)
    torch.manual_seed(0)
    add_lora(trained.transformer, FAMILY, LoraSettings(4, 4, True, (position,)))
    factors = trained_parameters(trained.transformer)
    assert len(factors) == 2 * layers
    with torch.no_grad():
        for factor in factors.values():
            factor.copy_(0.3 * torch.randn_like(factor))
    save_lora(FAMILY, trained, tmp_path)
    loaded = FAMILY.load(tiny_lumina2)
    load_lora(FAMILY, loaded, tmp_path)
    for each in (trained, loaded):
        each.set_progress_bar_config(disable=True)
    shown = _sampled(loaded, ["the heart is large"], [1])
    assert np.array_equal(shown, _sampled(trained, ["the heart is large"], [1]))


def test_a_bfloat16_network_trains_its_float32_adapter(tiny_lumina2, pixels, two_images):
    pipeline = FAMILY.load(tiny_lumina2, network_dtype=torch.bfloat16)
    torch.manual_seed(0)
    add_lora(pipeline.transformer, FAMILY, LoraSettings(4, 4, True, ("attention_mlp",)))
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            encoded = FAMILY.encode_images(pipeline, pixels)
            conditions = FAMILY.encode_captions(pipeline, list(two_images))
        draws = Draws(5, 2, range(2), CPU)
        loss = FAMILY.loss(pipeline, pipeline.transformer, encoded, conditions, draws)
    assert loss.dtype == torch.float32
    assert loss.shape == (2,)
    loss.mean().backward()
    gradients = [p.grad for p in trained_parameters(pipeline.transformer).values()]
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients)


def _change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _remove(folder):
    (folder / "text_encoder" / "model.safetensors").unlink()


def _truncate(folder):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _point(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _other_gemma(folder):
    _change(folder / "text_encoder" / "config.json", hidden_size=48)


def _other_vae(folder):
    _change(folder / "vae" / "config.json", latent_channels=4)


def _shallow_vae(folder):
    _change(folder / "vae" / "config.json", block_out_channels=[8, 16, 16])


def _unshifted_vae(folder):
    _change(folder / "vae" / "config.json", shift_factor=None)


def _no_tokenizer(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()


def _other_scheduler(folder):
    _change(folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")


def _dynamic_shift(folder):
    _change(folder / "scheduler" / "scheduler_config.json", use_dynamic_shifting=True)


def _no_shift(folder):
    _change(folder / "scheduler" / "scheduler_config.json", shift=None)


def _other_pipeline(folder):
    _change(folder / "model_index.json", _class_name="LuminaPipeline")


def _no_gemma(folder):
    _change(folder / "model_index.json", text_encoder=[None, None])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_remove, "text_encoder/model.safetensors"),
        (_truncate, "transformer/diffusion_pytorch_model.safetensors"),
        (_point, "git lfs pull"),
        (_other_gemma, "values per token of the text encoder, taken by the transformer: 48 and 32"),
        (_other_vae, "latent channels of the VAE, taken by the transformer: 4 and 16"),
        (_shallow_vae, "levels of the VAE, taken by the pipeline: 3 and 4"),
        (_unshifted_vae, "shift_factor"),
        (_no_tokenizer, "tokenizer"),
        (_other_scheduler, "DDIMScheduler"),
        (_dynamic_shift, "no fixed `shift`"),
        (_no_shift, "no fixed `shift`"),
        (_other_pipeline, "LuminaPipeline"),
        (_no_gemma, "no text_encoder"),
    ],
)
def test_a_wrong_base_is_refused_by_name(damage, told, folder):
    FAMILY.check(Base(folder))
    damage(folder)
    with pytest.raises(InputError) as caught:
        FAMILY.check(Base(folder))
    assert told in str(caught.value)


def test_a_missing_and_an_unexpected_key_are_refused(folder):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["x_embedder.renamed"] = state.pop("x_embedder.bias")
    save_file(state, path)
    with pytest.raises(
        InputError, match=r"missing: x_embedder\.bias.*unexpected: x_embedder\.renamed"
    ):
        FAMILY.load(Base(folder))
