"""Whether fidelity predicts utility: the paper's Table 10, and correlations with their intervals.

The paper ranks the models by FID and by each task, and computes Pearson's correlation of the ranks.
Ties take the lowest rank. The ranks follow from the printed values, so that values that look equal
to a reader tie. Spearman's correlation uses all digits and gives ties their mean rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.derive.long_table import Head, LongTable, Number, without_rows
from workflow_scripts.tables.models import NOT_RUN, ModelEntry
from workflow_scripts.tables.published import Key

FEWEST_MODELS: Final = 4
"""With fewer models a correlation has no interval (it needs n - 3 degrees of freedom)."""


@dataclass(frozen=True)
class Measure:
    """A measure by which the models are ranked.

    Attributes:
        key: the first part of the key of its ranks.
        name: its name for readers.
        stage, family, metric: the keys of its measurements.
        decimals: digits after the point in the tables that print it.
        lower: whether lower is better.
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


def task_ranks(measurements: Measurements, models: Sequence[ModelEntry]) -> LongTable:
    """Return the models' ranks by FID and by each task of the paper's table."""
    if not models:
        return without_rows(NOT_RUN)
    numbers: dict[Key, Number] = {}
    for measure in (FIDELITY, *RANKED):
        by_model = ranks(measured(measurements, models, measure), measure.decimals)
        for model, rank in zip(models, by_model, strict=True):
            numbers[model.key, f"{measure.key}_rank", "all", ""] = (
                Number(float(rank))
                if np.isfinite(rank)
                else Number(None, reason=_why_missing(measurements, model, measure))
            )
    return LongTable(tuple(Head(m.key, m.name, "model") for m in models), numbers)


def correlations(measurements: Measurements, models: Sequence[ModelEntry]) -> LongTable:
    """Return the correlations of fidelity with each task over the models."""
    fidelity = measured(measurements, models, FIDELITY)
    numbers: dict[Key, Number] = {}
    for task in TASKS:
        pearson, spearman = _correlated(fidelity, measured(measurements, models, task), task)
        numbers[task.key, "pearson_of_ranks", "all", ""] = pearson
        numbers[task.key, "spearman", "all", ""] = spearman
    return LongTable(tuple(Head(task.key, task.name, "pair") for task in TASKS), numbers)


def measured(
    measurements: Measurements, models: Sequence[ModelEntry], measure: Measure
) -> np.ndarray:
    """Return a measure of each model, (models,), negated where higher is better; nan for none."""
    rows = [
        measurements.find(measure.stage, measure.family, model.key, measure.metric)
        for model in models
    ]
    values = np.array([row.value if row else None for row in rows], dtype=float)
    return values if measure.lower else -values


def ranks(values: np.ndarray, decimals: int) -> np.ndarray:
    """Return the ranks from 1 of values as printed, the lowest value first, (models,).

    Ties share the lowest rank, and nan stays nan.
    """
    printed = np.array([float(f"{value:.{decimals}f}") for value in values])
    return stats.rankdata(printed, method="min", nan_policy="omit")


def with_interval(
    r: float, n: int, spearman: bool, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of a correlation over n pairs, by Fisher's transformation.

    Spearman's correlation has the larger variance of Bonett and Wright (Psychometrika 2000). None
    with fewer than FEWEST_MODELS pairs, and at -1 or 1, where the transformation is infinite.
    """
    if n < FEWEST_MODELS or abs(r) >= 1 - 1e-12:
        return None
    half = stats.norm.ppf((1 + level) / 2) * math.sqrt((1 + spearman * r * r / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _why_missing(measurements: Measurements, model: ModelEntry, measure: Measure) -> str:
    if not measurements.has(measure.stage, measure.family, model.key):
        return model.why_missing(measure.stage)
    row = measurements.find(measure.stage, measure.family, model.key, measure.metric)
    return (row.reason if row else f"the record has no {measure.metric}") or NOT_RUN


def _correlated(fidelity: np.ndarray, values: np.ndarray, task: Measure) -> tuple[Number, Number]:
    """Return Pearson's correlation of ranks and Spearman's of values, both (models,) with nan."""
    known = np.isfinite(values) & np.isfinite(fidelity)
    n = int(known.sum())
    reason = None
    if n < 3:
        reason = f"{n} model(s) have both values: a correlation needs 3"
    elif len(set(values[known])) == 1 or len(set(fidelity[known])) == 1:
        reason = "all values are equal"
    if reason is not None:
        return Number(None, n, reason=reason), Number(None, n, reason=reason)
    by_task = ranks(values[known], task.decimals)
    by_fidelity = ranks(fidelity[known], FIDELITY.decimals)
    pearson = Number(None, n, reason="all ranks are equal")
    if len(set(by_task)) > 1 and len(set(by_fidelity)) > 1:
        r = float(np.corrcoef(by_fidelity, by_task)[0, 1])
        pearson = _number(r, n, spearman=False)
    r = float(stats.spearmanr(fidelity[known], values[known]).statistic)
    return pearson, _number(r, n, spearman=True)


def _number(r: float, n: int, *, spearman: bool) -> Number:
    interval = with_interval(r, n, spearman)
    kind = None if interval is None else "95%, by Fisher's transformation"
    return Number(r, n, interval=interval, interval_kind=kind)
