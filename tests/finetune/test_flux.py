"""FLUX.1: what it learns, what its network is told, and which checkpoints it refuses."""

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
from workflow_scripts.finetune.families.flux import Flux, noise_levels
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
from workflow_scripts.world.tiny_flux import write_tiny_flux

FAMILY = Flux()
SIDE = 64
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def pixels(two_images):
    """The two images as the VAE takes them."""
    large = [Image.fromarray(image).resize((SIDE, SIDE)) for image in two_images.values()]
    shown = torch.from_numpy(np.stack([np.asarray(image) for image in large])).float()
    return (shown / 127.5 - 1)[:, None].repeat(1, 3, 1, 1)


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory, two_images, pixels):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = train_vae(pixels, 100, 4, tiny_vae(16, 4, False))
    folder = tmp_path_factory.mktemp("tiny_flux") / "flux"
    write_tiny_flux(list(two_images), vae, folder)
    return Base(folder)


@pytest.fixture(scope="module")
def pipeline(tiny_flux):
    """The base, untrained. Tests must leave it as it is."""
    loaded = FAMILY.load(tiny_flux)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def folder(tiny_flux, tmp_path):
    """A copy of the checkpoint to damage."""
    return shutil.copytree(tiny_flux.folder, tmp_path / "base")


def test_overfits_until_samples_show_the_image_of_their_caption(tiny_flux, check_overfits):
    check_overfits(FAMILY, tiny_flux, 300, 8, sampling=15, size=SIDE, learning_rate=3e-3)


def test_lora_alone_lowers_the_loss(tiny_flux, check_lora_lowers_the_loss):
    check_lora_lowers_the_loss(FAMILY, tiny_flux, 20, size=SIDE)


def test_noise_levels_are_logit_normal_without_shift():
    sigma = noise_levels(Draws(3, 7, range(4000), CPU))
    # 1 / (1 + exp(-z)) at the normal's 5 %, 25 %, 50 %, 75 % and 95 %: z = -1.645, -0.674, ...
    expected = torch.tensor([0.1618, 0.3375, 0.5, 0.6625, 0.8382])
    found = sigma.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    assert torch.allclose(found, expected, atol=0.02)
    assert sigma.min() > 0
    assert sigma.max() < 1


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


