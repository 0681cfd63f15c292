"""How the gains of downstream tasks fall as texture and topology are lost, along the ladders.

The paper claims (its Section 4) that segmentation depends on texture and classification does not.
The ladders are controls at several strengths: blurred radiographs lose texture, warped ones lose
topology. A task's gain is fitted by least squares over all steps of both ladders,

    gain = a + b x (texture lost) + c x (topology lost) + error,

with the texture lost in units of 10 dB of the power spectrum's distance, and the topology lost in
units of 0.1 of the Dice of heart and lungs relative to radiographs. Both are fitted together,
because a step may lose both: a labeller does not find the organs of a strongly blurred film.

All tasks have the same steps, so the difference of two tasks' slopes is the slope of the difference
of their gains, step by step. The score of real data alone is the same for all steps and cancels.

A slope varies with the training seeds and with the test patients. Each step is a training run of
its own, so the scatter s^2 about the fit includes the seeds. It also includes the effect of
patients on single steps. It does not include their effect on all steps together, such as films on
which texture matters more: that changes the slope. The records of a ladder's steps keep their gains
on drawn sets of test patients, the same sets for all steps. The variance of the slope over these
sets, V, is due to patients. The variance of a slope is

    V + c max(0, s^2 - u^2),

where c s^2 is the usual variance of a least-squares slope, and u^2 is the scatter due to patients
alone, the mean over drawn sets. Its degrees of freedom are Satterthwaite's (`downstream/gains.py`).
If a step has no such draws, the variance is c s^2, and the kind of the interval says that it holds
for these test patients. Neither includes the error of the two axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.generate.controls import LADDERS
from workflow_scripts.tables.derive.long_table import Head, LongTable, Number
from workflow_scripts.tables.derive.task_ranks import TASKS
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.published import Key
from workflow_scripts.tables.records_in import Records

LEVEL: Final = 0.95

FEWEST_STEPS: Final = 6
"""Fewest steps with both axes and the gain to which the three coefficients are fitted."""

MOST_ALIKE: Final = 0.95
"""Largest correlation of the two axes over the steps with which they can be told apart."""

_BY_STEPS: Final = f"t {LEVEL:.0%} over the steps, for these test patients"
_BY_BOTH: Final = f"t {LEVEL:.0%} over test patients and steps"

TEXTURE_UNIT: Final = 10.0  # dB
TOPOLOGY_UNIT: Final = 0.1  # of the relative Dice

DIFFERENCE: Final = ("segmentation", "classification")
"""The tasks whose difference of slopes is tested: the first less the second."""


@dataclass(frozen=True)
class Slope:
    """A slope with its interval, what the interval covers, and the p value of no slope."""

    value: float
    interval: tuple[float, float]
    kind: str
    p: float


@dataclass(frozen=True)
class Gains:
    """A task's gain at each step.

    Attributes:
        values: (steps,), nan where there is none.
        draws: (draws, steps), the gains on drawn sets of test patients, the same sets for all
            steps; None if a step with a gain has no draws, or has other sets.
        patients: number of test patients in a set.
        drawn_from: identifies patients and draws.
    """

    values: np.ndarray
    draws: np.ndarray | None = None
    patients: int = 0
    drawn_from: tuple[Any, ...] = ()

    def less(self, other: "Gains") -> "Gains":
        """Return the difference, without draws if the two did not draw the same patients."""
        values = self.values - other.values
        if self.draws is None or other.draws is None or self.drawn_from != other.drawn_from:
            return Gains(values)
        return Gains(values, self.draws - other.draws, self.patients, self.drawn_from)


def axes_of(measurements: Measurements, models: Sequence[ModelEntry]) -> np.ndarray:
    """Return the texture and topology that each model lost, (models, 2), in the units above.

    A value that was not measured is nan.
    """
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


def gains_of(records: Records, models: Sequence[ModelEntry], family: str, metric: str) -> Gains:
    """Return each model's gain over real data alone, also on drawn sets of test patients."""
    values = np.full(len(models), np.nan)
    drawn: list[tuple[int, np.ndarray, tuple[Any, ...]]] = []
    for i, model in enumerate(models):
        record = records.find("downstream", family, model.key)
        gain = None if record is None else record.get(metric).value
        if record is None or gain is None:
            continue
        values[i] = gain
        replicates = record.details.get("replicates", {}).get(metric)
        if replicates is not None:
            gains = np.array(replicates["values"], dtype=float)
            units, patients = replicates["units"], replicates["units_sha256"]
            seed = record.details["settings"]["seed"]
            drawn.append((i, gains, (units, patients, seed, len(gains))))
    if len({origin for *_, origin in drawn}) != 1 or len(drawn) < np.isfinite(values).sum():
        return Gains(values)
    origin = drawn[0][2]
    draws = np.full((origin[-1], len(models)), np.nan)
    for i, gains, _ in drawn:
        draws[:, i] = gains
    return Gains(values, draws, origin[0], origin)


