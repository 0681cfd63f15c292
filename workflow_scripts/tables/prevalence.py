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
from workflow_scripts.common.records import Record
from workflow_scripts.tables.assemble import (
    FEWEST_RANKED,
    Cell,
    Row,
    Table,
    is_few,
    table_of,
    with_published,
)
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.layout import FLOOR_LABEL, Column, Layout
from workflow_scripts.tables.models import NOT_RUN, ModelEntry
from workflow_scripts.tables.published import Published, printed_rows
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

MEASURES: Final = {"fid": "FID (RadDino)", "excess": "FID less its floor", "kid": "KID (RadDino)"}
"""What is set against prevalence, and its name."""

FEWEST_FINDINGS: Final = 3
"""Findings below which a rank correlation says nothing."""

PREVALENCE: Final = Layout(
    stem="table09_prevalence",
    number="9",
    title="Prevalence and fidelity",
    stage="fidelity",
    family="rad_dino",
    row_header="Pathology",
    columns=(
        Column("Count (n)", "count", "none", 0),
        Column("Prevalence Rank", "prevalence_rank", "none", 0),
        *(
            column
            for key, name in MEASURES.items()
            for column in (
                Column(name, key, "lower", 3 if key == "kid" else 2),
                Column(f"Rank by {name.split(' (')[0]}", f"{key}_rank", "none", 0),
            )
        ),
    ),
    n_labels=("Models", "Reference images"),
    explanation=(
        "Training images with the finding, and the mean over the models of FID, of FID less what "
        "real images score against other patients' at the same sample size (Table 2 says which), "
        "and of KID; rank 1 is the most frequent finding and the lowest value."
    ),
)

_PRINTED_COLUMNS: Final = ("count", "prevalence_rank", "fid", "fid_rank")
_PAPERS_CODES: Final = {
    "AT": "Atelectasis",
    "CM": "Cardiomegaly",
    "CD": "Consolidation",
    "ED": "Edema",
    "EC": "Enlarged Cardiomediastinum",
    "Frac.": "Fracture",
    "LL": "Lung Lesion",
    "LO": "Lung Opacity",
    "NF": "No Finding",
    "PE": "Pleural Effusion",
    "PO": "Pleural Other",
    "PN": "Pneumonia",
    "PT": "Pneumothorax",
    "SD": "Support Devices",
}
"""The paper's Table 9: its columns, and how it names the findings."""

CORRELATION: Final = Layout(
    stem="table09b_prevalence_correlation",
    number="9b",
    title="Rank correlation of prevalence and fidelity (Spearman)",
    stage="fidelity",
    family="rad_dino",
    columns=tuple(Column(name, key, "none", 3) for key, name in MEASURES.items()),
    n_labels=("Findings", "Reference images"),
    explanation=(
        "Of the ranks of Table 9, for each model: 1 means that the rarer finding is always the "
        "worse one. The floor's row is what real images show against real ones, by sample size "
        "and by how much images with a finding differ; a correlation of FID is evidence about a "
        "model only as far as it exceeds that."
    ),
)


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
    measured = measure(run.records, run.models)
    mean = average([entry for entry in measured if entry.kind == "model"])
    tables = {}
    for layout, rows in (
        (PREVALENCE, _finding_rows(counts, mean)),
        (CORRELATION, _correlation_rows(counts, measured, mean, floor_of(run.records, run.models))),
    ):
        if run.of_the_paper and layout is PREVALENCE:
            rows = [with_published(row, printed_prevalence(), run.protocol) for row in rows]
        tables[layout.stem] = table_of(layout, rows, run, counts=False)
    return tables


def printed_prevalence() -> dict[tuple[str, str, str, str], Published]:
    """Return Table 9's printed numbers, keyed as by `published_values`, a finding as the model."""
    found = {}
    for code, *texts in printed_rows(PREVALENCE.stem)[1:]:
        for metric, text in zip(_PRINTED_COLUMNS, texts, strict=True):
            key = (_PAPERS_CODES[code], metric, "all", "")
            found[key] = Published(*key, float(text.replace(",", "")), text)
    return found


def positives(cohort: dict[str, SplitCounts]) -> np.ndarray:
    """Return the training images with each finding, int (14,); zeros without a training split."""
    found = cohort["train"].positives if "train" in cohort else {}
    return np.array([found.get(name, 0) for name in FINDINGS])


def measure(records: Records, models: Sequence[ModelEntry]) -> list[Measured]:
    """Return the per-finding values of every model and control that has a fidelity record."""
    found = []
    for model in models:
        record = records.find("fidelity", "rad_dino", model.key)
        if record is None:
            continue
        fid, kid = _values(record, "fid"), _values(record, "kid")
        excess = fid - _values(record, "fid_floor")
        kind = "control" if model.is_control else "model"
        values = {"fid": fid, "excess": excess, "kid": kid}
        found.append(Measured(model.key, model.name, kind, values))
    return found


def average(measured: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Return the mean over models, (14,) by measure; nan where any model has no value."""
    if not measured:
        return {key: np.full(len(FINDINGS), np.nan) for key in MEASURES}
    return {key: np.mean([entry.values[key] for entry in measured], axis=0) for key in MEASURES}


def floor_of(records: Records, models: Sequence[ModelEntry]) -> np.ndarray:
    """Return the floor of FID per finding, (14,), of the first model that has a record."""
    ordered = sorted(models, key=lambda model: model.is_control)
    for model in ordered:
        record = records.find("fidelity", "rad_dino", model.key)
        if record is not None:
            return _values(record, "fid_floor")
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


def _values(record: Record, metric: str) -> np.ndarray:
    """Return a metric per finding, (14,); nan where it rests on too few images to be ranked."""
    found = {
        value.subset: value.value
        for value in record.values
        if value.metric == metric and not is_few(value)
    }
    return np.array([found.get(name) for name in FINDINGS], dtype=float)


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
