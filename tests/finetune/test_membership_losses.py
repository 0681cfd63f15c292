"""What attacks on membership measure of an image, on tiny networks of every family."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.finetune.conftest import SIDE
from tests.stops import interrupt
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.flow import errors_watched, squared_error
from workflow_scripts.privacy.membership.losses import Measuring, image_losses
from workflow_scripts.privacy.membership.score import measure
from workflow_scripts.privacy.membership.settings import MembershipSettings
from workflow_scripts.privacy.tuned_model import TunedModel

FAMILIES = ["flux", "lumina2", "pixart_sigma", "sana", "stable_diffusion_3"]


@pytest.fixture
def films(two_images, tmp_path):
    """Paths of the two images and their captions."""
    paths = [str(tmp_path / f"{k}.png") for k in range(2)]
    for path, pixels in zip(paths, two_images.values(), strict=True):
        Image.fromarray(pixels).save(path)
    return paths, list(two_images)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_shows_its_losses_and_its_error(name, pipeline_of, films):
    family = get_family(name)
    pipeline = pipeline_of(name)
    family.network(pipeline).eval()
    found = image_losses(family, pipeline, *films, Measuring(SIDE, 3, 2))
    assert found.shape == (2, 6, 3)
    assert np.isfinite(found).all()
    # The levels differ; the captions do at some of them.
    assert len(np.unique(found[0, :, 0])) == 6
    assert (found[..., 0] != found[..., 1]).any()


def test_an_images_losses_are_its_own(tiny_sd, load_quiet, films):
    family = get_family("stable_diffusion")
    pipeline = load_quiet(family, tiny_sd[1])
    paths, captions = films
    how = Measuring(32, 3, 1)
    both = image_losses(family, pipeline, paths, captions, how)
    again = image_losses(family, pipeline, paths[::-1], captions[::-1], how)
    np.testing.assert_allclose(again[::-1], both, rtol=1e-4)
    swapped = image_losses(family, pipeline, paths, captions[::-1], how)
    assert (swapped[..., 0] != both[..., 0]).any()
    np.testing.assert_allclose(swapped[..., 1], both[..., 1], rtol=1e-4)


def test_errors_are_shown_while_they_are_watched_alone():
    seen = []
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    with errors_watched(seen.append):
        assert squared_error(ones, zeros).tolist() == [1, 1]
    squared_error(ones, zeros)
    assert [error.tolist() for error in seen] == [[[1.0] * 3] * 2]


@pytest.fixture
def job(tiny_sd, films, tmp_path):
    """Measure the two images under two checkpoints, one image in a batch."""
    paths, captions = films
    candidates = pd.DataFrame({"image_id": ["a", "b"], "path": paths, "caption": captions})
    settings = MembershipSettings(images=10, noise_levels=2, seeds=1, batch_size=1)
    base = tiny_sd[1]
    model = TunedModel(get_family("stable_diffusion"), base, base.folder, "full", 32, "no")

    def run(progress=tmp_path / "progress", **changed):
        return measure(model, candidates, dataclasses.replace(settings, **changed), progress)

    return run


def test_a_stopped_job_continues_to_the_same_bits(job, tmp_path, monkeypatch):
    whole = job(tmp_path / "whole")
    np.testing.assert_array_equal(whole["base"], whole["tuned"])  # one checkpoint, twice
    progress = tmp_path / "progress"

    def parts():
        return sorted(path.name for path in progress.glob("attempt-*/*.npy"))

    interrupt(lambda: len(parts()) == 3, job)
    before = parts()
    measured = []
    from workflow_scripts.privacy.membership import losses

    def counted(*given):
        measured.append(given[2])
        return image_losses(*given)

    monkeypatch.setattr(losses, "image_losses", counted)
    found = job()
    assert len(measured) == 1
    assert set(before) < set(parts())
    for which, expected in whole.items():
        np.testing.assert_array_equal(found[which], expected)
    damaged = sorted(progress.glob("attempt-*/*.npy"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-4])
    found = job()  # of which the damaged batch alone is measured again
    assert len(measured) == 1 + 1
    for which, expected in whole.items():
        np.testing.assert_array_equal(found[which], expected)
    job(noise_levels=3)  # other settings: nothing of it is taken over
    assert len(measured) == 1 + 1 + 4


def test_a_loss_that_is_not_finite_names_the_images(job, monkeypatch):
    from workflow_scripts.privacy.membership import losses

    def infinite(*given):
        return image_losses(*given) * np.inf

    monkeypatch.setattr(losses, "image_losses", infinite)
    with pytest.raises(InputError, match="not finite under the base checkpoint: a"):
        job()
