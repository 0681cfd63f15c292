"""Sana: what it learns, what its network is told, and which checkpoints it refuses."""

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
from workflow_scripts.finetune.families.sana import Sana, noise_levels
from workflow_scripts.finetune.layout import Base
from workflow_scripts.world.tiny_sana import (
    LATENT_CHANNELS,
    TEXT_TOKENS,
    TEXT_WIDTH,
    train_dc_ae,
    write_tiny_sana,
)

FAMILY = Sana()
SIDE = 64
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def pixels(two_images):
    """The two images as the autoencoder takes them."""
    large = [Image.fromarray(image).resize((SIDE, SIDE)) for image in two_images.values()]
    shown = torch.from_numpy(np.stack([np.asarray(image) for image in large])).float()
    return (shown / 127.5 - 1)[:, None].repeat(1, 3, 1, 1)


@pytest.fixture(scope="session")
def tiny_sana(tmp_path_factory, two_images, pixels):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    autoencoder = train_dc_ae(pixels, 100, 4)
    folder = tmp_path_factory.mktemp("tiny_sana") / "sana"
    write_tiny_sana(list(two_images), autoencoder, folder)
    return Base(folder)


@pytest.fixture(scope="module")
def pipeline(tiny_sana):
    """The base, untrained. Tests must leave it as it is."""
    return _quiet(tiny_sana)


@pytest.fixture
def folder(tiny_sana, tmp_path):
    """A copy of the checkpoint to damage."""
    return shutil.copytree(tiny_sana.folder, tmp_path / "base")


def _quiet(base, **dtypes):
    pipeline = FAMILY.load(base, **dtypes)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_overfits_until_samples_show_the_image_of_their_caption(tiny_sana, check_overfits):
    check_overfits(FAMILY, tiny_sana, 120, 8, sampling=15, size=SIDE, learning_rate=3e-3)


def test_lora_alone_lowers_the_loss(tiny_sana, check_lora_lowers_the_loss):
    check_lora_lowers_the_loss(FAMILY, tiny_sana, 40, size=SIDE)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        # The logistic of the normal quantiles -1.6449, -0.6745, 0, 0.6745, 1.6449 ...
        (1.0, [0.1618, 0.3375, 0.5, 0.6625, 0.8382]),
        # ... and 3 s / (1 + 2 s) of these.
        (3.0, [0.3667, 0.6045, 0.75, 0.8548, 0.9395]),
    ],
)
def test_noise_levels_are_logit_normal_and_shifted_as_the_scheduler_says(shift, expected):
    scheduler = SimpleNamespace(config=SimpleNamespace(flow_shift=shift))
    sigma = noise_levels(SimpleNamespace(scheduler=scheduler), Draws(3, 7, range(4000), CPU))
    found = sigma.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    assert torch.allclose(found, torch.tensor(expected), atol=0.02)
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
        return conditions, FAMILY.loss(pipeline, network, encoded, conditions, draws)


def _by_hand(pipeline, pixels):
    """Draw what the loss drew, in its order."""
    draws = Draws(5, 2, range(2), CPU)
    with torch.no_grad():
        clean = pipeline.vae.encode(pixels).latent * pipeline.vae.config.scaling_factor
    noise = draws.normal(clean.shape[1:])
    odds = torch.exp(draws.normal(()))
    return clean, noise, 3 * odds / (1 + 3 * odds)


def test_the_network_is_told_1000_sigma_and_asked_for_noise_minus_clean(
    pipeline, pixels, two_images
):
    network = Recorder()
    _, loss = _told(pipeline, pixels, list(two_images), network)
    clean, noise, sigma = _by_hand(pipeline, pixels)
    given = network.given
    torch.testing.assert_close(given["timestep"], 1000 * sigma)
    level = sigma[:, None, None, None]
    torch.testing.assert_close(given["hidden_states"], (1 - level) * clean + level * noise)
    torch.testing.assert_close(loss, (noise - clean).square().mean(dim=(1, 2, 3)))
    _, none_left = _told(pipeline, pixels, list(two_images), Recorder(noise - clean))
    torch.testing.assert_close(none_left, torch.zeros(2))


