"""The models' ranks by every metric of fidelity: the paper's Table 8.

The paper ranks the models by each of nine metrics, FID and KID in two encoders among them, averages
the nine ranks with equal weight, and ranks the averages (it calls that the normalised rank). On the
printed values of its Table 1 this gives its printed ranks but for two columns, precision and
recall, whose printed ranks are of other values.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.assemble import (
    FEWEST_RANKED,
    Cell,
    Row,
    Table,
    is_few,
    measured_cell,
    table_of,
)
from workflow_scripts.tables.layout import LAYOUTS, Column
from workflow_scripts.tables.metrics import METRICS as METRICS_BY_KEY
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.run import Run

RANKS: Final = LAYOUTS["table08_ranks"]

METRICS: Final = tuple(
    Column(
        column.header,
        column.rank_of,
        METRICS_BY_KEY[column.rank_of].direction,
        METRICS_BY_KEY[column.rank_of].decimals,
        family=column.family or RANKS.family,
    )
    for column in RANKS.columns
    if column.rank_of is not None
)
"""What the models are ranked by, each with the weight of one: the columns of Table 8's spec."""

_HEADLINE: Final = next(j for j, column in enumerate(METRICS) if column.family == RANKS.family)
"""The metric whose reason stands for all where none has a value: the first in the encoder that is
always asked for."""


def rank_table(run: Run) -> Table:
    """Return Table 8; the controls are not ranked.

    The paper's ranks, which are among its eleven models, stand only beside MIMIC-CXR's.
    """
    entries = run.competing
    cells = metric_cells(run.measurements, entries)
    values = turned(cells)
    ranks = ranks_of(values)
    average = average_of(ranks)
    final = ranks_of(average[:, None])[:, 0]
    ranked = int(np.isfinite(average).sum())
    rows = []
    for i, model in enumerate(entries):
        why = why_unranked(cells[i], values)
        shown = []
        for column, cell, rank in zip(RANKS.columns, cells[i], ranks[i], strict=False):
            if np.isfinite(rank):
                shown.append(Cell(column, float(rank), ranked))
            else:
                shown.append(Cell(column, None, reason=why or cell.reason))
        metrics = int(np.isfinite(ranks[i]).sum())
        for column, value, n in zip(
            RANKS.columns[-2:], (average[i], final[i]), (metrics, ranked), strict=True
        ):
            shown.append(Cell(column, None, reason=why) if why else Cell(column, float(value), n))
        rows.append(Row(model.key, model.name, "model", (), tuple(shown)))
    if not rows:
        reason = "the run has no model but controls"
        none = tuple(Cell(column, None, reason=reason) for column in RANKS.columns)
        rows = [Row("none", "–", "model", (), none)]
    words = RANKS.explanation
    counted = int(used_metrics(values).sum())
    if 0 < counted < len(METRICS):
        words += f" Here the average is over {counted} of the paper's {len(METRICS)} metrics."
    if run.of_the_paper:
        words += " The paper's ranks are among its eleven models."
    layout = replace(RANKS, explanation=words)
    return table_of(layout, rows, run, counts=False)


def metric_cells(measurements: Measurements, models: Sequence[ModelEntry]) -> list[list[Cell]]:
    """Return for each model its value by each of `METRICS`, or why there is none to rank."""
    found = []
    for model in models:
        cells = []
        for column in METRICS:
            why = model.why_missing("fidelity")
            if measurements.has("fidelity", "rad_dino", model.key):
                why = f"not run: `fidelity.encoders` does not name {column.family}"
            cell = measured_cell(column, measurements, "fidelity", column.family, model.key, why)
            if cell.value is not None and is_few(cell):
                few = f"of fewer than {FEWEST_RANKED} images: not ranked"
                cell = replace(cell, value=None, interval=None, reason=few)
            cells.append(cell)
        found.append(cells)
    return found


def turned(cells: Sequence[Sequence[Cell]]) -> np.ndarray:
    """Return values as (models, metrics), turned so that lower is better; nan for none."""
    values = [[np.nan if cell.value is None else cell.value for cell in own] for own in cells]
    signs = [-1.0 if column.direction == "higher" else 1.0 for column in METRICS]
    return np.array(values, dtype=float).reshape(-1, len(METRICS)) * signs


def used_metrics(values: np.ndarray) -> np.ndarray:
    """Return which metrics count, (metrics,) bool: those that any model has a value of.

    Args:
        values: (models, metrics), nan for none.
    """
    used: np.ndarray = np.isfinite(values).any(axis=0)
    return used


def ranks_of(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1 within each column, lower first; ties share the lowest.

    Models that lack a metric which another one has are not ranked: their ranks are nan, as are
    those by a metric that no model has.

    Args:
        values: (models, metrics), nan for none.
    """
    used = used_metrics(values)
    complete = np.isfinite(values[:, used]).all(axis=1) & used.any()
    found = np.full(values.shape, np.nan)
    places = np.ix_(complete, used)
    found[places] = stats.rankdata(values[places], method="min", axis=0)
    return found


def average_of(ranks: np.ndarray) -> np.ndarray:
    """Return each model's mean rank over the metrics that count, (models,); nan if not ranked.

    Args:
        ranks: (models, metrics), of `ranks_of`.
    """
    used = used_metrics(ranks)
    if not used.any():
        return np.full(len(ranks), np.nan)
    mean: np.ndarray = ranks[:, used].mean(axis=1)
    return mean


def why_unranked(cells: Sequence[Cell], values: np.ndarray) -> str | None:
    """Return why a model is not ranked, or None where it is.

    Args:
        cells: of the model, by each of `METRICS`.
        values: (models, metrics), of all models.
    """
    used = used_metrics(values)
    if not used.any():
        return cells[_HEADLINE].reason
    lacking = [c for c, needed in zip(cells, used, strict=True) if needed and c.value is None]
    reasons = {cell.reason for cell in lacking}
    if len(reasons) > 1:
        return f"it has no {', '.join(cell.column.header for cell in lacking)}"
    return lacking[0].reason if lacking else None
