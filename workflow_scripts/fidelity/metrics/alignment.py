"""Alignment: the mean cosine of the images with their captions, in BioViL-T's joint space."""

from typing import TYPE_CHECKING, Final

import numpy as np

from workflow_scripts.common.measurement import Metric
from workflow_scripts.common.records import Value
from workflow_scripts.fidelity.comparison import SIDES, replicates, too_few
from workflow_scripts.fidelity.resample import means_without

if TYPE_CHECKING:
    from workflow_scripts.fidelity.comparison import Comparison, Results

ALIGNMENT: Final = Metric("alignment", "Alignment Score", "higher", 3, SIDES)
METRICS: Final = (ALIGNMENT,)


def measure(comparison: "Comparison", results: "Results") -> None:
    """Add the mean, its interval and, over all images, its replicates."""
    from workflow_scripts.fidelity import alignment

    if comparison.cosines is None:
        return
    cosines = comparison.cosines[comparison.generated_rows]
    patients = comparison.generated.patients[comparison.generated_rows]
    subset, key, direction = comparison.subset, ALIGNMENT.key, ALIGNMENT.direction
    if not len(cosines):
        reason = too_few(0, None, 1, subset)
        results.values.append(Value(key, None, direction, 0, subset, None, reason=reason))
        return
    mean, interval = alignment.mean_with_interval(cosines, patients)
    if interval is not None:  # of few patients Student's may reach beyond what a cosine can be
        interval = (max(-1.0, interval[0]), min(1.0, interval[1]))
    kind = None if interval is None else "t 95% over patients"
    results.values.append(Value(key, mean, direction, len(cosines), subset, None, interval, kind))
    if subset == "all" and len(np.unique(patients)) > 1:
        without = means_without(cosines, patients)
        results.replicates[key] = replicates("jackknife", without, len(without))
