"""The models' ranks by every fidelity metric: the paper's Table 8.

The paper ranks the models by each of nine metrics, among them FID and KID in two encoders. It
averages the nine ranks with equal weight and ranks the averages, which it calls the normalised
rank. Applied to the printed values of its Table 1, this gives the printed ranks in seven columns.
The printed ranks of precision and recall belong to other values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.derive.long_table import (
    ENCODER,
    FEWEST_RANKED,
    Head,
    LongTable,
    Number,
    measured,
    without_rows,
)
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.published import Key

NO_MODEL = "the run has no model but controls"


@dataclass(frozen=True)
class RankedMetric:
    """A fidelity metric by which models are ranked; all have the same weight.

    Attributes:
        metric: the metric's key.
        header: its name for readers.
        direction: whether `higher` or `lower` is better.
        family: the encoder.
        variant: the variant of its ranks, see `published.Key`.
    """

    metric: str
    header: str
    direction: str
    family: str
    variant: str

    def key(self, model: str) -> Key:
        """Return the key of a model's rank by this metric."""
        return (model, f"{self.metric}_rank", "all", self.variant)


def metric_ranks(
    measurements: Measurements, models: Sequence[ModelEntry], metrics: Sequence[RankedMetric]
) -> LongTable:
    """Return each model's rank by each metric, its average rank and the rank of the average.

    Args:
        measurements: the measurements of all stages.
        models: the models to rank.
        metrics: the metrics to rank by.
    """
    if not models:
        return without_rows(NO_MODEL)
    measured_numbers = metric_numbers(measurements, models, metrics)
    values = lower_is_better(measured_numbers, metrics)
    ranks = ranks_of(values)
    average = average_of(ranks)
    final = ranks_of(average[:, None])[:, 0]
    models_ranked = int(np.isfinite(average).sum())
    numbers: dict[Key, Number] = {}
    reasons = {}
    for i, model in enumerate(models):
        why = why_unranked(measured_numbers[i], values, metrics)
        for metric, number, rank in zip(metrics, measured_numbers[i], ranks[i], strict=True):
            numbers[metric.key(model.key)] = (
                Number(float(rank), models_ranked)
                if np.isfinite(rank)
                else Number(None, reason=why or number.reason)
            )
        if why is not None:
            reasons[model.key] = why
            continue
        metrics_ranked = int(np.isfinite(ranks[i]).sum())
        numbers[model.key, "average_rank", "all", ""] = Number(float(average[i]), metrics_ranked)
        numbers[model.key, "normalized_rank", "all", ""] = Number(float(final[i]), models_ranked)
    counted = int(used_metrics(values).sum())
    note = ""
    if 0 < counted < len(metrics):
        note = f"Here the average is over {counted} of the paper's {len(metrics)} metrics."
    heads = tuple(Head(model.key, model.name, "model") for model in models)
    return LongTable(heads, numbers, reasons, note)


def metric_numbers(
    measurements: Measurements, models: Sequence[ModelEntry], metrics: Sequence[RankedMetric]
) -> list[list[Number]]:
    """Return each model's value by each metric, or the reason why it cannot be ranked."""
    rows = []
    for model in models:
        numbers = []
        for metric in metrics:
            why = model.why_missing("fidelity")
            if measurements.has("fidelity", ENCODER, model.key):
                why = f"not run: `fidelity.encoders` does not name {metric.family}"
            number = measured(
                measurements,
                "fidelity",
                metric.family,
                model.key,
                metric.metric,
                why,
                direction=metric.direction,
            )
            if number.value is not None and number.is_few:
                reason = f"of fewer than {FEWEST_RANKED} images: not ranked"
                number = replace(number, value=None, interval=None, reason=reason)
            numbers.append(number)
        rows.append(numbers)
    return rows


def lower_is_better(
    numbers: Sequence[Sequence[Number]], metrics: Sequence[RankedMetric]
) -> np.ndarray:
    """Return the values, (models, metrics), negated where higher is better; nan for none."""
    values = [[np.nan if n.value is None else n.value for n in row] for row in numbers]
    signs = [-1.0 if metric.direction == "higher" else 1.0 for metric in metrics]
    return np.array(values, dtype=float).reshape(-1, len(metrics)) * signs


def used_metrics(values: np.ndarray) -> np.ndarray:
    """Return which metrics are used, (metrics,) bool: those by which any model has a value.

    Args:
        values: (models, metrics), nan for none.
    """
    used: np.ndarray = np.isfinite(values).any(axis=0)
    return used


def ranks_of(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1 within each column, the lowest value first; ties share the lowest rank.

    A model is ranked only if it has a value by every used metric. All other ranks are nan.

    Args:
        values: (models, metrics), nan for none.
    """
    used = used_metrics(values)
    complete = np.isfinite(values[:, used]).all(axis=1) & used.any()
    ranks = np.full(values.shape, np.nan)
    places = np.ix_(complete, used)
    ranks[places] = stats.rankdata(values[places], method="min", axis=0)
    return ranks


def average_of(ranks: np.ndarray) -> np.ndarray:
    """Return each model's mean rank over the used metrics, (models,); nan if not ranked.

    Args:
        ranks: (models, metrics), of `ranks_of`.
    """
    used = used_metrics(ranks)
    if not used.any():
        return np.full(len(ranks), np.nan)
    mean: np.ndarray = ranks[:, used].mean(axis=1)
    return mean


def why_unranked(
    numbers: Sequence[Number], values: np.ndarray, metrics: Sequence[RankedMetric]
) -> str | None:
    """Return why a model is not ranked, or None if it is.

    If no model has any value, the reason is that of the first metric in `ENCODER`.

    Args:
        numbers: the model's numbers, by metric.
        values: (models, metrics), the values of all models.
        metrics: the metrics to rank by.
    """
    used = used_metrics(values)
    if not used.any():
        return next(
            number.reason
            for number, metric in zip(numbers, metrics, strict=True)
            if metric.family == ENCODER
        )
    lacking = [
        (metric, number)
        for metric, number, needed in zip(metrics, numbers, used, strict=True)
        if needed and number.value is None
    ]
    reasons = {number.reason for _, number in lacking}
    if len(reasons) > 1:
        return f"it has no {', '.join(metric.header for metric, _ in lacking)}"
    return lacking[0][1].reason if lacking else None
