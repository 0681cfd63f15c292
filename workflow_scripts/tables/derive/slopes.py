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
and falls out.

A slope varies with the training seeds and with the test patients. A step is a training run of its
own, so that the scatter s^2 about the fit has the seeds in it. It also has what patients do to each
step by itself. What they do to all steps together, such as films on which texture matters more, is
not in the scatter: it turns the line. The records of a ladder's steps keep their gains on drawn
sets of test patients, the same sets for all. So do they keep texture and topology, which are
measured on the test prompts' images and so have an error of their own. A fit on each set, of its
gains on its axes, gives the variance that is due to patients, V. The variance of a slope is

    V + c max(0, s^2 - u^2),

c s^2 the usual variance of a least-squares slope and u^2 the scatter that patients alone would
give, the mean over drawn sets. Its degrees of freedom are Satterthwaite's (`downstream/gains.py`).
Where a step has no such draws of its gain the interval is that of the scatter, c s^2, and its kind
says that it holds for these test patients; where it has none of its axes, that they are taken as
measured. Error in the axes that is unlike at the steps also draws a slope towards zero, by its
share of their variance over the steps; `docs/explanation/faithfulness.md` says how far. That is not
corrected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from workflow_scripts.generate.controls import LADDERS
from workflow_scripts.tables.derive.long_table import Head, LongTable, Number
from workflow_scripts.tables.derive.task_ranks import TASKS
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.published import Key
from workflow_scripts.tables.records_in import Records

LEVEL: Final = 0.95

FEWEST_STEPS: Final = 6
"""Steps with both axes and the gain, below which no slope is fitted (three numbers are)."""

MOST_ALIKE: Final = 0.95
"""Correlation of the two axes over the steps from which on nothing tells them apart."""

_BY_STEPS: Final = f"t {LEVEL:.0%} over the steps, for these test patients"
_BY_BOTH: Final = f"t {LEVEL:.0%} over test patients and steps"
_BY_GAINS: Final = f"{_BY_BOTH}, axes as measured"

TEXTURE_UNIT: Final = 10.0  # dB
TOPOLOGY_UNIT: Final = 0.1  # of the relative Dice

AXES: Final = ("spectrum_distance", "organ_dice_share")
"""What texture and topology lost are computed from, in a step's record."""

DIFFERENCE: Final = ("segmentation", "classification")
"""The tasks whose difference of slopes is tested: the first less the second."""


@dataclass(frozen=True)
class Slope:
    """A slope with its interval, what that covers, and the p-value of no slope."""

    value: float
    interval: tuple[float, float]
    kind: str
    p: float


@dataclass(frozen=True)
class Gains:
    """A task's gain at each step.

    Attributes:
        values: (steps,), nan where there is none.
        draws: (draws, steps) on drawn sets of test patients, the same for all steps; None where a
            step with a gain has none, or other ones.
        patients: the number of test patients that are drawn.
        drawn_from: identifies patients and draws.
    """

    values: np.ndarray
    draws: np.ndarray | None = None
    patients: int = 0
    drawn_from: tuple[Any, ...] = ()

    def less(self, other: "Gains") -> "Gains":
        """Return the difference; without draws where the two did not draw the same patients."""
        values = self.values - other.values
        if self.draws is None or other.draws is None or self.drawn_from != other.drawn_from:
            return Gains(values)
        return Gains(values, self.draws - other.draws, self.patients, self.drawn_from)


@dataclass(frozen=True)
class Axes:
    """Texture and topology lost at each step, in their units.

    Attributes:
        values: (steps, 2), nan where unknown.
        draws: (draws, steps, 2) on drawn sets of test patients; None where a step has none.
        drawn_from: identifies patients and draws, see `Gains`.
    """

    values: np.ndarray
    draws: np.ndarray | None = None
    drawn_from: tuple[Any, ...] = ()

    def beside(self, gains: Gains, draws: int) -> np.ndarray | None:
        """Return the axes on as many drawn sets, those of the gains where both drew the same."""
        if self.draws is None:
            return None
        # Other sets are independent ones: one seed must not pair them by accident.
        own = self.draws if self.drawn_from == gains.drawn_from else np.roll(self.draws, 1, axis=0)
        return own[:draws] if len(own) >= draws else None


