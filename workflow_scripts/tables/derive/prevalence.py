"""Fidelity against prevalence: the paper's Table 9, and the part of it that is sample size.

The paper ranks the findings by their frequency and by the models' mean FID. The rank correlation is
0.947. But FID is larger on fewer images even for a perfect generator, and any two monotone
quantities have nearly the same ranks. So three more correlations are computed:
- of the floor: the FID between real images and other real images, at each finding's sample size;
- of FID less its floor;
- of KID, which has no such bias.
The floor of MIMIC-CXR's findings has not been measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.derive.long_table import (
    ENCODER,
    FEWEST_RANKED,
    FLOOR_LABEL,
    Head,
    LongTable,
    Number,
    few,
)
from workflow_scripts.tables.models import NOT_RUN, ModelEntry, controls_last
from workflow_scripts.tables.published import Key

MEASURES: Final = {"fid": "FID (RadDino)", "excess": "FID less its floor", "kid": "KID (RadDino)"}
"""The quantities that are correlated with prevalence, with their names for readers."""

FEWEST_FINDINGS: Final = 3
"""With fewer findings no rank correlation is computed."""


@dataclass(frozen=True)
class Measured:
    """A model's values per finding.

    Attributes:
        key, label, kind: see `long_table.Head`.
        values: an array (14,) for each of `MEASURES`; nan where there is no value.
    """

    key: str
    label: str
    kind: str
    values: dict[str, np.ndarray]


def positives(cohort: dict[str, SplitCounts]) -> np.ndarray:
    """Return the training images with each finding, int (14,); zeros without a training split."""
    counts = cohort["train"].positives if "train" in cohort else {}
    return np.array([counts.get(name, 0) for name in FINDINGS])


def measure(measurements: Measurements, models: Sequence[ModelEntry]) -> list[Measured]:
    """Return the per-finding values of every model and control whose fidelity was measured."""
    rows = []
    for model in models:
        if not measurements.has("fidelity", ENCODER, model.key):
            continue
        fid, kid = (_values(measurements, model, metric) for metric in ("fid", "kid"))
        excess = fid - _values(measurements, model, "fid_floor")
        values = {"fid": fid, "excess": excess, "kid": kid}
        rows.append(Measured(model.key, model.name, model.kind, values))
    return rows


def average(measured: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Return the mean over models, (14,) by measure; nan where any model has no value."""
    if not measured:
        return {key: np.full(len(FINDINGS), np.nan) for key in MEASURES}
    return {key: np.mean([entry.values[key] for entry in measured], axis=0) for key in MEASURES}


def floor_of(measurements: Measurements, models: Sequence[ModelEntry]) -> np.ndarray:
    """Return the floor of FID per finding, (14,), from the first model that was measured."""
    for model in controls_last(models):
        if measurements.has("fidelity", ENCODER, model.key):
            return _values(measurements, model, "fid_floor")
    return np.full(len(FINDINGS), np.nan)


def correlation(counts: np.ndarray, values: np.ndarray) -> tuple[float | None, int, str | None]:
    """Return Spearman's correlation of values with falling prevalence.

    Args:
        counts: (14,) training images with each finding; findings without any are left out.
        values: (14,); nan is left out.

    Returns:
        The correlation in -1..1 (None if it is undefined), the number of findings, and the reason
        if there is none.
    """
    known = np.isfinite(values) & (counts > 0)
    n = int(known.sum())
    if n < FEWEST_FINDINGS:
        return None, n, f"only {n} finding(s) have a count and a value"
    if len(set(counts[known])) == 1 or len(set(values[known])) == 1:
        return None, n, "all counts or all values are equal"
    return float(stats.spearmanr(-counts[known], values[known]).statistic), n, None


def prevalence(counts: np.ndarray, measured: Sequence[Measured]) -> LongTable:
    """Return the findings by prevalence, with the models' mean values and the ranks of both.

    Args:
        counts: (14,) training images with each finding.
        measured: models and controls; the mean leaves controls out.
    """
    mean = average([row for row in measured if row.kind == "model"])
    by_metric = {"count": counts.astype(float)}
    by_metric["prevalence_rank"] = _ranks(np.where(counts > 0, -counts, np.nan).astype(float))
    for key in MEASURES:
        by_metric |= {key: mean[key], f"{key}_rank": _ranks(mean[key])}
    order = [FINDINGS[j] for j in np.argsort(-counts, kind="stable")]
    numbers: dict[Key, Number] = {
        (finding, metric, "all", ""): Number(float(value))
        for metric, values in by_metric.items()
        for finding, value in zip(FINDINGS, values, strict=True)
        if np.isfinite(value)
    }
    why = f"not known for every model on {FEWEST_RANKED} or more images"
    heads = tuple(Head(finding, finding, "finding") for finding in order)
    return LongTable(heads, numbers, dict.fromkeys(FINDINGS, why))


def correlations(counts: np.ndarray, measured: Sequence[Measured], floor: np.ndarray) -> LongTable:
    """Return the correlation of prevalence with each model's measures and with the floor.

    Args:
        counts: (14,) training images with each finding.
        measured: models and controls; the mean leaves controls out.
        floor: the floor of FID, (14,).
    """
    rows = [row for row in measured if row.kind == "model"]
    if len(rows) > 1:
        rows.append(Measured("average", "The models' mean values", "average", average(rows)))
    rows += [row for row in measured if row.kind == "control"]
    heads = [Head(row.key, row.label, row.kind) for row in rows]
    heads.append(Head("floor", FLOOR_LABEL, "floor"))
    numbers: dict[Key, Number] = {}
    for row in rows:
        for key in MEASURES:
            value, n, reason = correlation(counts, row.values[key])
            numbers[row.key, key, "all", ""] = Number(value, n, reason=reason)
    why = NOT_RUN
    if measured:
        value, n, reason = correlation(counts, floor)
        numbers["floor", "fid", "all", ""] = Number(value, n, reason=reason)
        why = "a perfect generator has no value but the noise around zero"
    return LongTable(tuple(heads), numbers, {"floor": why})


def _values(measurements: Measurements, model: ModelEntry, metric: str) -> np.ndarray:
    """Return a metric per finding, (14,); nan where there are too few images for a rank."""
    rows = [measurements.find("fidelity", ENCODER, model.key, metric, name) for name in FINDINGS]
    values = [row.value if row and not few(row.n, row.n_reference) else None for row in rows]
    return np.array(values, dtype=float)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, (14,); equal values share the smaller rank, and nan stays nan."""
    return stats.rankdata(values, method="min", nan_policy="omit")
