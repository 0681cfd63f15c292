"""The floor of FID: what real images score against other real images at the same sample size.

FID grows as n shrinks, for a perfect generator too, so that a rare finding looks worse than a
frequent one whatever the model. The floor says how much of a value is the sample size alone.
"""

from dataclasses import dataclass

import numpy as np
import torch

from workflow_scripts.fidelity.arrays import CPU
from workflow_scripts.fidelity.frechet import frechet_distance

FEWEST, MOST = 10, 100
"""Draws to average: until the mean's standard error is within `PRECISION` of it."""

PRECISION = 0.05


@dataclass(frozen=True)
class Floor:
    """The mean FID of real against real, and the sizes it holds for.

    Attributes:
        value: the mean over the draws.
        n: size of the group in the generated images' place.
        n_reference: size of the other group.
        measured: the sizes of the groups drawn; they differ from `n` and `n_reference` where the
            value was carried to these by the 1/n law.
        draws: how many pairs of groups were drawn.
    """

    value: float
    n: int
    n_reference: int
    measured: tuple[int, int]
    draws: int


def fid_floor(
    features: np.ndarray,
    patients: np.ndarray,
    n: int,
    n_reference: int,
    rng: np.random.Generator,
    device: torch.device = CPU,
) -> Floor | None:
    """Return the FID of real against real, other patients, at the sizes of a comparison.

    Two groups of `n` and `n_reference` images are drawn from all of `features`, no patient in
    both: the images of one finding would not do for two groups of their number. Where there are
    not enough images, the groups shrink in proportion. If they still have more images than
    dimensions, where FID's bias follows 1/n + 1/n_reference, the value is carried to the sizes
    asked for; otherwise it stands for the sizes drawn.

    Args:
        features: (N, d) of real images.
        patients: (N,) the patient of each.
        n: generated images of the comparison, >= 2.
        n_reference: reference images of the comparison, >= 2.
        rng: draws the groups.
        device: where to compute.

    Returns:
        The floor; None where no two groups of two images from different patients exist.

    Raises:
        ValueError: fewer than two images asked for, or features that are not finite.
    """
    if min(n, n_reference) < 2:
        raise ValueError(f"FID needs two images on each side, not {n} and {n_reference}")
    values: list[float] = []
    sizes: list[tuple[int, int]] = []
    for draw in range(MOST):
        first, second = disjoint_groups(patients, n, n_reference, rng)
        if min(len(first), len(second)) >= 2:
            sizes.append((len(first), len(second)))
            values.append(frechet_distance(features[second], features[first], device))
        if draw + 1 >= FEWEST and _settled(values):
            break
    if not values:
        return None
    drawn = np.array(sizes, dtype=np.float64)
    measured = (int(drawn[:, 0].min()), int(drawn[:, 1].min()))
    if min(measured) <= features.shape[1]:
        return Floor(float(np.mean(values)), *measured, measured, len(values))
    carried = np.array(values) * (1 / n + 1 / n_reference) / (1 / drawn).sum(axis=1)
    return Floor(float(carried.mean()), n, n_reference, measured, len(values))


def _settled(values: list[float]) -> bool:
    if len(values) < FEWEST:
        return False
    return float(np.std(values, ddof=1)) / len(values) ** 0.5 <= PRECISION * float(np.mean(values))


def disjoint_groups(
    patients: np.ndarray, first: int, second: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two groups of rows that share no patient, as near to the sizes asked for as possible.

    Args:
        patients: (N,) the patient of each row.
        first: rows wanted in the first group.
        second: rows wanted in the second group.
        rng: draws them.

    Returns:
        Two arrays of row numbers. Where `first + second` rows of different patients do not
        exist, both are smaller, in proportion.
    """
    scale = min(1.0, len(patients) / (first + second))
    first, second = round(first * scale), round(second * scale)
    codes = np.unique(patients, return_inverse=True)[1]
    # Rows in random order of the patients, and in random order within a patient.
    order = np.lexsort((rng.random(len(codes)), rng.permutation(codes.max() + 1)[codes]))
    boundary = codes[order[:first]][-1:]
    rest = order[first:]
    return order[:first], rest[~np.isin(codes[rest], boundary)][:second]
