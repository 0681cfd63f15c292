"""FID without its bias by sample size: the delete-a-group jackknife, with an interval.

FID's bias falls as 1/n, so that what it grows by when a group of images is left out says what it
would lose with endlessly many: g FID - (g - 1) mean(FID without a group) (Quenouille, 1956). Both
sides lose the images of the same patients at a time. The spread of the values without a group gives
the standard error (Tukey, 1958), which a bootstrap of FID does not: its copies look like fewer
images.

It holds where the covariances have full rank with some images to spare. With fewer images than
dimensions FID does not fall as 1/n, and the correction is withheld.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from workflow_scripts.fidelity.arrays import CPU, check_pair, to_float64
from workflow_scripts.fidelity.frechet import distance_of_moments
from workflow_scripts.fidelity.resample import GROUPS, Units, groups_of, units_of

FEWEST_GROUPS = 10
"""Groups below which their spread is no standard error; patients with many images make fewer."""

IMAGES_PER_DIMENSION = 1.25
"""Least images a side, over the dimensions. In simulations of one Gaussian against itself in 16 and
64 dimensions less than a twentieth of the bias is left from 1.1 on; fewer have no full rank."""


@dataclass(frozen=True)
class CorrectedDistance:
    """FID less its bias, and its 95% interval; both may fall below zero.

    Attributes:
        value: the corrected distance.
        interval: 95%.
        without_groups: (g,) FID without each group of both sides.
    """

    value: float
    interval: tuple[float, float]
    without_groups: np.ndarray


def fewest_images(dimensions: int) -> int:
    """Return how many images each side needs for the correction."""
    return int(np.ceil(IMAGES_PER_DIMENSION * dimensions * GROUPS / (GROUPS - 1)))


def why_withheld(units: Units, dimensions: int) -> str | None:
    """Return why FID cannot be corrected, or None where it can; see `corrected_distance`."""
    n, m = len(units.real), len(units.generated)
    needed = fewest_images(dimensions)
    if min(n, m) < needed:
        return (
            f"{min(n, m)} images are too few to take FID's bias off in {dimensions} dimensions "
            f"({needed} needed)"
        )
    groups = _groups(units)
    if groups < FEWEST_GROUPS:
        return f"the patients make {groups} group(s) of equal size ({FEWEST_GROUPS} needed)"
    return None


def corrected_distance(
    real: np.ndarray,
    generated: np.ndarray,
    units: Units | None = None,
    device: torch.device = CPU,
) -> CorrectedDistance:
    """Return FID without its bias, by the delete-a-group jackknife with up to 20 groups a side.

    Args:
        real: (n, d), n >= `fewest_images(d)`.
        generated: (m, d), m >= `fewest_images(d)`.
        units: the patients of the rows, whose images stay in one group; None where each image is
            a unit.
        device: where to compute.

    Raises:
        ValueError: too few rows or groups, another d, or features that are not finite.
    """
    check_pair(real, generated)
    units = units or units_of(len(real), len(generated))
    why = why_withheld(units, real.shape[1])
    if why is not None:
        raise ValueError(why)
    sides = []
    both, count = groups_of(units), _groups(units)
    for features, groups in zip((real, generated), both, strict=True):
        rows = to_float64(features, device)
        rows = rows - rows.mean(dim=0)  # sums of squares lose digits to an offset
        sides.append((features.mean(axis=0, dtype=np.float64), _Moments(rows, groups, count)))
    (mean1, first), (mean2, second) = sides
    offset = torch.from_numpy(mean1 - mean2).to(device)

    def distance(group: int | None) -> float:
        own, covariance1 = first.without(group)
        other, covariance2 = second.without(group)
        return distance_of_moments(own - other + offset, covariance1, covariance2)

    whole = distance(None)
    left = np.array([distance(group) for group in range(count)])
    value = count * whole - (count - 1) * float(left.mean())
    error = ((count - 1) * float(left.var())) ** 0.5
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return CorrectedDistance(value, (value - half, value + half), left)


def _groups(units: Units) -> int:
    return int(max(side.max() for side in groups_of(units))) + 1


class _Moments:
    """Sums of rows and of their products, in all and by group."""

    def __init__(self, rows: Tensor, groups: np.ndarray, count: int):
        self.sizes = np.bincount(groups, minlength=count).tolist()
        self.sums, self.products = [], []
        for group in range(count):
            own = rows[torch.from_numpy(groups == group).to(rows.device)]
            self.sums.append(own.sum(dim=0))
            self.products.append(own.T @ own)
        self.size, self.sum = len(rows), rows.sum(dim=0)
        self.product = torch.stack(self.products).sum(dim=0)

    def without(self, group: int | None) -> tuple[Tensor, Tensor]:
        """Return the mean and the unbiased covariance of the rows outside a group."""
        n, total, product = self.size, self.sum, self.product
        if group is not None:
            n, total = n - self.sizes[group], total - self.sums[group]
            product = product - self.products[group]
        mean = total / n
        return mean, (product - n * torch.outer(mean, mean)) / (n - 1)