def test_the_checkpoint_says_the_scale_of_time_and_the_shift(folder, pixels, two_images):
    _change(folder / "transformer" / "config.json", timestep_scale=0.001)
    _change(folder / "scheduler" / "scheduler_config.json", flow_shift=1.0)
    network, pipeline = Recorder(), _quiet(Base(folder))
    _told(pipeline, pixels, list(two_images), network)
    shifted = _by_hand(pipeline, pixels)[2]
    torch.testing.assert_close(network.given["timestep"], shifted / (3 - 2 * shifted))


def test_a_network_that_answers_so_leads_the_pipeline_to_the_image(pipeline):
    """The pipeline's own sampling has the sign and the time of the training target."""
    clean = torch.randn(1, LATENT_CHANNELS, 8, 8, generator=torch.Generator().manual_seed(1))
    start = torch.randn(1, LATENT_CHANNELS, 8, 8, generator=torch.Generator().manual_seed(2))
    times = []

    class Perfect(type(pipeline.transformer)):
        def forward(self, hidden_states, timestep, **_):
            times.append(float(timestep[0]))
            return (1000 * (hidden_states - clean) / timestep.view(-1, 1, 1, 1),)

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
        complex_human_instruction=None,
        use_resolution_binning=False,
        output_type="latent",
    ).images
    # The scheduler cuts its times to whole numbers.
    assert torch.allclose(found, clean, atol=0.01)
    assert times[0] > 990
    assert times == sorted(times, reverse=True)


def test_the_network_is_told_the_text_and_where_it_ends(pipeline, pixels):
    network = Recorder()
    conditions, _ = _told(pipeline, pixels, ["the heart is large", ""], network)
    given = network.given
    assert torch.equal(given["encoder_hidden_states"], conditions["text"])
    assert given["encoder_hidden_states"].shape == (2, TEXT_TOKENS, TEXT_WIDTH)
    tokens = len(pipeline.tokenizer("the heart is large").input_ids)
    mask = torch.arange(TEXT_TOKENS) < torch.tensor([[tokens], [1]])
    assert tokens > 4
    assert torch.equal(given["encoder_attention_mask"].bool(), mask)


def test_captions_are_encoded_as_prompts_and_the_empty_one_as_the_negative_prompt(pipeline):
    captions = ["The <heart> is large", "", "the lungs are clear " * 50]
    with torch.no_grad():
        found = FAMILY.encode_captions(pipeline, captions)
        text, mask, negative, negative_mask = pipeline.encode_prompt(
            captions, max_sequence_length=TEXT_TOKENS
        )
    assert torch.equal(found["text"], text)
    assert torch.equal(found["mask"], mask)
    assert torch.equal(found["text"][1], negative[1])
    assert torch.equal(found["mask"][1], negative_mask[1])
    assert found["mask"][2].all()
    assert not torch.equal(found["text"][0], found["text"][1])


def test_at_most_300_tokens_are_encoded(folder):
    _change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=1000)
    pipeline = FAMILY.load(Base(folder))
    with torch.no_grad():
        found = FAMILY.encode_captions(pipeline, ["the lungs are clear " * 200])
    assert found["text"].shape == (1, 300, TEXT_WIDTH)
    assert found["mask"].shape == (1, 300)


def _sampled(pipeline, captions, seeds, **changed):
    settings = SampleSettings(**{"steps": 2, "guidance": 4.5, "size": SIDE, **changed})
    return np.stack(
        [np.asarray(image) for image in FAMILY.sample(pipeline, captions, seeds, settings)]
    )


def test_sampling_tells_the_network_what_training_told_it(pipeline):
    """No instruction before the caption, no other size, the empty caption for guidance."""
    captions, told = ["the heart is large", "the lungs are clear"], []

    def note(_, given, named):
        told.append({"hidden_states": given[0], **named})

    handle = pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        _sampled(pipeline, captions, [1, 2])
    finally:
        handle.remove()
    with torch.no_grad():
        conditions = FAMILY.encode_captions(pipeline, ["", "", *captions])
    assert len(told) == 2
    for given in told:
        assert given["hidden_states"].shape == (4, LATENT_CHANNELS, 8, 8)
        assert torch.equal(given["encoder_hidden_states"], conditions["text"])
        assert torch.equal(given["encoder_attention_mask"], conditions["mask"])


