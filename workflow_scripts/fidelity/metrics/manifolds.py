"""Precision, recall, density and coverage: how far the manifolds of two sets of images overlap."""

from typing import TYPE_CHECKING, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.measurement import Metric
from workflow_scripts.fidelity.comparison import SIDES, replicates

if TYPE_CHECKING:
    from workflow_scripts.fidelity.comparison import Comparison, Results

METRICS: Final = (
    Metric("precision", "Precision", "higher", 3, SIDES),
    Metric("recall", "Recall", "higher", 3, SIDES),
    Metric("density", "Density", "higher", 3, SIDES),
    Metric("coverage", "Coverage", "higher", 3, SIDES),
)


def measure(comparison: "Comparison", results: "Results") -> None:
    """Add the four, their intervals and, over all images, their replicates.

    Raises:
        InputError: the features' scale is outside the limits of `distances.check_scale`.
    """
    from workflow_scripts.fidelity import manifold

    k = comparison.settings.nearest_k
    reason = comparison.too_few(k + 1)
    if reason is not None:
        for metric in METRICS:
            results.add_none(metric, comparison, reason)
        return
    try:
        overlap = manifold.manifold_overlap(
            comparison.x, comparison.y, k, comparison.device, comparison.units
        )
    except ValueError as error:  # all other conditions have been checked before
        remedy = "look at the weights of the encoder and its preprocessing"
        raise InputError(str(error), comparison.subset, remedy) from None
    intervals = overlap.intervals()
    for metric in METRICS:
        kind = "jackknife 95%" if metric.key == "density" else "jackknife 95%, fixed radii"
        interval = intervals.get(metric.key)
        results.add(metric, comparison, getattr(overlap, metric.key), interval, kind)
    if comparison.subset == "all" and intervals:
        for name, without in overlap.without_groups().items():
            results.replicates[name] = replicates("jackknife", without, len(without))
