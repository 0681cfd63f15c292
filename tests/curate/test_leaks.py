"""Planted leaks: of sizes that the search was not tuned on, and seen by it all the same."""

import numpy as np
import pytest
import torch
from PIL import Image

from workflow_scripts.curate.leaks import KINDS, leak
from workflow_scripts.curate.likeness import likeness, views_of_film, views_of_image

SIZE = 128


def film(seed: int) -> Image.Image:
    """Draw smooth noise, which survives a small turn as a radiograph does."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    return Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def test_sizes_are_drawn():
    rng = np.random.default_rng(0)
    for kind in ("crop", "rotation"):
        one, two = (np.asarray(leak(kind, film(0), rng=rng)) for _ in range(2))
        assert (one != two).any()


def test_a_blend_needs_two():
    with pytest.raises(ValueError, match="second"):
        leak("blend", film(0), rng=np.random.default_rng(0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_nearer_to_its_radiograph_than_strangers_are(kind):
    films = np.stack([views_of_film(film(k)) for k in range(30)], axis=1)
    rng = np.random.default_rng(3)
    leaks = [leak(kind, film(k), film(k + 1), rng=rng) for k in range(10)]
    if kind == "flip":  # the workflow looks at the mirror image of each candidate, too
        leaks = [leak("flip", image, rng=rng) for image in leaks]
    strangers = [film(100 + k) for k in range(30)]
    seen = likeness((views_of_image(x) for x in leaks + strangers), films, torch.device("cpu"))
    values = seen.mixture if kind == "blend" else seen.pixel
    assert values[:10].min() > values[10:].max()
    if kind != "blend":
        assert seen.nearest[:10].tolist() == list(range(10))