def axes_of(records: Records, models: Sequence[ModelEntry]) -> Axes:
    """Return the texture and topology that each model lost, and what they are on drawn sets."""
    values = np.full((len(models), 2), np.nan)
    drawn: list[tuple[int, np.ndarray, tuple[Any, ...]]] = []
    for i, model in enumerate(models):
        record = records.find("faithfulness", "texture", model.key)
        if record is None:
            continue
        measured = {value.metric: value.value for value in record.values}
        both = np.array([measured.get(metric) for metric in AXES], dtype=float)
        values[i] = in_units(both)
        replicates = record.details.get("replicates", {})
        if np.isfinite(both).all() and set(AXES) <= set(replicates):
            kept = [replicates[metric] for metric in AXES]
            own = in_units(np.array([one["values"] for one in kept], dtype=float).T)
            drawn.append((i, own, _drawn_from(kept[0], kept[0]["seed"])))
    draws, origin = _together(drawn, len(models), int(np.isfinite(values).all(axis=1).sum()))
    return Axes(values, draws, origin)


def in_units(axes: np.ndarray) -> np.ndarray:
    """Return what was lost, (..., 2), from decibels and the share of radiographs' Dice."""
    return np.stack([axes[..., 0] / TEXTURE_UNIT, (1 - axes[..., 1]) / TOPOLOGY_UNIT], axis=-1)


def _drawn_from(kept: dict[str, Any], seed: int) -> tuple[Any, ...]:
    return kept["units"], kept["units_sha256"], seed, len(kept["values"])


def _together(
    drawn: list[tuple[int, np.ndarray, tuple[Any, ...]]], models: int, needed: int
) -> tuple[np.ndarray | None, tuple[Any, ...]]:
    """Return draws (draws, models, ...) and their origin; None where not all drew the same sets."""
    if len({origin for *_, origin in drawn}) != 1 or len(drawn) < needed:
        return None, ()
    origin = drawn[0][2]
    draws = np.full((origin[-1], models, *drawn[0][1].shape[1:]), np.nan)
    for i, own, _ in drawn:
        draws[:, i] = own
    return draws, origin


def gains_of(records: Records, models: Sequence[ModelEntry], family: str, metric: str) -> Gains:
    """Return each model's gain over real data alone, and what it is on drawn sets of patients."""
    values = np.full(len(models), np.nan)
    drawn: list[tuple[int, np.ndarray, tuple[Any, ...]]] = []
    for i, model in enumerate(models):
        record = records.find("downstream", family, model.key)
        gain = None if record is None else record.get(metric).value
        if record is None or gain is None:
            continue
        values[i] = gain
        kept = record.details.get("replicates", {}).get(metric)
        if kept is not None:
            own = np.array(kept["values"], dtype=float)
            seed = record.details["settings"]["seed"]
            drawn.append((i, own, _drawn_from(kept, seed)))
    draws, origin = _together(drawn, len(models), int(np.isfinite(values).sum()))
    return Gains(values) if draws is None else Gains(values, draws, origin[0], origin)


