"""The leaderboard: the ranks of Table 8 with simultaneous confidence intervals.

A bootstrap of the ranks is not valid. Resampling adds noise to values that are noisy already. This
moves the ranks of close models towards the middle, and percentiles of the average rank then miss
the truth. The intervals are confidence sets for ranks instead (Mogstad, Romano, Shaikh and Wilhelm,
Review of Economic Studies 2024). With k models significantly better, a model's rank by a metric is
at least k + 1. With k models significantly worse, it is at most the number of models less k.

Significance is tested for all pairs and all metrics together, by Holm's correction of the paired
differences. So with 95% probability all intervals hold at once. This needs no assumption about the
dependence between metrics, and models may be equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.derive.holm import holm
from workflow_scripts.tables.derive.long_table import Head, LongTable, Number, without_rows
from workflow_scripts.tables.derive.metric_ranks import (
    NO_MODEL,
    RankedMetric,
    average_of,
    lower_is_better,
    metric_numbers,
    ranks_of,
    used_metrics,
    why_unranked,
)
from workflow_scripts.tables.derive.paired import difference
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.published import Key
from workflow_scripts.tables.records_in import Records

_KIND: Final = "95%, all of them together"


def leaderboard(
    records: Records,
    measurements: Measurements,
    models: Sequence[ModelEntry],
    metrics: Sequence[RankedMetric],
) -> LongTable:
    """Return the models in the order of their average rank, with the bounds of all ranks.

    Models without a rank come last.

    Args:
        records: the records of all stages, with their replicates.
        measurements: the same values as a long table.
        models: the models to rank.
        metrics: the metrics to rank by.
    """
    if not models:
        return without_rows(NO_MODEL)
    numbers = metric_numbers(measurements, models, metrics)
    values = lower_is_better(numbers, metrics)
    reasons = {
        model.key: why
        for model, row in zip(models, numbers, strict=True)
        if (why := why_unranked(row, values, metrics)) is not None
    }
    ranked = [model for model in models if model.key not in reasons]
    ranked_rows = [numbers[i] for i, model in enumerate(models) if model.key not in reasons]
    by_key, ordered = _ranks_with_bounds(records, ranked, ranked_rows, metrics)
    unranked = [model for model in models if model.key in reasons]
    heads = tuple(Head(model.key, model.name, "model") for model in [*ordered, *unranked])
    return LongTable(heads, by_key, reasons)


@dataclass(frozen=True)
class RankBounds:
    """Bounds of the ranks, from the significant differences.

    Attributes:
        low, high: (models, metrics), bounds of the rank by each metric.
        average_low, average_high: (models,), bounds of the mean rank over metrics.
        final_low, final_high: (models,), bounds of the rank by this mean.
    """

    low: np.ndarray
    high: np.ndarray
    average_low: np.ndarray
    average_high: np.ndarray
    final_low: np.ndarray
    final_high: np.ndarray


def rank_bounds(better: np.ndarray) -> RankBounds:
    """Return the bounds of all ranks, from who is known to be better than whom.

    For the rank by the mean, two models are compared directly, which gives sharper bounds than
    their two mean ranks. For each metric, `ahead` is the least number of ranks by which k leads j.
    If k is significantly better, this is one more than the number of models that certainly lie
    between the two. Otherwise it is negative: j may lead by one more than the number of models that
    may lie between. If the sum over the metrics is above zero, k certainly has the lower mean rank.

    Args:
        better: (metrics, models, models) bool; [m, k, j] says that k is significantly better than j
            by metric m.
    """
    better = _closure(better)
    models = better.shape[1]
    low = 1 + better.sum(axis=1).T
    high = models - better.sum(axis=2).T
    counts, open_ = better.astype(int), (~better).astype(int)
    between = counts @ counts  # models that are worse than k and better than j
    maybe = open_ @ open_ - 2  # models that may lie between, if j is better; not counting j and k
    ahead = np.where(better, 1 + between, -(1 + maybe))
    surely = ahead.sum(axis=0) > 0
    np.fill_diagonal(surely, False)
    return RankBounds(
        low,
        high,
        low.mean(axis=1),
        high.mean(axis=1),
        1 + surely.sum(axis=0),
        models - surely.sum(axis=1),
    )


def _closure(better: np.ndarray) -> np.ndarray:
    """Return the transitive closure: if a is better than b, and b than c, then a is than c."""
    while True:
        counts = better.astype(int)
        more = better | (counts @ counts > 0)
        if (more == better).all():
            return better
        better = more


def better_beyond_noise(
    records: Records, models: Sequence[ModelEntry], metrics: Sequence[RankedMetric]
) -> np.ndarray:
    """Return which model is significantly better than which, (metrics, models, models) bool.

    A pair is False in both directions if its difference or the noise of it is not known.

    Args:
        records: the records of all stages.
        models: the models to compare.
        metrics: the metrics to rank by.
    """
    better = np.zeros((len(metrics), len(models), len(models)), dtype=bool)
    tested: list[tuple[float, int, int, int]] = []
    for m, metric in enumerate(metrics):
        by_model = [records.find("fidelity", metric.family, model.key) for model in models]
        for j, k in combinations(range(len(models)), 2):
            first, second = by_model[j], by_model[k]
            if first is None or second is None:
                continue
            gap = difference(first, second, metric.metric)
            if gap.value is None or gap.p is None:
                continue
            first_is_better = (gap.value < 0) == (metric.direction == "lower")
            tested.append((gap.p, m, *((j, k) if first_is_better else (k, j))))
    significant = holm([p for p, *_ in tested])
    for (_, m, winner, loser), is_better in zip(tested, significant, strict=True):
        better[m, winner, loser] = is_better
    return better


def _ranks_with_bounds(
    records: Records,
    models: Sequence[ModelEntry],
    numbers: Sequence[Sequence[Number]],
    metrics: Sequence[RankedMetric],
) -> tuple[Mapping[Key, Number], list[ModelEntry]]:
    """Return the ranks of complete models, and these models with the best first.

    Args:
        records: the records of all stages.
        models: models that have a value by every metric by which any model has one.
        numbers: the values of each model, by metric.
        metrics: the metrics to rank by.
    """
    if not models:
        return {}, []
    values = lower_is_better(numbers, metrics)
    used = np.flatnonzero(used_metrics(values))
    ranks = ranks_of(values)
    average = average_of(ranks)
    final = ranks_of(average[:, None])[:, 0]
    bounds = rank_bounds(better_beyond_noise(records, models, metrics)[used])
    by_key: dict[Key, Number] = {}
    for i, model in enumerate(models):
        by_key[model.key, "rank", "all", ""] = _bounded(
            final[i], bounds.final_low[i], bounds.final_high[i]
        )
        by_key[model.key, "average_rank", "all", ""] = _bounded(
            average[i], bounds.average_low[i], bounds.average_high[i]
        )
        for j, (metric, number) in enumerate(zip(metrics, numbers[i], strict=True)):
            if j not in used:
                by_key[metric.key(model.key)] = Number(None, reason=number.reason)
                continue
            place = int(np.searchsorted(used, j))
            rank = _bounded(ranks[i, j], bounds.low[i, place], bounds.high[i, place])
            by_key[metric.key(model.key)] = replace(
                rank, n=number.n, n_reference=number.n_reference
            )
    return by_key, [models[i] for i in np.argsort(average, kind="stable")]


def _bounded(value: float, low: float, high: float) -> Number:
    return Number(float(value), interval=(float(low), float(high)), interval_kind=_KIND)
