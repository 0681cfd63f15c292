"""Does fidelity foretell utility? The paper's Table 10, and its correlations with their intervals.

The paper ranks the models by FID and by each task and correlates the ranks (Pearson on ranks where
ties take the lowest rank). Ranks are of values as the tables print them, so that what a reader sees
as equal is equal. Spearman's correlation, beside it, is of the values with all their digits and
gives ties their mean rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.assemble import Cell, Row, Table, table_of
from workflow_scripts.tables.layout import LAYOUTS, Column
from workflow_scripts.tables.models import NOT_RUN, ModelEntry
from workflow_scripts.tables.run import Run

FEWEST_MODELS: Final = 4
"""Models below which a correlation has no interval (it needs n - 3 degrees of freedom)."""


@dataclass(frozen=True)
class Measure:
    """What the models are ranked by.

    Attributes:
        key: of its column.
        name: for readers.
        stage, family, metric: of its values in records.
        decimals: with which the tables print it.
        lower: whether the lowest value is the best.
    """

    key: str
    name: str
    stage: str
    family: str
    metric: str
    decimals: int
    lower: bool = False


FIDELITY: Final = Measure("fid", "FID", "fidelity", "rad_dino", "fid", 3, lower=True)
RANKED: Final = (
    Measure(
        "classification", "Classification", "downstream", "classification/augmented", "auroc", 2
    ),
    Measure("segmentation", "Segmentation", "downstream", "segmentation/augmented", "dice", 3),
)
"""The tasks of the paper's Table 10."""

TASKS: Final = (
    *RANKED,
    Measure(
        "report_generation",
        "Report generation",
        "downstream",
        "report_generation/augmented",
        "chexbert_micro_f1_14",
        2,
    ),
)
"""The tasks whose correlation with fidelity is computed."""

RANKS: Final = LAYOUTS["table10_task_ranks"]
CORRELATIONS: Final = LAYOUTS["table10b_rank_correlations"]


def task_rank_tables(run: Run) -> dict[str, Table]:
    """Return Table 10 and its correlations, by stem; the controls are not ranked."""
    measurements, ranked = run.measurements, run.competing
    fidelity = measured(measurements, ranked, FIDELITY)
    tables = {}
    for layout, rows in (
        (RANKS, _rank_rows(measurements, ranked)),
        (CORRELATIONS, [_correlation_row(measurements, ranked, fidelity, task) for task in TASKS]),
    ):
        tables[layout.stem] = table_of(layout, rows, run, counts=False)
    return tables


def measured(
    measurements: Measurements, models: Sequence[ModelEntry], measure: Measure
) -> np.ndarray:
    """Return a measure of each model, (models,), turned so that lower is better; nan for none."""
    rows = [
        measurements.find(measure.stage, measure.family, model.key, measure.metric)
        for model in models
    ]
    found = np.array([row.value if row else None for row in rows], dtype=float)
    return found if measure.lower else -found


def ranks(values: np.ndarray, decimals: int) -> np.ndarray:
    """Return ranks from 1 of values as printed, lower first; ties share the lowest, nan stays."""
    found = np.full(len(values), np.nan)
    known = np.isfinite(values)
    printed = [float(f"{value:.{decimals}f}") for value in values[known]]
    found[known] = stats.rankdata(printed, method="min")
    return found


def with_interval(
    r: float, n: int, spearman: bool, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of a correlation over n pairs, by Fisher's transformation.

    Spearman's has the wider variance of Bonett and Wright (Psychometrika 2000). None below
    FEWEST_MODELS pairs and at -1 or 1, where the transformation ends.
    """
    if n < FEWEST_MODELS or abs(r) >= 1 - 1e-12:
        return None
    half = stats.norm.ppf((1 + level) / 2) * math.sqrt((1 + spearman * r * r / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _rank_rows(measurements: Measurements, models: Sequence[ModelEntry]) -> list[Row]:
    columns = []
    for measure in (FIDELITY, *RANKED):
        columns.append(ranks(measured(measurements, models, measure), measure.decimals))
    rows = []
    for i, model in enumerate(models):
        cells = []
        for column, of_models, measure in zip(
            RANKS.columns, columns, (FIDELITY, *RANKED), strict=True
        ):
            if np.isfinite(of_models[i]):
                cells.append(Cell(column, float(of_models[i])))
            else:
                cells.append(Cell(column, None, reason=_why(measurements, model, measure)))
        rows.append(Row(model.key, model.name, "model", (), tuple(cells)))
    return rows or [
        Row("none", "–", "model", (), tuple(Cell(c, None, reason=NOT_RUN) for c in RANKS.columns))
    ]


def _why(measurements: Measurements, model: ModelEntry, measure: Measure) -> str:
    if not measurements.has(measure.stage, measure.family, model.key):
        return model.why_missing(measure.stage)
    found = measurements.find(measure.stage, measure.family, model.key, measure.metric)
    return (found.reason if found else f"the record has no {measure.metric}") or NOT_RUN


def _correlation_row(
    measurements: Measurements, models: Sequence[ModelEntry], fidelity: np.ndarray, task: Measure
) -> Row:
    values = measured(measurements, models, task)
    known = np.isfinite(values) & np.isfinite(fidelity)
    n = int(known.sum())
    pearson, spearman = CORRELATIONS.columns
    reason = None
    if n < 3:
        reason = f"{n} model(s) have both values: a correlation needs 3"
    elif len(set(values[known])) == 1 or len(set(fidelity[known])) == 1:
        reason = "all values are equal"
    if reason is not None:
        cells = [Cell(column, None, n, reason=reason) for column in CORRELATIONS.columns]
        return Row(task.key, task.name, "pair", (), tuple(cells))
    by_task, by_fidelity = ranks(values[known], task.decimals), ranks(fidelity[known], 3)
    if len(set(by_task)) == 1 or len(set(by_fidelity)) == 1:
        first = Cell(pearson, None, n, reason="all ranks are equal")
    else:
        first = _cell(pearson, float(np.corrcoef(by_fidelity, by_task)[0, 1]), n)
    r = float(stats.spearmanr(fidelity[known], values[known]).statistic)
    return Row(task.key, task.name, "pair", (), (first, _cell(spearman, r, n)))


def _cell(column: Column, r: float, n: int) -> Cell:
    interval = with_interval(r, n, column.metric == "spearman")
    kind = None if interval is None else "95%, by Fisher's transformation"
    return Cell(column, r, n, interval=interval, interval_kind=kind)
