"""Fidelity against prevalence: the paper's Table 9, and how much of it is the sample size.

The paper ranks the findings by how frequent they are and by the models' mean FID, and finds a rank
correlation of 0.947. FID grows as images get fewer, for a perfect generator too, and the ranks of
any two things that go one way agree nearly wholly. So the correlation of the floor (real against
real, at each finding's size), FID less its floor, and KID, which has no such bias, stand beside it.
What the floor of MIMIC-CXR's findings gives has not been measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.assemble import (
    FEWEST_RANKED,
    Cell,
    Row,
    Table,
    is_few,
    table_of,
)
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.layout import FLOOR_LABEL, LAYOUTS, Column
from workflow_scripts.tables.models import NOT_RUN, ModelEntry
from workflow_scripts.tables.run import Run

MEASURES: Final = {"fid": "FID (RadDino)", "excess": "FID less its floor", "kid": "KID (RadDino)"}
"""What is set against prevalence, and its name."""

FEWEST_FINDINGS: Final = 3
"""Findings below which a rank correlation says nothing."""

PREVALENCE: Final = LAYOUTS["table09_prevalence"]
CORRELATION: Final = LAYOUTS["table09b_prevalence_correlation"]


@dataclass(frozen=True)
class Measured:
    """A model's values per finding, nan where there is none: arrays (14,) by `MEASURES`."""

    key: str
    label: str
    kind: str
    values: dict[str, np.ndarray]


def prevalence_tables(run: Run) -> dict[str, Table]:
    """Return Table 9 and its correlations, by stem.

    Prevalence is that of the training split; controls do not count in the mean.
    """
    counts = positives(run.cohort)
    measured = measure(run.measurements, run.models)
    mean = average([entry for entry in measured if entry.kind == "model"])
    floor = floor_of(run.measurements, run.models)
    tables = {}
    for layout, rows in (
        (PREVALENCE, _finding_rows(counts, mean)),
        (
            CORRELATION,
            _correlation_rows(counts, measured, mean, floor),
        ),
    ):
        tables[layout.stem] = table_of(layout, rows, run, counts=False)
    return tables


def positives(cohort: dict[str, SplitCounts]) -> np.ndarray:
    """Return the training images with each finding, int (14,); zeros without a training split."""
    found = cohort["train"].positives if "train" in cohort else {}
    return np.array([found.get(name, 0) for name in FINDINGS])


def measure(measurements: Measurements, models: Sequence[ModelEntry]) -> list[Measured]:
    """Return the per-finding values of every model and control whose fidelity was measured."""
    found = []
    for model in models:
        if not measurements.has("fidelity", "rad_dino", model.key):
            continue
        fid, kid = (_values(measurements, model, metric) for metric in ("fid", "kid"))
        excess = fid - _values(measurements, model, "fid_floor")
        kind = "control" if model.is_control else "model"
        values = {"fid": fid, "excess": excess, "kid": kid}
        found.append(Measured(model.key, model.name, kind, values))
    return found


def average(measured: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Return the mean over models, (14,) by measure; nan where any model has no value."""
    if not measured:
        return {key: np.full(len(FINDINGS), np.nan) for key in MEASURES}
    return {key: np.mean([entry.values[key] for entry in measured], axis=0) for key in MEASURES}


def floor_of(measurements: Measurements, models: Sequence[ModelEntry]) -> np.ndarray:
    """Return the floor of FID per finding, (14,), of the first model that was measured."""
    ordered = sorted(models, key=lambda model: model.is_control)
    for model in ordered:
        if measurements.has("fidelity", "rad_dino", model.key):
            return _values(measurements, model, "fid_floor")
    return np.full(len(FINDINGS), np.nan)


def correlation(counts: np.ndarray, values: np.ndarray) -> tuple[float | None, int, str | None]:
    """Return Spearman's correlation of falling prevalence with rising values.

    Args:
        counts: (14,) training images with each finding; findings without any are left out.
        values: (14,); nan is left out.

    Returns:
        The correlation in -1..1 (None where it is undefined), the number of findings, and why
        there is none.
    """
    known = np.isfinite(values) & (counts > 0)
    n = int(known.sum())
    if n < FEWEST_FINDINGS:
        return None, n, f"only {n} finding(s) have a count and a value"
    if len(set(counts[known])) == 1 or len(set(values[known])) == 1:
        return None, n, "all counts or all values are equal"
    return float(stats.spearmanr(-counts[known], values[known]).statistic), n, None


def _values(measurements: Measurements, model: ModelEntry, metric: str) -> np.ndarray:
    """Return a metric per finding, (14,); nan where it rests on too few images to be ranked."""
    found = [
        measurements.find("fidelity", "rad_dino", model.key, metric, name) for name in FINDINGS
    ]
    return np.array([row.value if row and not is_few(row) else None for row in found], dtype=float)


def _finding_rows(counts: np.ndarray, mean: dict[str, np.ndarray]) -> list[Row]:
    ranks = {key: _ranks(values) for key, values in mean.items()}
    by_count = _ranks(np.where(counts > 0, -counts, np.nan).astype(float))
    rows = []
    for j in np.argsort(-counts, kind="stable"):
        given = {"count": float(counts[j]), "prevalence_rank": by_count[j]}
        for key in MEASURES:
            given |= {key: mean[key][j], f"{key}_rank": ranks[key][j]}
        cells = tuple(
            _cell(
                column,
                given[column.metric],
                f"not known for every model on {FEWEST_RANKED} or more images",
            )
            for column in PREVALENCE.columns
        )
        rows.append(Row(FINDINGS[j], FINDINGS[j], "finding", (), cells))
    return rows


def _correlation_rows(
    counts: np.ndarray,
    measured: Sequence[Measured],
    mean: dict[str, np.ndarray],
    floor: np.ndarray,
) -> list[Row]:
    entries = [entry for entry in measured if entry.kind == "model"]
    if len(entries) > 1:
        entries.append(Measured("average", "Mean of the models", "average", mean))
    entries += [entry for entry in measured if entry.kind == "control"]
    rows = []
    for entry in entries:
        cells = []
        for column in CORRELATION.columns:
            value, n, reason = correlation(counts, entry.values[column.metric])
            cells.append(Cell(column, value, n, reason=reason))
        rows.append(Row(entry.key, entry.label, entry.kind, (), tuple(cells)))
    value, n, reason = correlation(counts, floor)
    none = "a perfect generator has no value but the noise around zero"
    first, *others = CORRELATION.columns
    cells = [Cell(first, value, n, reason=reason or None)]
    cells += [Cell(column, None, reason=none) for column in others]
    if not measured:
        cells = [Cell(column, None, reason=NOT_RUN) for column in CORRELATION.columns]
    rows.append(Row("floor", FLOOR_LABEL, "floor", (), tuple(cells)))
    return rows


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, (14,), equal values sharing the smaller one; nan stays nan."""
    ranks = np.full(len(values), np.nan)
    known = np.isfinite(values)
    ranks[known] = stats.rankdata(values[known], method="min")
    return ranks


def _cell(column: Column, value: float, reason: str) -> Cell:
    if np.isfinite(value):
        return Cell(column, float(value))
    return Cell(column, None, reason=reason)
