"""Fidelity, privacy, utility and faithfulness together: the Pareto front of the models.

A model is dominated if another one is at least as good by all measures and better by one.
The models that are not dominated are the Pareto front. Which of them is best depends on what the
images are for.

The measures are KID, which unlike FID has no bias by sample size and has an interval; the mean over
prompts of the highest re-identification score; the gain in mean AUROC of training on real and
synthetic images; and the share of the judge's ceiling above chance. A measure that no model has
(its stage was not run) is not weighed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.derive.long_table import Head, LongTable, Number, measured
from workflow_scripts.tables.models import ModelEntry


@dataclass(frozen=True)
class Measure:
    """One of the measures that are weighed.

    Attributes:
        stage: the stage that measures it.
        family: the family of its measurements.
        metric: the metric's key.
        direction: `higher` or `lower` is better.
    """

    stage: str
    family: str
    metric: str
    direction: str

    @property
    def is_gain(self) -> bool:
        """Whether it is a difference to training on real data alone."""
        return self.metric.endswith("_gain")


@dataclass(frozen=True)
class Standing:
    """A model or control by all measures.

    Attributes:
        model: the model or control.
        numbers: its value by each measure, or the reason why there is none.
        dominated_by: names of the models that dominate it, in their order.
        on_front: whether no model dominates it; None for a control, and if a measure is missing or
            decides nothing.
    """

    model: ModelEntry
    numbers: tuple[Number, ...]
    dominated_by: tuple[str, ...] = ()
    on_front: bool | None = None


def standings(
    measurements: Measurements, models: Sequence[ModelEntry], measures: Sequence[Measure]
) -> list[Standing]:
    """Return every model and control by all measures, in the order given.

    Args:
        measurements: the measurements of all stages.
        models: the models of the run.
        measures: the measures to weigh.
    """
    numbers = [
        tuple(
            measured(
                measurements,
                measure.stage,
                measure.family,
                model.key,
                measure.metric,
                model.why_missing(measure.stage),
                direction=measure.direction,
            )
            for measure in measures
        )
        for model in models
    ]
    of_models = [row for model, row in zip(models, numbers, strict=True) if not model.is_control]
    weighed = [
        k for k in range(len(measures)) if any(row[k].value is not None for row in of_models)
    ]
    competing = [
        i
        for i, model in enumerate(models)
        if not model.is_control and all(decides(numbers[i][k], measures[k]) for k in weighed)
    ]
    points = np.array(
        [[_lower_is_better(numbers[i][k], measures[k]) for k in weighed] for i in competing]
    )
    placed = [Standing(model, row) for model, row in zip(models, numbers, strict=True)]
    for i, beaten_by in zip(competing, dominators(points), strict=True):
        names = tuple(models[competing[k]].name for k in beaten_by)
        placed[i] = Standing(models[i], numbers[i], names, not names)
    return placed


def decides(number: Number, measure: Measure) -> bool:
    """Return whether a number can decide who dominates whom.

    A gain of one training run, which has no p, cannot: another seed might give the opposite.
    """
    return number.value is not None and (not measure.is_gain or number.p is not None)


def dominators(points: np.ndarray) -> list[tuple[int, ...]]:
    """Return for each point the points that dominate it; there are none for points of the front.

    Args:
        points: (n, measures), lower is better; equal points do not dominate each other.
    """
    beaten_by = []
    for point in points:
        beating = (points <= point).all(axis=1) & (points < point).any(axis=1)
        beaten_by.append(tuple(int(k) for k in np.flatnonzero(beating)))
    return beaten_by


def pareto(
    measurements: Measurements, models: Sequence[ModelEntry], measures: Sequence[Measure]
) -> LongTable:
    """Return the models, whether they are on the front, and the controls that have every measure.

    A control may lack a measure that no model or control has.
    """
    placed = standings(measurements, models, measures)
    in_use = [
        k
        for k in range(len(measures))
        if any(standing.numbers[k].value is not None for standing in placed)
    ]
    complete = [
        standing
        for standing in sorted(placed, key=lambda standing: standing.model.is_control)
        if not standing.model.is_control
        or all(standing.numbers[k].value is not None for k in in_use)
    ]
    heads = tuple(
        Head(
            standing.model.key,
            standing.model.name,
            standing.model.kind,
            {
                "On the front": {True: "✓", False: "✗", None: "–"}[standing.on_front],
                "Dominated by": ", ".join(standing.dominated_by) or "–",
            },
        )
        for standing in complete
    )
    numbers = {
        (standing.model.key, measure.metric, "all", measure.family): number
        for standing in complete
        for measure, number in zip(measures, standing.numbers, strict=True)
    }
    return LongTable(heads, numbers)


def _lower_is_better(number: Number, measure: Measure) -> float:
    value = number.value if number.value is not None else np.nan
    return -value if measure.direction == "higher" else value