def test_an_image_follows_from_its_prompt_seed_size_and_guidance(pipeline):
    captions = ["the heart is large", "the lungs are clear"]
    images = _sampled(pipeline, captions, [1, 1])
    torch.manual_seed(99)
    assert np.array_equal(images, _sampled(pipeline, captions, [1, 1]))
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], _sampled(pipeline, captions, [2, 1])[0])
    assert not np.array_equal(images, _sampled(pipeline, captions, [1, 1], guidance=1.0))
    assert _sampled(pipeline, captions, [1, 1], size=96).shape == (2, 96, 96, 3)


@pytest.mark.parametrize("size", [0, 48, 72])
def test_a_size_that_the_pipeline_does_not_sample_is_refused(size, pipeline):
    with pytest.raises(InputError, match="multiples of 32"):
        FAMILY.encoded_shape(pipeline, size)
    with pytest.raises(InputError, match="multiples of 32"):
        _sampled(pipeline, ["the heart is large"], [1], size=size)


def test_images_are_encoded_as_the_latents_that_the_autoencoder_decodes(pipeline, pixels):
    with torch.no_grad():
        encoded = FAMILY.encode_images(pipeline, pixels)
        decoded = pipeline.vae.decode(encoded).sample
        assert torch.equal(encoded, FAMILY.encode_images(pipeline, pixels))
    assert encoded.shape == (2, *FAMILY.encoded_shape(pipeline, SIDE)) == (2, 8, 8, 8)
    assert (decoded - pixels).abs().mean() < 0.2
    assert float((encoded * pipeline.vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.05)


def test_a_network_of_half_the_precision_gives_a_float32_loss(tiny_sana, pixels, two_images):
    pipeline = FAMILY.load(tiny_sana, dtype=torch.bfloat16)
    conditions, loss = _told(pipeline, pixels, list(two_images), pipeline.transformer)
    assert conditions["text"].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert loss.shape == (2,)
    assert torch.isfinite(loss).all()


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


def _other_autoencoder(folder):
    _change(folder / "vae" / "config.json", latent_channels=32)


def _other_outputs(folder):
    _change(folder / "transformer" / "config.json", out_channels=16)


def _sprint(folder):
    _change(folder / "transformer" / "config.json", guidance_embeds=True)


def _sprint_pipeline(folder):
    _change(folder / "model_index.json", _class_name="SanaSprintPipeline")


def _no_tokenizer(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()


def _no_scheduler(folder):
    (folder / "scheduler" / "scheduler_config.json").unlink()


def _noise_prediction(folder):
    _change(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")


def _other_sigmas(folder):
    _change(folder / "scheduler" / "scheduler_config.json", use_flow_sigmas=False)


def _no_shift(folder):
    _change(folder / "scheduler" / "scheduler_config.json", flow_shift=None)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_remove, "text_encoder/model.safetensors"),
        (_truncate, "transformer/diffusion_pytorch_model.safetensors"),
        (_point, "git lfs pull"),
        (_other_gemma, "text encoder, taken by the transformer: 48 and 32"),
        (_other_autoencoder, "autoencoder, taken by the transformer: 32 and 8"),
        (_other_outputs, "takes and that it predicts: 8 and 16"),
        (_sprint, "Sana-Sprint"),
        (_sprint_pipeline, "SanaSprintPipeline"),
        (_no_tokenizer, "tokenizer.model"),
        (_no_scheduler, "scheduler/scheduler_config.json"),
        (_noise_prediction, "'epsilon') does not sample along flows"),
        (_other_sigmas, "does not sample along flows"),
        (_no_shift, "no `flow_shift`"),
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
    state["proj_out.renamed"] = state.pop("proj_out.bias")
    save_file(state, path)
    with pytest.raises(InputError, match=r"missing: proj_out\.bias.*unexpected: proj_out\.renamed"):
        FAMILY.load(Base(folder))