def steps_of(models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Return the controls that are steps of a ladder."""
    return [m for m in models if m.is_control and m.settings.get("control") in LADDERS]


def fitted(axes: Axes, gains: Gains) -> tuple[Slope, ...] | str:
    """Return the slopes of gains on both axes, or the reason why there are none.

    Args:
        axes: of the steps.
        gains: of the same steps.
    """
    known = known_steps(axes, gains)
    n = int(known.sum())
    if n < FEWEST_STEPS:
        return (
            f"{n} step(s) of the ladders have texture, topology and a gain: a slope needs "
            f"{FEWEST_STEPS} (name `blur_0` to `warp_5` in `run_models`)"
        )
    places, values = axes.values[known], gains.values[known]
    if np.ptp(places, axis=0).min() == 0:
        return "the steps do not differ in one of texture and topology"
    alike = float(np.corrcoef(places.T)[0, 1])
    if abs(alike) > MOST_ALIKE:
        return f"texture and topology vary together over the steps (correlation {alike:.2f})"
    inverse, weights, rests = (part[0] for part in _least_squares(places[None], values[None]))
    freedom = n - 3
    scatter = float(np.square(rests).sum()) / freedom
    if scatter == 0:
        return "the gains do not vary about the fit"
    again, kind = _on_drawn_sets(axes, gains, known)
    found = []
    for k in (1, 2):
        variance, own_freedom = float(inverse[k, k]) * scatter, float(freedom)
        if again is not None:
            variance, own_freedom = _with_patients(
                variance, freedom, again[0][:, k], again[1], gains.patients, scatter
            )
        value, error = float(weights[k]), variance**0.5
        half = float(stats.t.isf((1 - LEVEL) / 2, own_freedom)) * error
        p = float(2 * stats.t.sf(abs(value) / error, own_freedom))
        found.append(Slope(value, (value - half, value + half), kind, p))
    return tuple(found)


def _least_squares(axes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (X'X)^-1, the coefficients and what they leave, of each of b fits with a constant.

    Args:
        axes: (b, steps, 2).
        values: (b, steps).
    """
    design = np.concatenate([np.ones((*axes.shape[:2], 1)), axes], axis=2)
    inverse = np.linalg.inv(np.einsum("bsi,bsj->bij", design, design))
    found = np.einsum("bij,bsj,bs->bi", inverse, design, values)
    return inverse, found, values - np.einsum("bsi,bi->bs", design, found)


def _on_drawn_sets(
    axes: Axes, gains: Gains, known: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray] | None, str]:
    """Return coefficients (draws, 3) and rests (draws, steps) on drawn sets of test patients.

    None where the gains have none. With it comes what the interval then covers.
    """
    if gains.draws is None:
        return None, _BY_STEPS
    values, kind = gains.draws[:, known], _BY_BOTH
    drawn = axes.beside(gains, len(values))
    if drawn is None:
        drawn, kind = np.broadcast_to(axes.values, (len(values), *axes.values.shape)), _BY_GAINS
    places = drawn[:, known]
    whole = np.isfinite(values).all(axis=1) & np.isfinite(places).all(axis=(1, 2))
    if whole.sum() < 2:
        return None, _BY_STEPS
    _, coefficients, rests = _least_squares(places[whole], values[whole])
    return (coefficients, rests), kind


def _with_patients(
    variance: float,
    freedom: int,
    slopes: np.ndarray,
    rests: np.ndarray,
    patients: int,
    scatter: float,
) -> tuple[float, float]:
    """Return a slope's variance over test patients and training seeds, and its degrees of freedom.

    Args:
        variance: of the slope by the scatter about the fit, with `freedom`.
        freedom: see `variance`.
        slopes: (draws,), on drawn sets of test patients.
        rests: (draws, steps), what their fits leave of the gains.
        patients: how many test patients there are.
        scatter: the mean square about the fit.
    """
    units = patients / max(patients - 1, 1)  # a bootstrap's variance is too small by this
    of_patients = float(slopes.var(ddof=1)) * units
    own_scatter = float(rests.var(axis=0, ddof=1).sum()) * units / freedom
    of_seeds = variance * max(0.0, 1 - own_scatter / scatter)
    total = of_patients + of_seeds
    if total == 0:
        return variance, float(freedom)
    squares = of_patients**2 / max(patients - 1, 1) + variance**2 / freedom
    return total, total**2 / squares


def known_steps(axes: Axes, gains: Gains) -> np.ndarray:
    """Return which steps have both axes and a gain, bool (steps,)."""
    known: np.ndarray = np.isfinite(gains.values) & np.isfinite(axes.values).all(axis=1)
    return known


def slopes(records: Records, models: Sequence[ModelEntry]) -> LongTable:
    """Return each task's slopes over the steps of the ladders, and the difference of two tasks'."""
    steps = steps_of(models)
    axes = axes_of(records, steps)
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
                numbers[key, f"slope_{axis}", "all", ""] = Number(None, n, reason=fit)
                numbers[key, f"slope_{axis}_p", "all", ""] = Number(None, n, reason=fit)
                continue
            numbers[key, f"slope_{axis}", "all", ""] = Number(
                fit[k].value, n, interval=fit[k].interval, interval_kind=fit[k].kind
            )
            numbers[key, f"slope_{axis}_p", "all", ""] = Number(fit[k].p, n)
    heads = tuple(
        Head(key, name, "pair", {"Steps": str(int(known_steps(axes, of_task).sum()))})
        for key, name, of_task in rows
    )
    return LongTable(heads, numbers)
