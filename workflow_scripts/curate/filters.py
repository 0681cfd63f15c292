"""The filter's limits, which come from radiographs of unseen patients, and what lies beyond them.

Every limit is a quantile of the radiographs of one half of the unseen patients, at a given false
alarm rate. The other half shows how many real radiographs the limits refuse (`pool_filter.py`).
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd
import torch

from workflow_scripts.common.manifest import FINDINGS

NEAREST: Final = 5
"""The neighbour that sets the radius of density's balls (Naeem et al., 2020)."""

FEWEST: Final = 10
"""Least number of radiographs with a finding, to set a limit on its probability."""

_AT_ONCE: Final = 512


def limits_of(rows: pd.DataFrame, sides: Mapping[str, str], rate: float) -> dict[str, float]:
    """Return the limit of each lens, beyond which at most the share `rate` of the rows lies.

    Args:
        rows: radiographs of unseen patients.
        sides: the side on which a value is a risk, `low` or `high`, by lens.
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
    """Return which rows lie beyond the limit of each lens, bool (n,) by lens."""
    return {
        lens: (rows[lens] < limits[lens] if side == "low" else rows[lens] > limits[lens]).to_numpy()
        for lens, side in sides.items()
    }


def density(points: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the density of each point among the references (Naeem et al., 2020), float64 (n,).

    It is the number of balls around references that contain the point, divided by NEAREST. A ball
    reaches to the NEAREST-th neighbour of its centre, as in `fidelity/manifold.py`.

    Args:
        points: (n, d).
        references: (m, d), m > NEAREST.
    """
    centre = references.mean(axis=0)
    centres = torch.from_numpy(np.asarray(references - centre, np.float64))
    radii = torch.cat(
        [
            torch.cdist(part, centres).topk(NEAREST + 1, largest=False).values[:, -1]
            for part in centres.split(_AT_ONCE)
        ]
    )
    shifted = torch.from_numpy(np.asarray(points - centre, np.float64))
    counts = [
        (torch.cdist(part, centres) < radii).sum(dim=1)
        for part in shifted.split(_AT_ONCE)
        if len(part)
    ]
    if not counts:
        return np.zeros(0)
    return torch.cat(counts).numpy() / NEAREST


def visible_limits(
    probabilities: np.ndarray, labels: np.ndarray, rate: float
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the limit of the judge's probability by finding, and why other findings have none.

    At most the share `rate` of the radiographs with the finding lies below its limit.

    Args:
        probabilities: (n, 14), nan where the judge does not know the finding.
        labels: (n, 14), 1 where the radiograph has the finding.
        rate: the false alarm rate.
    """
    limits, without = {}, {}
    for k, name in enumerate(FINDINGS):
        positive = probabilities[labels[:, k] == 1, k]
        positive = positive[np.isfinite(positive)]
        if len(positive) < FEWEST:
            without[name] = (
                f"{len(positive)} radiographs of unseen patients have it, too few to set a limit"
            )
        else:
            limits[name] = float(np.quantile(positive, rate, method="lower"))
    return limits, without


def not_visible(
    probabilities: np.ndarray, labels: np.ndarray, limits: Mapping[str, float]
) -> np.ndarray:
    """Return the images in which the judge misses a finding that was asked for, bool (n,)."""
    missed = np.zeros(len(labels), bool)
    for k, name in enumerate(FINDINGS):
        if name in limits:
            # The comparison counts an image without a probability (nan) as missed.
            missed |= (labels[:, k] == 1) & ~(probabilities[:, k] >= limits[name])
    return missed
