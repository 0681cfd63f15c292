"""What is not finite becomes no image, in any family: it is refused by prompt and seed."""

import contextlib
import functools

import pandas as pd
import pytest
import torch

from tests.finetune.conftest import SIDE, SIZE
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import family_names, get_family
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.families.finite import NotFiniteError, finite_decoding
from workflow_scripts.finetune.layout import Base
from workflow_scripts.generate import sample
from workflow_scripts.world.tiny_llm_cxr import write_tiny_llm_cxr

# Families that are drawn at 32 pixels; RadEdit samples and decodes as it does, from a tiny SD.
SMALL = ("stable_diffusion", "diffusers", "radedit", "llm_cxr")


@pytest.fixture(scope="module")
def any_pipeline(tiny_sd, base_of, two_images, load_quiet, tmp_path_factory):
    """Return a family's tiny pipeline. Tests must leave it as it is."""

    @functools.cache
    def make(name):
        if name in ("stable_diffusion", "diffusers", "radedit"):
            return load_quiet(get_family("stable_diffusion"), tiny_sd[1])
        if name == "llm_cxr":
            folder = tmp_path_factory.mktemp(name)
            write_tiny_llm_cxr(list(two_images), folder, vqgan_steps=1, llm_steps=1)
            return load_quiet(get_family(name), Base(folder))
        return load_quiet(get_family(name), base_of(name))

    return make


@contextlib.contextmanager
def spoilt(module, value=torch.nan):
    """Let a module return NaN for the second of two images."""

    def spoil(_module, _given, output):
        values = output if torch.is_tensor(output) else output[0]
        values[1::2] = value

    handle = module.register_forward_hook(spoil)
    yield
    handle.remove()


def sampled(name, pipeline):
    prompts = pd.DataFrame(
        {
            "prompt_id": ["test-sound", "test-spoilt"],
            "caption": ["the heart is large", "the lungs are clear"],
            "seed": [11, 12],
        }
    )
    settings = SampleSettings(2, 2.0, SIZE if name in SMALL else SIDE)
    if name == "llm_cxr":
        settings = SampleSettings(0, 0.0, SIZE, {"attempts": 1})
    return sample._sample_batch(get_family(name), pipeline, prompts, settings)


@pytest.mark.parametrize("name", family_names())
def test_what_is_not_finite_is_refused_by_prompt_and_seed(name, any_pipeline):
    pipeline = any_pipeline(name)
    whole = sampled(name, pipeline)
    assert len({item.data for item in whole}) == 2
    family = get_family(name)
    decoder = getattr(pipeline, family.decoder)
    network = {"llm_cxr": "llm", "radedit": "unet", "diffusers": "unet"}.get(name, family.trained)
    for module, what in (
        (getattr(pipeline, network), "logits" if name == "llm_cxr" else "latents"),
        (decoder.decoder, "pixels"),
    ):
        with spoilt(module), pytest.raises(InputError) as caught:
            sampled(name, pipeline)
        message = str(caught.value)
        assert f"1 of a batch of 2 became no image: {what} are not finite" in message
        assert "where: prompt test-spoilt, seed 12" in message
        assert "test-sound" not in message
    assert [item.data for item in sampled(name, pipeline)] == [item.data for item in whole]


def test_one_gray_value_throughout_is_refused_by_prompt_and_seed(any_pipeline):
    pipeline = any_pipeline("stable_diffusion")
    with spoilt(pipeline.vae.decoder, 7.0), pytest.raises(InputError) as caught:
        sampled("stable_diffusion", pipeline)
    assert "all pixels have one value" in str(caught.value)
    assert "prompt test-spoilt, seed 12" in str(caught.value)


class Decoder:
    """Gives what it is given as pixels, in a tuple; its weights turn 9 into infinity."""

    def decode(self, z, scale=1.0):
        return (torch.where(z == 9, torch.inf, z * scale),)


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ([[0, 1, 2]], None),
        ([[0, torch.nan, 2]], ("latents", [1])),
        ([[torch.inf, 1, -torch.inf]], ("latents", [0, 2])),
        ([[0, 1, 9]], ("pixels", [2])),
        ([[0], [1], [9]], ("pixels", [2])),
        ([[0, 1], [2, torch.nan]], ("latents", [3])),
    ],
)
def test_rows_are_counted_over_the_calls_of_a_batch(calls, told):
    decoder = Decoder()
    found = None
    try:
        with finite_decoding(decoder):
            for rows in calls:
                decoder.decode(z=torch.tensor(rows, dtype=torch.float32).view(-1, 1, 1, 1))
    except NotFiniteError as error:
        found = error.what, error.rows
    assert found == told
    assert "decode" not in vars(decoder), "the component is left as it was"
