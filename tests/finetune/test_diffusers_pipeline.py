"""Any diffusers pipeline, by config alone."""

import shutil

import numpy as np
import pytest

from tests.finetune.damage import edit
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.layout import Base

FAMILY = get_family("diffusers")
SETTINGS = SampleSettings(steps=2, guidance=3.0, size=32)


def _pixels(images):
    return np.stack([np.asarray(image) for image in images])


def test_it_samples_what_the_models_own_family_samples(tiny_sd):
    captions, seeds = ["the heart is large", "the lungs are clear"], [4, 5]
    images = []
    for family in (FAMILY, get_family("stable_diffusion")):
        pipeline = family.load(tiny_sd[1])
        pipeline.set_progress_bar_config(disable=True)
        images.append(_pixels(family.sample(pipeline, captions, seeds, SETTINGS)))
    assert images[0].shape == (2, 32, 32, 3)
    assert np.array_equal(*images)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_class_name": "NoSuchPipeline"}, "no pipeline 'NoSuchPipeline'"),
        ({"_class_name": "DDPMPipeline"}, "DDPMPipeline does not take prompt"),
        ({"unet": ["my_library", "MyUNet"]}, "the component unet comes from 'my_library'"),
        ({"prior": ["diffusers", "UNet2DModel"]}, "prior/config.json"),
    ],
)
def test_what_cannot_be_loaded_or_sampled_is_refused(change, told, tiny_sd, tmp_path):
    folder = shutil.copytree(tiny_sd[1].folder, tmp_path / "base")
    edit(folder / "model_index.json", **change)
    with pytest.raises(InputError) as caught:
        FAMILY.load(Base(folder))
    assert told in str(caught.value)


def test_it_is_not_fine_tuned(tiny_sd):
    with pytest.raises(InputError, match="not fine-tuned"):
        FAMILY.encoded_shape(FAMILY.load(tiny_sd[1]), 32)