def _by_hand(pipeline, encoded):
    """Draw what the loss drew, in its order, and pack it token by token."""
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    sigma = draws.normal(()).sigmoid()

    def packed(latents):
        tokens = [
            latents[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1)
            for row in range(SIDE // 16)
            for column in range(SIDE // 16)
        ]
        return torch.stack(tokens, dim=1)

    return packed(clean), packed(noise), sigma


def test_the_network_is_told_sigma_and_asked_for_noise_minus_clean(pipeline, pixels, two_images):
    network = Recorder()
    encoded, loss = _told(pipeline, pixels, list(two_images), network)
    clean, noise, sigma = _by_hand(pipeline, encoded)
    given = network.given
    assert torch.equal(given["timestep"], sigma)
    level = sigma[:, None, None]
    assert torch.allclose(given["hidden_states"], (1 - level) * clean + level * noise)
    assert torch.allclose(loss, (noise - clean).square().mean(dim=(1, 2)))
    _, none_left = _told(pipeline, pixels, list(two_images), Recorder(noise - clean))
    assert torch.equal(none_left, torch.zeros(2))


def test_the_conditions_have_the_shapes_and_places_of_the_pipeline(pipeline, pixels, two_images):
    network = Recorder()
    _told(pipeline, pixels, list(two_images), network)
    given, tokens = network.given, pipeline.tokenizer_2.model_max_length
    assert given["guidance"].tolist() == [1.0, 1.0]
    assert given["encoder_hidden_states"].shape == (2, tokens, 32)
    assert given["pooled_projections"].shape == (2, 48)
    assert given["txt_ids"].shape == (tokens, 3)
    assert not given["txt_ids"].any()
    rows = [[0, row, column] for row in range(SIDE // 16) for column in range(SIDE // 16)]
    assert given["img_ids"].tolist() == rows


def test_a_network_without_guidance_is_not_told_any(pipeline, pixels, two_images):
    network = Recorder()
    config = SimpleNamespace(guidance_embeds=False)
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    schnell = SimpleNamespace(
        **{part: getattr(pipeline, part) for part in parts},
        transformer=SimpleNamespace(config=config),
        tokenizer_max_length=pipeline.tokenizer_max_length,
        _pack_latents=pipeline._pack_latents,
        _prepare_latent_image_ids=pipeline._prepare_latent_image_ids,
    )
    _told(schnell, pixels, list(two_images), network)
    assert network.given["guidance"] is None


def test_captions_are_encoded_as_the_pipeline_does(pipeline, two_images):
    captions = [*two_images, "", "the heart is large " * 100]
    with torch.no_grad():
        found = FAMILY.encode_captions(pipeline, captions)
        text, pooled, _ = pipeline.encode_prompt(
            captions, max_sequence_length=pipeline.tokenizer_2.model_max_length
        )
    assert torch.equal(found["text"], text)
    assert torch.equal(found["pooled"], pooled)
    assert not torch.equal(found["pooled"][0], found["pooled"][2])


def _sampled(pipeline, captions, seeds, **changed):
    settings = SampleSettings(**{"steps": 2, "guidance": 3.5, "size": SIDE, **changed})
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


def test_sampling_tells_the_network_what_training_told_it(pipeline, two_images):
    told = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, args, given: told.append(given), with_kwargs=True
    )
    _sampled(pipeline, list(two_images), [1, 2])
    hook.remove()
    with torch.no_grad():
        conditions = FAMILY.encode_captions(pipeline, list(two_images))
    assert len(told) == 2  # one pass per step: no second one without the caption
    for given in told:
        assert torch.equal(given["encoder_hidden_states"], conditions["text"])
        assert torch.equal(given["pooled_projections"], conditions["pooled"])
        assert given["guidance"].tolist() == [3.5, 3.5]
    assert told[0]["timestep"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [0, 40, 72])
def test_a_size_that_cannot_be_packed_is_refused(size, pipeline):
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
    # 1 double block with 6 projections of attention and 4 layers of MLPs; 2 single blocks with 3
    # projections, `proj_mlp` and `proj_out`; the last layer.
    [("attention", 6 + 2 * 3), ("attention_mlp", 6 + 4 + 2 * (3 + 2) + 1)],
)
def test_lora_takes_its_place_and_comes_back_from_its_file(position, layers, tiny_flux, tmp_path):
    trained = FAMILY.load(tiny_flux)
    torch.manual_seed(0)
    add_lora(trained.transformer, FAMILY, LoraSettings(4, 4, True, (position,)))
    factors = trained_parameters(trained.transformer)
    assert len(factors) == 2 * layers
    with torch.no_grad():
        for factor in factors.values():
            factor.copy_(0.3 * torch.randn_like(factor))
    save_lora(FAMILY, trained, tmp_path)
    loaded = FAMILY.load(tiny_flux)
    load_lora(FAMILY, loaded, tmp_path)
    for each in (trained, loaded):
        each.set_progress_bar_config(disable=True)
    shown = _sampled(loaded, ["the heart is large"], [1])
    assert np.array_equal(shown, _sampled(trained, ["the heart is large"], [1]))


def _change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _remove(folder):
    (folder / "text_encoder_2" / "model.safetensors").unlink()


def _truncate(folder):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _point(folder):
    path = folder / "text_encoder_2" / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _other_t5(folder):
    _change(folder / "text_encoder_2" / "config.json", d_model=64)


def _other_clip(folder):
    _change(folder / "text_encoder" / "config.json", hidden_size=32)


def _other_vae(folder):
    _change(folder / "vae" / "config.json", latent_channels=4)


def _few_words(folder):
    _change(folder / "text_encoder" / "config.json", vocab_size=10)


def _no_t5_tokenizer(folder):
    (folder / "tokenizer_2" / "tokenizer.json").unlink()


def _other_scheduler(folder):
    _change(folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")


def _other_pipeline(folder):
    _change(folder / "model_index.json", _class_name="FluxFillPipeline")


def _no_t5(folder):
    _change(folder / "model_index.json", text_encoder_2=[None, None])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_remove, "text_encoder_2/model.safetensors"),
        (_truncate, "transformer/diffusion_pytorch_model.safetensors"),
        (_point, "git lfs pull"),
        (_other_t5, "T5, taken by the transformer: 64 and 32"),
        (_other_clip, "pooled vector, taken by the transformer: 32 and 48"),
        (_other_vae, "16 and 64"),
        (_few_words, "CLIP 10"),
        (_no_t5_tokenizer, "tokenizer_2"),
        (_other_scheduler, "DDIMScheduler"),
        (_other_pipeline, "FluxFillPipeline"),
        (_no_t5, "no text_encoder_2"),
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
