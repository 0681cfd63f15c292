"""The diffusion transformers: what each learns, at which noise levels, and what it refuses."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from safetensors.torch import load_file, save_file

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families import get_family, lumina2, sana, stable_diffusion_3
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.parts import draw_latents
from workflow_scripts.finetune.layout import Base
from workflow_scripts.world.diffusion import tiny_vae, train_vae
from workflow_scripts.world.tiny_lumina2 import write_tiny_lumina2
from workflow_scripts.world.tiny_pixart_sigma import write_tiny_pixart_sigma
from workflow_scripts.world.tiny_sana import train_dc_ae, write_tiny_sana
from workflow_scripts.world.tiny_stable_diffusion_3 import write_tiny_stable_diffusion_3

CPU = torch.device("cpu")
SIDE = 64
WRITE = {
    "pixart_sigma": write_tiny_pixart_sigma,
    "sana": write_tiny_sana,
    "stable_diffusion_3": write_tiny_stable_diffusion_3,
    "lumina2": write_tiny_lumina2,
}
FAMILIES = tuple(WRITE)


@pytest.fixture(scope="module")
def pixels(two_images):
    """The two images as float (2, 3, 64, 64) in [-1, 1]."""
    small = torch.from_numpy(np.stack(list(two_images.values()))).float() / 127.5 - 1
    large = torch.nn.functional.interpolate(small[:, None], size=(SIDE, SIDE), mode="nearest")
    return large.expand(-1, 3, -1, -1).contiguous()


@pytest.fixture(scope="module")
def autoencoders(pixels):
    """One autoencoder of each kind, trained on the two images."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wide = train_vae(pixels, 100, 4, tiny_vae(16, 4, False))
    return {
        "pixart_sigma": train_vae(pixels, 100, 4),
        "sana": train_dc_ae(pixels, 100, 4),
        **dict.fromkeys(("stable_diffusion_3", "lumina2"), wide),
    }


@pytest.fixture(scope="module")
def bases(autoencoders, two_images, tmp_path_factory):
    """A tiny checkpoint of every family."""
    root = tmp_path_factory.mktemp("transformers")
    for name, autoencoder in autoencoders.items():
        torch.manual_seed(1)
        WRITE[name](list(two_images), autoencoder, root / name)
    return {name: Base(root / name) for name in autoencoders}


@pytest.mark.parametrize(
    ("name", "size", "steps", "batch", "rate"),
    [
        ("pixart_sigma", 32, 700, 16, 3e-3),
        ("stable_diffusion_3", 64, 200, 8, 2e-3),
    ],
)
def test_overfits_until_samples_show_the_image_of_their_caption(
    name, size, steps, batch, rate, bases, check_overfits
):
    check_overfits(get_family(name), bases[name], steps, batch, 15, size=size, learning_rate=rate)


def test_lora_alone_lowers_the_loss(bases, check_lora_lowers_the_loss):
    family, base = get_family("stable_diffusion_3"), bases["stable_diffusion_3"]
    check_lora_lowers_the_loss(family, base, 40, SIDE, ema_decay=0.9)


@pytest.mark.parametrize("name", FAMILIES)
def test_images_follow_size_seed_and_prompt_and_repeat(name, bases, two_images):
    family = get_family(name)
    pipeline = family.load(bases[name])
    pipeline.set_progress_bar_config(disable=True)
    first, second = two_images

    def sampled(captions, seeds, size=SIDE):
        images = family.sample(pipeline, captions, seeds, SampleSettings(2, 4.0, size))
        return np.stack([np.asarray(image, int) for image in images])

    torch.manual_seed(3)
    images = sampled([first, first, second], [1, 2, 1])
    torch.manual_seed(4)
    assert np.array_equal(images, sampled([first, first, second], [1, 2, 1]))
    assert images.shape == (3, SIDE, SIDE, 3)
    assert np.abs(images[0] - images[1]).max() > 10
    assert np.abs(images[0] - images[2]).max() > 0
    assert sampled([first], [1], 32).shape == (1, 32, 32, 3)


