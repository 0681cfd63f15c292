"""The leaderboard: the ranks of Table 8, and how far they can be trusted.

Bootstrapping ranks does not do: resampling adds noise to values that are noisy already, which moves
the ranks of close models towards the middle, and the percentiles of an average over metrics then
miss the truth. Instead the intervals are confidence sets for ranks (Mogstad, Romano, Shaikh and
Wilhelm, Review of Economic Studies 2024): a model's rank by a metric is at least one more than the
models that are better beyond noise, and at most the number of models less those that are worse.
What is beyond noise is decided for all pairs and all metrics together (Holm's correction of the
paired differences), so that with 95% probability all intervals hold at once, whatever the
dependence between the metrics and whichever models are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np

from workflow_scripts.tables.assemble import Cell, Row, Table, table_of
from workflow_scripts.tables.holm import holm
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.metric_ranks import (
    METRICS,
    RANKS,
    average_of,
    metric_cells,
    ranks_of,
    turned,
    used_metrics,
    why_unranked,
)
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.paired import difference
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

LEADERBOARD: Final = replace(
    LAYOUTS["table08b_leaderboard"],
    columns=(
        *LAYOUTS["table08b_leaderboard"].columns,
        *(column for column in RANKS.columns if column.rank_of is not None),
    ),
)
"""The rank, and then the ranks of Table 8 that it averages."""

_KIND: Final = "95%, all of them together"


def leaderboard(run: Run) -> Table:
    """Return Table 8b: the models by their average rank, those without one last."""
    entries = run.competing
    cells = metric_cells(run.measurements, entries)
    values = turned(cells)
    why = [why_unranked(own, values) for own in cells]
    on_board = [i for i, reason in enumerate(why) if reason is None]
    rows = _ranked_rows(run.records, [entries[i] for i in on_board], [cells[i] for i in on_board])
    for i, model in enumerate(entries):
        if i not in on_board:
            none = tuple(Cell(column, None, reason=why[i]) for column in LEADERBOARD.columns)
            rows.append(Row(model.key, model.name, "model", (), none))
    if not rows:
        reason = "the run has no model but controls"
        none = tuple(Cell(column, None, reason=reason) for column in LEADERBOARD.columns)
        rows = [Row("none", "–", "model", (), none)]
    return table_of(LEADERBOARD, rows, run)


@dataclass(frozen=True)
class RankBounds:
    """The ranks that known differences leave open.

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

    Of the mean rank the bounds are sharper for a pair than those of its two models would say: that
    of k is lower for certain if the least that it can be ahead, added up over the metrics, is more
    than nothing. By one metric, k better than j for certain is ahead by one more than the models
    that are certainly between; else j may be ahead by one more than those that may be.

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
    """Add what follows: who is better than one that is better than another is better than it."""
    while True:
        counts = better.astype(int)
        more = better | (counts @ counts > 0)
        if (more == better).all():
            return better
        better = more


def better_beyond_noise(records: Records, models: Sequence[ModelEntry]) -> np.ndarray:
    """Return who is better than whom by each of `METRICS`, (metrics, models, models) bool.

    Models whose difference is not known, or has no known noise, are not told apart.

    Args:
        records: of all stages.
        models: to be compared.
    """
    better = np.zeros((len(METRICS), len(models), len(models)), dtype=bool)
    found: list[tuple[float, int, int, int]] = []
    for m, column in enumerate(METRICS):
        own = [records.find("fidelity", column.family, model.key) for model in models]
        for j, k in combinations(range(len(models)), 2):
            first, second = own[j], own[k]
            if first is None or second is None:
                continue
            gap = difference(first, second, column.metric)
            if gap.value is None or gap.p is None:
                continue
            first_better = (gap.value < 0) == (column.direction == "lower")
            found.append((gap.p, m, *((j, k) if first_better else (k, j))))
    for (_, m, winner, loser), apart in zip(found, holm([p for p, *_ in found]), strict=True):
        better[m, winner, loser] = apart
    return better


def _ranked_rows(
    records: Records, models: Sequence[ModelEntry], cells: Sequence[Sequence[Cell]]
) -> list[Row]:
    """Return the rows of models that have every metric that any of them has, the best first."""
    if not models:
        return []
    values = turned(cells)
    used = np.flatnonzero(used_metrics(values))
    ranks = ranks_of(values)
    average = average_of(ranks)
    final = ranks_of(average[:, None])[:, 0]
    bounds = rank_bounds(better_beyond_noise(records, models)[used])
    rows = []
    for i, model in enumerate(models):
        shown = [
            _with_bounds(0, final[i], bounds.final_low[i], bounds.final_high[i]),
            _with_bounds(1, average[i], bounds.average_low[i], bounds.average_high[i]),
        ]
        for j, cell in enumerate(cells[i]):
            column = LEADERBOARD.columns[2 + j]
            if j not in used:
                shown.append(Cell(column, None, reason=cell.reason))
                continue
            place = int(np.searchsorted(used, j))
            low, high = bounds.low[i, place], bounds.high[i, place]
            ranked = _with_bounds(2 + j, ranks[i, j], low, high)
            shown.append(replace(ranked, n=cell.n, n_reference=cell.n_reference))
        rows.append(Row(model.key, model.name, "model", (), tuple(shown)))
    return [rows[i] for i in np.argsort(average, kind="stable")]


def _with_bounds(j: int, value: float, low: float, high: float) -> Cell:
    interval = (float(low), float(high))
    return Cell(LEADERBOARD.columns[j], float(value), interval=interval, interval_kind=_KIND)
