"""How the gains of downstream tasks fall with texture and with topology, along the ladders.

The paper's claim (its Section 4) is that segmentation lives on texture and classification does not.
The ladders are controls at several strengths: blurred radiographs lose texture, warped ones
topology. Over all steps of both a task's gain is fitted by least squares,

    gain = a + b x (texture lost) + c x (topology lost) + error,

texture lost in tens of decibels of the power spectrum's distance, topology lost in tenths of the
Dice of heart and lungs relative to radiographs. Both at once, because a step may lose both: a
labeller does not see the organs of a strongly blurred film.

The same steps are behind every task, so that the difference of two tasks' slopes is the slope of
the difference of their gains, step by step. What real data alone reaches is the same for all steps
and falls out. A step is a training run of its own: what its seeds do to it is in the scatter about
the fit, from which the intervals come (Student's t). They hold for these test patients; how the
slopes would differ with others is not in them, nor is the error of the axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.derive.long_table import Head, LongTable, Number
from workflow_scripts.tables.derive.task_ranks import TASKS
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.published import Key

LEVEL: Final = 0.95

FEWEST_STEPS: Final = 6
"""Steps with both axes and the gain, below which no slope is fitted (three numbers are)."""

MOST_ALIKE: Final = 0.95
"""Correlation of the two axes over the steps from which on nothing tells them apart."""

LADDERS: Final = ("blurred_real", "warped_real")
"""The controls that are steps of a ladder."""

TEXTURE_UNIT: Final = 10.0  # dB
TOPOLOGY_UNIT: Final = 0.1  # of the relative Dice

DIFFERENCE: Final = ("segmentation", "classification")
"""The tasks whose difference of slopes is tested: the first less the second."""


@dataclass(frozen=True)
class Slope:
    """A slope with its interval and the p-value of no slope."""

    value: float
    interval: tuple[float, float]
    p: float


def axes_of(measurements: Measurements, models: Sequence[ModelEntry]) -> np.ndarray:
    """Return the texture and topology that each model lost, in their units, (models, 2); nan."""
    found = np.full((len(models), 2), np.nan)
    for i, model in enumerate(models):
        rows = [
            measurements.find("faithfulness", "texture", model.key, metric)
            for metric in ("spectrum_distance", "organ_dice_share")
        ]
        if rows[0] is not None and rows[0].value is not None:
            found[i, 0] = rows[0].value / TEXTURE_UNIT
        if rows[1] is not None and rows[1].value is not None:
            found[i, 1] = (1 - rows[1].value) / TOPOLOGY_UNIT
    return found


def gains_of(
    measurements: Measurements, models: Sequence[ModelEntry], family: str, metric: str
) -> np.ndarray:
    """Return each model's gain over real data alone, (models,); nan for none."""
    rows = [measurements.find("downstream", family, m.key, f"{metric}_gain") for m in models]
    return np.array([row.value if row else None for row in rows], dtype=float)


def steps_of(models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Return the controls that are steps of a ladder."""
    return [m for m in models if m.is_control and m.settings.get("control") in LADDERS]


def fitted(axes: np.ndarray, gains: np.ndarray) -> tuple[Slope, ...] | str:
    """Return the slopes of gains on both axes, or the reason why there are none.

    Args:
        axes: (steps, 2), nan where unknown.
        gains: (steps,), likewise.
    """
    known = np.isfinite(gains) & np.isfinite(axes).all(axis=1)
    n = int(known.sum())
    if n < FEWEST_STEPS:
        return (
            f"{n} step(s) of the ladders have texture, topology and a gain: a slope needs "
            f"{FEWEST_STEPS} (name `blur_0` to `warp_5` in `run_models`)"
        )
    axes, gains = axes[known], gains[known]
    if np.ptp(axes, axis=0).min() == 0:
        return "the steps do not differ in one of texture and topology"
    alike = float(np.corrcoef(axes.T)[0, 1])
    if abs(alike) > MOST_ALIKE:
        return f"texture and topology vary together over the steps (correlation {alike:.2f})"
    design = np.column_stack([np.ones(n), axes])
    inverse = np.linalg.inv(design.T @ design)
    weights = inverse @ design.T @ gains
    freedom = n - design.shape[1]
    variance = float(np.square(gains - design @ weights).sum()) / freedom
    if variance == 0:
        return "the gains do not vary about the fit"
    slopes = []
    for k in (1, 2):
        error = float(np.sqrt(variance * inverse[k, k]))
        half = float(stats.t.isf((1 - LEVEL) / 2, freedom)) * error
        value = float(weights[k])
        p = float(2 * stats.t.sf(abs(value) / error, freedom))
        slopes.append(Slope(value, (value - half, value + half), p))
    return tuple(slopes)


def slopes(measurements: Measurements, models: Sequence[ModelEntry]) -> LongTable:
    """Return each task's slopes over the steps of the ladders, and the difference of two tasks'."""
    steps = steps_of(models)
    axes = axes_of(measurements, steps)
    gains = {task.key: gains_of(measurements, steps, task.family, task.metric) for task in TASKS}
    rows = [(task.key, task.name, gains[task.key]) for task in TASKS]
    first, second = DIFFERENCE
    rows.append(
        ("difference", "Segmentation less classification", gains[first] - gains[second]),
    )
    numbers: dict[Key, Number] = {}
    for key, _, values in rows:
        fit = fitted(axes, values)
        n = int((np.isfinite(values) & np.isfinite(axes).all(axis=1)).sum())
        for k, axis in enumerate(("texture", "topology")):
            if isinstance(fit, str):
                numbers[key, f"slope_{axis}", "all", ""] = Number(None, n, reason=fit)
                numbers[key, f"slope_{axis}_p", "all", ""] = Number(None, n, reason=fit)
                continue
            numbers[key, f"slope_{axis}", "all", ""] = Number(
                fit[k].value,
                n,
                interval=fit[k].interval,
                interval_kind=f"t {LEVEL:.0%} over the steps, for these test patients",
            )
            numbers[key, f"slope_{axis}_p", "all", ""] = Number(fit[k].p, n)
    heads = tuple(Head(key, name, "pair", {"Steps": _steps(axes, g)}) for key, name, g in rows)
    return LongTable(heads, numbers)


def _steps(axes: np.ndarray, gains: np.ndarray) -> str:
    return str(int((np.isfinite(gains) & np.isfinite(axes).all(axis=1)).sum()))
