"""The figures: one module a subject, drawn once and written inside the report or alone.

The functions named here return what stands inside the report.
"""

from collections.abc import Sequence

import numpy as np

from workflow_scripts.tables.assemble import Table
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.figures.bars import draw_costs
from workflow_scripts.tables.figures.findings import draw_per_pathology, draw_prevalence
from workflow_scripts.tables.figures.style import inline_svg
from workflow_scripts.tables.prevalence import Measured


def per_pathology(table: Table, cohort: dict[str, SplitCounts], metric: str) -> str | None:
    """Return `draw_per_pathology` as an `<svg>` element, or None where no value is known."""
    drawing = draw_per_pathology(table, cohort, metric)
    return None if drawing is None else inline_svg(drawing)


def prevalence(measured: Sequence[Measured], floor: np.ndarray, counts: np.ndarray) -> str | None:
    """Return `draw_prevalence` as an `<svg>` element, or None where nothing is known."""
    drawing = draw_prevalence(measured, floor, counts)
    return None if drawing is None else inline_svg(drawing)


def costs(table: Table) -> tuple[str, str] | None:
    """Return `draw_costs` as an `<svg>` element and its caption, or None where nothing is known."""
    drawing = draw_costs(table)
    return None if drawing is None else (inline_svg(drawing), drawing.caption)
