"""Searches among training images at the protocol's size: exact, and of a curated set's filter."""

import time
from typing import Final

import numpy as np
import torch

from tests.gpu.lines import Writer
from tests.gpu.measure import peak_gib, seconds_of
from workflow_scripts.curate.likeness import AT_ONCE, INNER, SIDE, TURNS, compare
from workflow_scripts.preflight.cost_model import LIKENESS, search_settings
from workflow_scripts.privacy.closest import closest_by_distance, closest_by_score

GENERATED: Final = 20_000
TRAINING: Final = 237_388
CLOSEST: Final = 5
FEATURES: Final = {"distance": 768, "score": 128}
"""Dimensions of RAD-DINO's features, and of the re-identification network's."""


def time_search(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure the search by distance and by re-identification score, once each."""
    m, n = (50, 400) if tiny else (GENERATED, TRAINING)
    for name, dimensions in FEATURES.items():
        torch.manual_seed(0)
        queries, references = (torch.randn(rows, dimensions).numpy() for rows in (m, n))
        start = time.perf_counter()  # the rows come back to the host: nothing is left to wait for
        if name == "distance":
            found = closest_by_distance(queries, references, CLOSEST, device=device)
        else:
            weight = np.random.default_rng(0).normal(size=(1, dimensions)) / 8
            found = closest_by_score(
                queries, references, weight, np.zeros(1), CLOSEST, device=device
            )
        taken = time.perf_counter() - start
        assert found.rows.shape == (m, CLOSEST)
        how = search_settings(CLOSEST, m, n, dimensions)
        say(f"closest by {name}", taken, "s", how)


def time_likeness(device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure how many pairs of images a curated set's filter compares by gray values a second.

    All radiographs lie on the device, as in a run; noise stands for gray values. A pair is an image
    and a radiograph, in all turns and enlargements, with its share of the search for mixtures.
    """
    images, films = (4, 300) if tiny else (AT_ONCE, TRAINING)
    torch.manual_seed(0)
    views, held = (
        torch.nn.functional.normalize(torch.randn(*shape, SIDE**2, device=device), dim=-1)
        for shape in ((images, len(TURNS)), (len(INNER), films))
    )
    found = compare(views, held)
    assert [tuple(part.shape) for part in found] == [(images,)] * 3
    assert f"float32, {len(TURNS) * len(INNER)} views" == LIKENESS
    how = f"{LIKENESS}, {images} images at once beside {films} radiographs"
    taken = seconds_of(lambda: compare(views, held), device, 1 if tiny else 5)
    say("pairs per second", images * films / taken, "1/s", how)
    say("peak memory", peak_gib(lambda: compare(views, held), device), "GiB", how)
