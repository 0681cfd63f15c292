"""KID: the unbiased kernel distance of features without pairs of one patient (Bińkowski, 2018)."""

from typing import TYPE_CHECKING, Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.fidelity.comparison import SIDES, replicates

if TYPE_CHECKING:
    from workflow_scripts.fidelity.comparison import Comparison, Results

KID: Final = Metric("kid", "KID", "lower", 3, SIDES)
METRICS: Final = (KID,)


def measure(comparison: "Comparison", results: "Results") -> None:
    """Add the KID, its interval and, over all images, its replicates."""
    from workflow_scripts.fidelity import kernel

    within, units = comparison.kid_within_patients, comparison.units
    reason = comparison.too_few(2)
    if reason is None and not within:
        reason = kernel.why_no_distance(units)
    if reason is not None:
        results.add_none(KID, comparison, reason)
        return
    kid = kernel.kernel_distance(
        comparison.x,
        comparison.y,
        units,
        comparison.resamples(),
        comparison.device,
        within_units=within,
    )
    results.add(KID, comparison, kid.value, kid.interval, "bootstrap 95% over patients")
    if comparison.subset == "all" and kid.interval is not None:
        results.replicates[KID.key] = replicates("bootstrap", kid.replicates, units.fewest)
