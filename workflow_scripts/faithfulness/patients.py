"""Intervals of statistics of two collections of images, by a jackknife over patients.

The delete-a-group jackknife has up to 20 groups of patients (`fidelity.resample`). It leaves out
radiographs and generated images of the same patients together.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.common.records import Value
from workflow_scripts.faithfulness.against_ceiling import LEVEL
from workflow_scripts.fidelity.resample import groups_of, units_of

KIND: Final = f"jackknife {LEVEL:.0%} over patients"

FEWEST_GROUPS: Final = 10
"""Least number of groups of patients for a standard error."""

Statistic = Callable[[np.ndarray, np.ndarray], float]
"""A function of the radiographs and of the generated images to keep, bool (n,) and bool (m,)."""


def jackknifed_value(
    metric: str,
    direction: str,
    n: int,
    estimate: tuple[float, tuple[float, float] | None],
    n_reference: int | None = None,
) -> Value:
    """Return the value of a record from what `jackknifed` returned; see `Value`."""
    value, interval = estimate
    return Value(
        metric,
        value,
        direction,
        n,
        n_reference=n_reference,
        interval=interval,
        interval_kind=None if interval is None else KIND,
    )


def jackknifed(
    statistic: Statistic,
    real: np.ndarray,
    generated: np.ndarray,
    least: float = -np.inf,
    most: float = np.inf,
) -> tuple[float, tuple[float, float] | None]:
    """Return a statistic of two collections, and its 95% interval; None where that has no spread.

    Args:
        statistic: smooth in the images' weights (a mean, a distance of distributions).
        real: (n,), the patient of each radiograph.
        generated: (m,), that of each generated image's prompt.
        least: what it cannot fall below; nor does the interval.
        most: what it cannot exceed; nor does the interval.
    """
    value = statistic(np.ones(len(real), bool), np.ones(len(generated), bool))
    first, second = groups_of(units_of(real, generated))
    count = int(max(first.max(), second.max())) + 1
    if count < FEWEST_GROUPS:
        return value, None
    left = np.array([statistic(first != group, second != group) for group in range(count)])
    if not np.isfinite(left).all() or np.ptp(left) == 0:
        return value, None
    error = np.sqrt((count - 1) * left.var())
    half = float(stats.t.isf((1 - LEVEL) / 2, count - 1) * error)
    return value, (max(least, value - half), min(most, value + half))