def _quantiles(sigma, shares):
    return np.quantile(sigma.numpy(), shares)


@pytest.mark.parametrize(
    ("module", "scheduler", "expected"),
    [
        # Uniform: quantiles are their shares.
        (stable_diffusion_3, {"shift": 3.0}, [0.1, 0.5, 0.9]),
        # Uniform, then 6 s / (1 + 5 s): 0.1 -> 0.4, 0.5 -> 6/7, 0.9 -> 5.4/5.5.
        (lumina2, {"shift": 6.0}, [0.4, 6 / 7, 5.4 / 5.5]),
        # Logit-normal (0.2173, 0.5, 0.7827), then 3 s / (1 + 2 s).
        (sana, {"flow_shift": 3.0}, [0.4544, 0.75, 0.9153]),
    ],
)
def test_noise_levels_have_the_familys_distribution(module, scheduler, expected):
    pipeline = SimpleNamespace(scheduler=SimpleNamespace(config=SimpleNamespace(**scheduler)))
    sigma = module.noise_levels(pipeline, Draws(3, 0, range(8000), CPU))
    assert sigma.shape == (8000,)
    assert float(sigma.min()) > 0
    assert float(sigma.max()) <= 1
    np.testing.assert_allclose(_quantiles(sigma, [0.1, 0.5, 0.9]), expected, atol=0.02)


