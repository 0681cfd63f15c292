"""Fidelity, privacy and utility together: which models no other one beats.

A model is dominated by one that is at least as good by all three measures and better by one. What
is left is the Pareto front: its models are the possible choices, and which of them is the best
depends on what the images are for.

The measures are KID, which unlike FID has no bias by sample size and has an interval; the mean over
prompts of the highest re-identification score; and the gain in mean AUROC of training on real and
synthetic images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.assemble import Cell, Row, Table, measured_cell, table_of
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.run import Run

PARETO: Final = LAYOUTS["table08c_pareto"]

_STAGES: Final = ("fidelity", "privacy", "downstream")
MEASURES: Final = tuple(zip(_STAGES, PARETO.columns, strict=True))
"""What is weighed, each with its stage."""


@dataclass(frozen=True)
class Standing:
    """A model or control by the three measures.

    Attributes:
        model: whose.
        cells: KID, re-identification score and gain, each with its interval, or why there is none.
        dominated_by: names of the models that dominate it, in their order.
        on_front: whether none does; None for a control, and where a measure is missing or decides
            nothing.
    """

    model: ModelEntry
    cells: tuple[Cell, ...]
    dominated_by: tuple[str, ...] = ()
    on_front: bool | None = None


def fidelity_privacy_utility(
    measurements: Measurements, models: Sequence[ModelEntry]
) -> list[Standing]:
    """Return every model and control by the three measures, in the order given.

    Args:
        measurements: of all stages.
        models: of the run.
    """
    cells = [
        tuple(
            measured_cell(
                column, measurements, stage, column.family, model.key, model.why_missing(stage)
            )
            for stage, column in MEASURES
        )
        for model in models
    ]
    competing = [
        i
        for i, model in enumerate(models)
        if not model.is_control and all(decides(cell) for cell in cells[i])
    ]
    points = np.array([[_lower_is_better(cell) for cell in cells[i]] for i in competing])
    found = [Standing(model, own) for model, own in zip(models, cells, strict=True)]
    for i, beaten_by in zip(competing, dominators(points), strict=True):
        names = tuple(models[competing[k]].name for k in beaten_by)
        found[i] = Standing(models[i], cells[i], names, not names)
    return found


def decides(cell: Cell) -> bool:
    """Return whether a measure says anything: a gain of one training run, without p, does not.

    Another seed might have given the opposite.
    """
    return cell.value is not None and (not cell.column.is_gain or cell.p is not None)


def dominators(points: np.ndarray) -> list[tuple[int, ...]]:
    """Return for each point those that dominate it; the points of the front have none.

    Args:
        points: (n, measures), lower is better; equal points do not dominate each other.
    """
    found = []
    for point in points:
        beating = (points <= point).all(axis=1) & (points < point).any(axis=1)
        found.append(tuple(int(k) for k in np.flatnonzero(beating)))
    return found


def pareto_table(run: Run) -> Table:
    """Return Table 8c."""
    standings = fidelity_privacy_utility(run.measurements, run.models)
    rows = []
    for kind in ("model", "control"):
        for standing in standings:
            if standing.model.is_control != (kind == "control"):
                continue
            if kind == "control" and any(cell.value is None for cell in standing.cells):
                continue
            mark = {True: "✓", False: "✗", None: "–"}[standing.on_front]
            attributes = (mark, ", ".join(standing.dominated_by) or "–")
            rows.append(
                Row(standing.model.key, standing.model.name, kind, attributes, standing.cells)
            )
    return table_of(PARETO, rows, run)


def _lower_is_better(cell: Cell) -> float:
    value = cell.value if cell.value is not None else np.nan
    return -value if cell.column.direction == "higher" else value
