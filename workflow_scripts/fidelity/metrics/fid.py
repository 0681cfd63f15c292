"""FID: the Fréchet distance of two normal distributions of features (Heusel et al., 2017)."""

from typing import TYPE_CHECKING, Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.fidelity.comparison import SIDES

if TYPE_CHECKING:
    from workflow_scripts.fidelity.comparison import Comparison, Results

FID: Final = Metric("fid", "FID", "lower", 3, SIDES)
METRICS: Final = (FID,)


def measure(comparison: "Comparison", results: "Results") -> None:
    """Add the FID."""
    from workflow_scripts.fidelity import frechet

    reason = comparison.too_few(2)
    if reason is not None:
        results.add_none(FID, comparison, reason)
        return
    value = frechet.frechet_distance(comparison.x, comparison.y, comparison.device)
    results.add(FID, comparison, value)
