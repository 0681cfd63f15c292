"""The filter: which images of a pool look like leaks, and which are too poor, by limits from films.

Every limit is set on one half of the unseen patients as a false alarm rate; what it refuses of real
radiographs is counted on the other half.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.manifest import FINDINGS

NEAREST: Final = 5
"""Of how many neighbours density's balls are drawn (Naeem et al., 2020)."""

FEWEST: Final = 10
"""Radiographs with a finding, at least, on which a limit of its probability is set."""

_AT_ONCE: Final = 512


def limits_of(rows: pd.DataFrame, sides: Mapping[str, str], rate: float) -> dict[str, float]:
    """Return each lens's limit: beyond it lies at most the share `rate` of the rows.

    Args:
        rows: unseen radiographs.
        sides: by lens, the side on which a value is a risk: `low` or `high`.
        rate: the false alarm rate, in (0, 1).
    """
    return {
        lens: float(
            np.quantile(rows[lens], rate, method="lower")
            if side == "low"
            else np.quantile(rows[lens], 1 - rate, method="higher")
        )
        for lens, side in sides.items()
    }


def beyond(
    rows: pd.DataFrame, sides: Mapping[str, str], limits: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Return by lens which rows lie beyond its limit, bool (n,)."""
    return {
        lens: (rows[lens] < limits[lens] if side == "low" else rows[lens] > limits[lens]).to_numpy()
        for lens, side in sides.items()
    }


def density(points: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return how many balls around references hold each point, over NEAREST, float64 (n,).

    A ball reaches to its centre's NEAREST-th neighbour, as in `fidelity/manifold.py`.

    Args:
        points: (n, d).
        references: (m, d), m > NEAREST.
    """
    centre = references.mean(axis=0)
    held = torch.from_numpy(np.asarray(references - centre, np.float64))
    radii = torch.cat(
        [
            torch.cdist(part, held).topk(NEAREST + 1, largest=False).values[:, -1]
            for part in held.split(_AT_ONCE)
        ]
    )
    asked = torch.from_numpy(np.asarray(points - centre, np.float64))
    counts = [
        (torch.cdist(part, held) < radii).sum(dim=1) for part in asked.split(_AT_ONCE) if len(part)
    ]
    if not counts:
        return np.zeros(0)
    return torch.cat(counts).numpy() / NEAREST


def visible_limits(
    probabilities: np.ndarray, labels: np.ndarray, rate: float
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the judge's limit for each finding, and why others have none.

    Of radiographs that have the finding, at most the share `rate` lies below.

    Args:
        probabilities: (n, 14), nan where the judge knows nothing of a finding.
        labels: (n, 14), 1 where a radiograph has it.
        rate: the false alarm rate.
    """
    limits, without = {}, {}
    for k, name in enumerate(FINDINGS):
        known = probabilities[labels[:, k] == 1, k]
        known = known[np.isfinite(known)]
        if len(known) < FEWEST:
            without[name] = (
                f"{len(known)} radiographs of unseen patients have it, too few to set a limit"
            )
        else:
            limits[name] = float(np.quantile(known, rate, method="lower"))
    return limits, without


def not_visible(
    probabilities: np.ndarray, labels: np.ndarray, limits: Mapping[str, float]
) -> np.ndarray:
    """Return which images lack a finding that was asked for, by the judge, bool (n,)."""
    found = np.zeros(len(labels), bool)
    for k, name in enumerate(FINDINGS):
        if name in limits:
            # A judge that says nothing of an image does not vouch for it.
            found |= (labels[:, k] == 1) & ~(probabilities[:, k] >= limits[name])
    return found
