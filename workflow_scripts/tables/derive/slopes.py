"""How downstream gains fall with lost texture and lost topology, along the ladders.

The paper claims (Section 4) that segmentation depends on texture and classification does not. The
ladders are controls at several strengths: blurred radiographs lose texture, and warped radiographs
lose topology. A task's gain is fitted by least squares over all steps of both ladders:

    gain = a + b x (texture lost) + c x (topology lost) + error

The unit of texture lost is 10 dB of the distance between power spectra. The unit of topology lost
is 0.1 of the Dice of heart and lungs relative to radiographs. Both are fitted at once because a
step may lose both: on a strongly blurred radiograph the labeller does not see the organs.

All tasks have the same steps. So the difference of two tasks' slopes is the slope of the difference
of their gains, step by step. The score with real data alone is the same for all steps and cancels.
Each step is a training run of its own, so the scatter about the fit includes the noise of training
seeds. The intervals follow from this scatter (Student's t). They hold for these test patients. They
include neither the variation between test patients nor the error of the axes.
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
"""Fewest steps with texture, topology and gain for a fit, which has three coefficients."""

MOST_ALIKE: Final = 0.95
"""Largest correlation of texture and topology over the steps at which both can be fitted."""

LADDERS: Final = ("blurred_real", "warped_real")
"""The kinds of controls that are steps of a ladder."""

TEXTURE_UNIT: Final = 10.0  # dB
TOPOLOGY_UNIT: Final = 0.1  # of the relative Dice

DIFFERENCE: Final = ("segmentation", "classification")
"""The two tasks whose slopes are compared: the first less the second."""


@dataclass(frozen=True)
class Slope:
    """A slope with its interval and the p-value of no slope."""

    value: float
    interval: tuple[float, float]
    p: float


def axes_of(measurements: Measurements, models: Sequence[ModelEntry]) -> np.ndarray:
    """Return each model's lost texture and topology in their units, (models, 2); nan for none."""
    lost = np.full((len(models), 2), np.nan)
    for i, model in enumerate(models):
        rows = [
            measurements.find("faithfulness", "texture", model.key, metric)
            for metric in ("spectrum_distance", "organ_dice_share")
        ]
        if rows[0] is not None and rows[0].value is not None:
            lost[i, 0] = rows[0].value / TEXTURE_UNIT
        if rows[1] is not None and rows[1].value is not None:
            lost[i, 1] = (1 - rows[1].value) / TOPOLOGY_UNIT
    return lost


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
    """Return the slopes of gains on texture and topology, or the reason why there are none.

    Args:
        axes: (steps, 2), lost texture and topology; nan if unknown.
        gains: (steps,); nan if unknown.
    """
    known = _known(axes, gains)
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
        n = int(_known(axes, values).sum())
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
    heads = tuple(
        Head(key, name, "pair", {"Steps": str(_known(axes, gain).sum())})
        for key, name, gain in rows
    )
    return LongTable(heads, numbers)


def _known(axes: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Return the steps whose texture, topology and gain are known, (steps,) bool."""
    known: np.ndarray = np.isfinite(gains) & np.isfinite(axes).all(axis=1)
    return known
