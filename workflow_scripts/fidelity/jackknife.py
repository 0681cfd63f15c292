"""FID without its sample-size bias, by the delete-a-group jackknife, with an interval.

FID's bias falls as 1/n. So its growth when a group of images is left out predicts its value for
infinitely many images: g FID - (g - 1) mean(FID without a group) (Quenouille, 1956). Both sides
leave out the images of the same patients. The spread of the values without a group gives the
standard error (Tukey, 1958). A bootstrap of FID does not: resampled copies act like fewer images.

The correction holds where the covariances have full rank with some images to spare. With fewer
images than dimensions FID's bias does not fall as 1/n, and the correction is withheld.
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
"""Fewest groups whose spread gives a standard error. Patients with many images reduce the number of
groups."""

IMAGES_PER_DIMENSION = 1.25
"""Fewest images of a side per dimension. In simulations of a Gaussian against itself, in 16 and 64
dimensions, less than a twentieth of the bias remains from 1.1 on. Below 1 the covariance has no
full rank."""


@dataclass(frozen=True)
class CorrectedDistance:
    """FID without its bias, and its 95% interval; both may be negative.

    Attributes:
        value: the corrected distance.
        interval: its 95% interval.
        without_groups: (g,) FID after leaving out each group on both sides.
    """

    value: float
    interval: tuple[float, float]
    without_groups: np.ndarray


def fewest_images(dimensions: int) -> int:
    """Return the number of images that each side needs for the correction."""
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
    count = _group_count(units)
    if count < FEWEST_GROUPS:
        return f"the patients make {count} group(s) of equal size ({FEWEST_GROUPS} needed)"
    return None


def corrected_distance(
    real: np.ndarray,
    generated: np.ndarray,
    units: Units | None = None,
    device: torch.device = CPU,
) -> CorrectedDistance:
    """Return FID without its bias, by the delete-a-group jackknife with up to `GROUPS` groups.

    Args:
        real: (n, d), n >= `fewest_images(d)`.
        generated: (m, d), m >= `fewest_images(d)`.
        units: the patients of the rows, whose images stay in one group; None treats each image as
            a unit.
        device: where to compute.

    Raises:
        ValueError: there are too few rows or groups, d differs, or features are not finite.
    """
    check_pair(real, generated)
    units = units or units_of(len(real), len(generated))
    why = why_withheld(units, real.shape[1])
    if why is not None:
        raise ValueError(why)
    count = _group_count(units)
    means, moments = [], []
    for features, groups in zip((real, generated), groups_of(units), strict=True):
        means.append(features.mean(axis=0, dtype=np.float64))
        rows = to_float64(features, device)
        rows = rows - rows.mean(dim=0)  # an offset would cost the sums of squares digits
        moments.append(_Moments(rows, groups, count))
    offset = torch.from_numpy(means[0] - means[1]).to(device)

    def distance(group: int | None) -> float:
        mean1, covariance1 = moments[0].without(group)
        mean2, covariance2 = moments[1].without(group)
        return distance_of_moments(mean1 - mean2 + offset, covariance1, covariance2)

    uncorrected = distance(None)
    leave_one_out = np.array([distance(group) for group in range(count)])
    value = count * uncorrected - (count - 1) * float(leave_one_out.mean())
    standard_error = ((count - 1) * float(leave_one_out.var())) ** 0.5
    half = float(stats.t.ppf(0.975, count - 1)) * standard_error
    return CorrectedDistance(value, (value - half, value + half), leave_one_out)


def _group_count(units: Units) -> int:
    return int(max(side.max() for side in groups_of(units))) + 1


class _Moments:
    """Sums of rows and of their products, in all and by group."""

    def __init__(self, rows: Tensor, groups: np.ndarray, count: int):
        self.sizes = np.bincount(groups, minlength=count).tolist()
        self.sums, self.products = [], []
        for group in range(count):
            members = rows[torch.from_numpy(groups == group).to(rows.device)]
            self.sums.append(members.sum(dim=0))
            self.products.append(members.T @ members)
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
