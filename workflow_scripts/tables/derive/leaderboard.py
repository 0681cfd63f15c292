"""The leaderboard: the ranks of Table 8 with simultaneous confidence intervals.

A bootstrap of the ranks is not valid: resampling adds noise to values that are noisy already, which
moves the ranks of close models towards the middle, and the percentiles of an average over metrics
then miss the truth. Instead the intervals are confidence sets for ranks (Mogstad, Romano, Shaikh
and Wilhelm, Review of Economic Studies 2024): a model's rank by a metric is at least one more than
the models that are better beyond noise, and at most the number of models less those that are worse.
What is beyond noise is decided for all pairs and all metrics together (Holm's correction of the
paired differences), so that with 95% probability all intervals hold at once, whatever the
dependence between the metrics and whichever models are equal.
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
    """Return the models by their average rank, with the bounds of all ranks.

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
        for model, of_model in zip(models, numbers, strict=True)
        if (why := why_unranked(of_model, values, metrics)) is not None
    }
    ranked = [model for model in models if model.key not in reasons]
    of_ranked = [numbers[i] for i, model in enumerate(models) if model.key not in reasons]
    by_key, ordered = _ranks_with_bounds(records, ranked, of_ranked, metrics)
    unranked = [model for model in models if model.key in reasons]
    heads = tuple(Head(model.key, model.name, "model") for model in [*ordered, *unranked])
    return LongTable(heads, by_key, reasons)


@dataclass(frozen=True)
class RankBounds:
    """Bounds of the ranks, from the differences that are larger than their noise.

    Attributes:
        low, high: (models, metrics), by each metric.
        average_low, average_high: (models,), of the mean over metrics.
        final_low, final_high: (models,), of the rank by this mean.
    """

    low: np.ndarray
    high: np.ndarray
    average_low: np.ndarray
    average_high: np.ndarray
    final_low: np.ndarray
    final_high: np.ndarray


def rank_bounds(better: np.ndarray) -> RankBounds:
    """Return the bounds of all ranks, from who is known to be better than whom.

    For the mean rank, the bounds of a pair are sharper than those that follow from its two models
    apart. Take how far k is ahead of j by each metric, at least: model k has the lower mean rank
    for certain if these add up to more than zero. Where k is certainly better, it is ahead by one
    more than the models that are certainly between the two; otherwise j may be ahead by one more
    than the models that may be between them.

    Args:
        better: (metrics, models, models) bool: [m, k, j] that k is better than j by metric m.
    """
    better = _closure(better)
    models = better.shape[1]
    low = 1 + better.sum(axis=1).T
    high = models - better.sum(axis=2).T
    counts, open_ = better.astype(int), (~better).astype(int)
    between = counts @ counts  # models that are worse than k and better than j
    maybe = open_ @ open_ - 2  # may stand between j and k, if j is better; without the two
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
    """Add what follows: if a is better than b, and b than c, then a is better than c."""
    while True:
        counts = better.astype(int)
        more = better | (counts @ counts > 0)
        if (more == better).all():
            return better
        better = more


def better_beyond_noise(
    records: Records, models: Sequence[ModelEntry], metrics: Sequence[RankedMetric]
) -> np.ndarray:
    """Return who is better than whom by each metric, (metrics, models, models) bool.

    Models whose difference is not known, or has no known noise, are not told apart.

    Args:
        records: the records of all stages.
        models: the models to compare.
        metrics: the metrics to rank by.
    """
    better = np.zeros((len(metrics), len(models), len(models)), dtype=bool)
    tested: list[tuple[float, int, int, int]] = []
    for m, metric in enumerate(metrics):
        of_models = [records.find("fidelity", metric.family, model.key) for model in models]
        for j, k in combinations(range(len(models)), 2):
            first, second = of_models[j], of_models[k]
            if first is None or second is None:
                continue
            gap = difference(first, second, metric.metric)
            if gap.value is None or gap.p is None:
                continue
            first_is_better = (gap.value < 0) == (metric.direction == "lower")
            tested.append((gap.p, m, *((j, k) if first_is_better else (k, j))))
    rejected = holm([p for p, *_ in tested])
    for (_, m, winner, loser), apart in zip(tested, rejected, strict=True):
        better[m, winner, loser] = apart
    return better


def _ranks_with_bounds(
    records: Records,
    models: Sequence[ModelEntry],
    numbers: Sequence[Sequence[Number]],
    metrics: Sequence[RankedMetric],
) -> tuple[Mapping[Key, Number], list[ModelEntry]]:
    """Return the ranks of models that have every metric that any has; the best come first."""
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
