"""FID without its sample-size bias, by the jackknife over groups of patients."""

from typing import TYPE_CHECKING, Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.fidelity.comparison import SIDES, replicates

if TYPE_CHECKING:
    from workflow_scripts.fidelity.comparison import Comparison, Results

CORRECTED: Final = Metric("fid_corrected", "FID without its bias", "lower", 3, SIDES)
METRICS: Final = (CORRECTED,)


def measure(comparison: "Comparison", results: "Results") -> None:
    """Add the corrected FID, its interval and, over all images, its replicates."""
    from workflow_scripts.fidelity import jackknife

    x, y, units = comparison.x, comparison.y, comparison.units
    reason = comparison.too_few(2) or jackknife.why_withheld(units, x.shape[1])
    if reason is not None:
        results.add_none(CORRECTED, comparison, reason)
        return
    corrected = jackknife.corrected_distance(x, y, units, comparison.device)
    results.add(CORRECTED, comparison, corrected.value, corrected.interval, "jackknife 95%")
    if comparison.subset == "all":
        without = corrected.without_groups
        results.replicates[CORRECTED.key] = replicates("jackknife", without, len(without))
