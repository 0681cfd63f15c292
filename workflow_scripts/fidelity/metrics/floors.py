"""The floors of FID: real images against real images of other patients, at the same sizes."""

from typing import TYPE_CHECKING, Final

import numpy as np

from workflow_scripts.common.measurement import Metric
from workflow_scripts.common.records import Value
from workflow_scripts.fidelity.comparison import SIDES

if TYPE_CHECKING:
    from workflow_scripts.fidelity.comparison import Comparison, Results
    from workflow_scripts.fidelity.floor import Floor

OTHERS: Final = Metric("fid_floor", "Floor: other patients", "none", 3, SIDES)
MATCHED: Final = Metric("fid_floor_matched", "Floor: caption-matched", "none", 3, SIDES)
ALONE: Final = Metric("prompts_without_partner", "Prompts without a match", "none", 0, SIDES)
METRICS: Final = (OTHERS, MATCHED, ALONE)
"""They are computed from real images alone."""


def measure(comparison: "Comparison", results: "Results") -> None:
    """Add the floors at the sizes of the comparison, and the number of images without a partner."""
    from workflow_scripts.fidelity import floor as floors

    for metric in (OTHERS, MATCHED):
        results.floors.setdefault(metric.key, {})
    reason = comparison.too_few(2)
    if reason is not None:
        for metric in METRICS:
            results.add_none(metric, comparison, reason)
        return
    real, subset, real_rows = comparison.real, comparison.subset, comparison.real_rows
    column, seed, device = comparison.column, comparison.settings.seed, comparison.device
    findings = np.unique(real.subsets[:, 1:], axis=0, return_inverse=True)[1].ravel()
    images = floors.RealImages(real.features, real.patients, findings)
    in_subset, n, m = images.only(real_rows), len(comparison.y), len(comparison.x)
    rng = np.random.default_rng([seed, column, 1])
    if subset == "all":
        others = floors.fid_floor(images, n, m, rng, device)
    else:
        others = floors.floor_of_finding(images, real_rows, n, m, rng, device)
    reason = f"{len(real.patients)} real image(s) give no two groups of different patients"
    _add(results, OTHERS, others, comparison, reason)
    rng = np.random.default_rng([seed, column, 2])
    matched = floors.matched_floor(in_subset, n, m, rng, device, images)
    reason = (
        f"fewer than {floors.ENOUGH} pairs of real images of two patients with the same findings, "
        "no patient on both sides"
    )
    _add(results, MATCHED, matched, comparison, reason)
    alone = float(floors.without_partner(in_subset))
    results.values.append(Value(ALONE.key, alone, ALONE.direction, m, subset))


def _add(
    results: "Results", metric: Metric, floor: "Floor | None", comparison: "Comparison", reason: str
) -> None:
    if floor is None:
        results.add_none(metric, comparison, reason)
        return
    details = {"groups": list(floor.measured), "draws": floor.draws}
    if metric is OTHERS:
        details["drawn_from"] = "finding" if floor.of_finding else "all"
    results.floors[metric.key][comparison.subset] = details
    results.values.append(
        Value(
            metric.key,
            floor.value,
            metric.direction,
            floor.n,
            comparison.subset,
            floor.n_reference,
        )
    )