@pytest.mark.parametrize("name", FAMILIES)
def test_captions_are_encoded_as_the_pipeline_encodes_its_prompts(name, bases, two_images):
    """Sampling must see the conditions that training saw, the empty caption's too."""
    family = get_family(name)
    pipeline = family.load(bases[name])
    caption = next(iter(two_images))
    with torch.no_grad():
        ours = family.encode_captions(pipeline, [caption, ""])
        length = {"max_sequence_length": ours["text"].shape[1]}
        if name == "stable_diffusion_3":
            length = {"max_sequence_length": 64}
            text, empty, *_ = pipeline.encode_prompt(caption, None, None, **length)
        else:
            plain = {"clean_caption": False} if name != "lumina2" else {}
            if name == "sana":
                plain["complex_human_instruction"] = None
            text, _, empty, _ = pipeline.encode_prompt(caption, True, **length, **plain)
    torch.testing.assert_close(ours["text"][0], text[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours["text"][1], empty[0], rtol=0, atol=1e-5)
    assert not torch.equal(ours["text"][0], ours["text"][1])


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "component", "changes", "told"),
    [
        (
            "pixart_sigma",
            "transformer",
            {"caption_channels": 48},
            "32 and 48",
        ),
        ("sana", "transformer", {"in_channels": 4}, "latent channels of the autoencoder"),
        (
            "stable_diffusion_3",
            "text_encoder_2",
            {"projection_dim": 8},
            "both CLIP",
        ),
        ("stable_diffusion_3", "text_encoder_3", {"d_model": 8}, "text_encoder_3"),
        ("lumina2", "vae", {"latent_channels": 4}, "latent channels of the VAE"),
    ],
)
def test_components_that_do_not_fit_are_refused(name, component, changes, told, bases, tmp_path):
    shutil.copytree(bases[name].folder, tmp_path / "base")
    _edit(tmp_path / "base" / component / "config.json", **changes)
    with pytest.raises(InputError) as caught:
        get_family(name).check(Base(tmp_path / "base"))
    assert told in str(caught.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_file_or_a_pointer_in_its_place_is_named(name, bases, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(bases[name].folder, folder)
    family = get_family(name)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        family.check(Base(folder))
    weights.unlink()
    with pytest.raises(InputError, match=r"transformer/diffusion_pytorch_model\.safetensors"):
        family.check(Base(folder))


@pytest.mark.parametrize("name", ["pixart_sigma", "stable_diffusion_3"])
def test_missing_and_unexpected_keys_are_named(name, bases, tmp_path):
    shutil.copytree(bases[name].folder, tmp_path / "base")
    path = tmp_path / "base" / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["proj_out.renamed"] = state.pop("proj_out.bias")
    save_file(state, path)
    told = r"missing: proj_out\.bias.*unexpected: proj_out\.renamed"
    with pytest.raises(InputError, match=told):
        get_family(name).load(Base(tmp_path / "base"))


class Recorder:
    """A network that answers with what it is told to, and keeps what it was given."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, hidden_states, **given):
        self.given = {"hidden_states": hidden_states, **given}
        return Transformer2DModelOutput(sample=self.answer)


def test_stable_diffusion_3_is_told_sigma_and_asked_for_noise_minus_clean(
    bases, pixels, two_images
):
    family = get_family("stable_diffusion_3")
    pipeline = family.load(bases["stable_diffusion_3"])
    with torch.no_grad():
        encoded = family.encode_images(pipeline, pixels)
        conditions = family.encode_captions(pipeline, list(two_images))
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    sigma = stable_diffusion_3.noise_levels(pipeline, draws)
    network = Recorder(noise - clean)
    loss = family.loss(pipeline, network, encoded, conditions, Draws(5, 2, range(2), CPU))
    assert torch.equal(loss, torch.zeros(2))
    level = sigma[:, None, None, None]
    torch.testing.assert_close(network.given["timestep"], 1000 * sigma)
    torch.testing.assert_close(network.given["hidden_states"], (1 - level) * clean + level * noise)
    opposite = Recorder(clean - noise)
    loss = family.loss(pipeline, opposite, encoded, conditions, Draws(5, 2, range(2), CPU))
    torch.testing.assert_close(loss, 4 * (clean - noise).square().mean(dim=(1, 2, 3)))


def test_pixart_learns_the_noise_and_leaves_its_variance_alone(bases, pixels, two_images):
    """Of twice the channels, the second half is a variance that this loss says nothing of."""
    family = get_family("pixart_sigma")
    pipeline = family.load(bases["pixart_sigma"])
    with torch.no_grad():
        encoded = family.encode_images(pipeline, pixels)
        conditions = family.encode_captions(pipeline, list(two_images))
    draws = Draws(5, 2, range(2), CPU)
    clean = draw_latents(pipeline.vae, encoded, draws)
    noise = draws.normal(clean.shape[1:])
    network = Recorder(torch.cat([noise, torch.full_like(noise, 7.0)], dim=1))
    loss = family.loss(pipeline, network, encoded, conditions, Draws(5, 2, range(2), CPU))
    assert torch.equal(loss, torch.zeros(2))
    kept = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000)))
    kept = kept[network.given["timestep"].long()].float()[:, None, None, None]
    torch.testing.assert_close(
        network.given["hidden_states"],
        kept.sqrt() * clean + (1 - kept).sqrt() * noise,
        rtol=0,
        atol=1e-4,
    )


def test_pixart_is_put_together_from_two_repositories(bases, two_images, tmp_path):
    whole = bases["pixart_sigma"].folder
    shutil.copytree(whole / "transformer", tmp_path / "one" / "transformer")
    names = ("vae", "text_encoder", "tokenizer")
    parts = {part: tmp_path / "two" / part for part in names}
    for part, folder in parts.items():
        shutil.copytree(whole / part, folder)
    family = get_family("pixart_sigma")
    images = []
    for base in (Base(whole), Base(tmp_path / "one", parts)):
        pipeline = family.load(base)
        pipeline.set_progress_bar_config(disable=True)
        sampled = family.sample(pipeline, list(two_images), [1, 2], SampleSettings(2, 4.0, 32))
        images.append(np.stack([np.asarray(image) for image in sampled]))
    assert np.array_equal(*images)
