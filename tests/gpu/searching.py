"""The exact search for the closest training images, at the protocol's size."""

import time
from typing import Final

import numpy as np
import torch

from tests.gpu.lines import Writer
from workflow_scripts.preflight.cost_model import search_settings
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