def steps_of(models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Return the controls that are steps of a ladder."""
    return [m for m in models if m.is_control and m.settings.get("control") in LADDERS]


def fitted(axes: np.ndarray, gains: Gains) -> tuple[Slope, ...] | str:
    """Return the slopes of gains on both axes, or the reason why there are none.

    Args:
        axes: (steps, 2), nan where unknown.
        gains: of the same steps.
    """
    known = known_steps(axes, gains)
    n = int(known.sum())
    if n < FEWEST_STEPS:
        return (
            f"{n} step(s) of the ladders have texture, topology and a gain: a slope needs "
            f"{FEWEST_STEPS} (name `blur_0` to `warp_5` in `run_models`)"
        )
    axes, values = axes[known], gains.values[known]
    if np.ptp(axes, axis=0).min() == 0:
        return "the steps do not differ in one of texture and topology"
    correlation = float(np.corrcoef(axes.T)[0, 1])
    if abs(correlation) > MOST_ALIKE:
        return f"texture and topology vary together over the steps (correlation {correlation:.2f})"
    design = np.column_stack([np.ones(n), axes])
    inverse = np.linalg.inv(design.T @ design)
    weights = inverse @ design.T
    rest = np.eye(n) - design @ weights
    freedom = n - design.shape[1]
    scatter = float(np.square(rest @ values).sum()) / freedom
    draws = None if gains.draws is None else gains.draws[:, known]
    if draws is not None:
        draws = draws[np.isfinite(draws).all(axis=1)]
    if scatter == 0:
        return "the gains do not vary about the fit"
    fits = []
    for k in (1, 2):
        variance, t_freedom, kind = float(inverse[k, k]) * scatter, float(freedom), _BY_STEPS
        if draws is not None and len(draws) > 1:
            variance, t_freedom = _with_patients(
                variance, freedom, weights[k], rest, draws, gains.patients, scatter
            )
            kind = _BY_BOTH
        value, error = float(weights[k] @ values), variance**0.5
        half = float(stats.t.isf((1 - LEVEL) / 2, t_freedom)) * error
        p = float(2 * stats.t.sf(abs(value) / error, t_freedom))
        fits.append(Slope(value, (value - half, value + half), kind, p))
    return tuple(fits)


def _with_patients(
    variance: float,
    freedom: int,
    weights: np.ndarray,
    rest: np.ndarray,
    draws: np.ndarray,
    patients: int,
    scatter: float,
) -> tuple[float, float]:
    """Return a slope's variance over test patients and training seeds, and its degrees of freedom.

    Args:
        variance: the slope's variance by the scatter about the fit.
        freedom: degrees of freedom of that variance.
        weights: (steps,), the slope is their product with the gains.
        rest: (steps, steps), the matrix that maps gains to their residuals.
        draws: (draws, steps), the gains on drawn sets of patients.
        patients: number of test patients.
        scatter: the mean square about the fit.
    """
    centred = draws - draws.mean(axis=0)
    units = patients / max(patients - 1, 1)  # a bootstrap's variance is too small by this factor
    of_patients = float(np.square(centred @ weights).sum()) / (len(draws) - 1) * units
    patient_scatter = float(np.square(centred @ rest).sum()) / (len(draws) - 1) * units / freedom
    of_seeds = variance * max(0.0, 1 - patient_scatter / scatter)
    total = of_patients + of_seeds
    if total == 0:
        return variance, float(freedom)
    squares = of_patients**2 / max(patients - 1, 1) + variance**2 / freedom
    return total, total**2 / squares


def known_steps(axes: np.ndarray, gains: Gains) -> np.ndarray:
    """Return which steps have both axes and a gain, bool (steps,)."""
    known: np.ndarray = np.isfinite(gains.values) & np.isfinite(axes).all(axis=1)
    return known


def slopes(records: Records, measurements: Measurements, models: Sequence[ModelEntry]) -> LongTable:
    """Return each task's slopes over the steps of the ladders, and the difference of two tasks'."""
    steps = steps_of(models)
    axes = axes_of(measurements, steps)
    gains = {
        task.key: gains_of(records, steps, task.family, f"{task.metric}_gain") for task in TASKS
    }
    rows = [(task.key, task.name, gains[task.key]) for task in TASKS]
    first, second = DIFFERENCE
    rows.append(
        ("difference", "Segmentation less classification", gains[first].less(gains[second])),
    )
    numbers: dict[Key, Number] = {}
    for key, _, of_task in rows:
        fit = fitted(axes, of_task)
        n = int(known_steps(axes, of_task).sum())
        for k, axis in enumerate(("texture", "topology")):
            if isinstance(fit, str):
                slope = p = Number(None, n, reason=fit)
            else:
                slope = Number(fit[k].value, n, None, fit[k].interval, fit[k].kind)
                p = Number(fit[k].p, n)
            numbers[key, f"slope_{axis}", "all", ""] = slope
            numbers[key, f"slope_{axis}_p", "all", ""] = p
    heads = tuple(
        Head(key, name, "pair", {"Steps": str(int(known_steps(axes, of_task).sum()))})
        for key, name, of_task in rows
    )
    return LongTable(heads, numbers)
