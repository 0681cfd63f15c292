"""The share of the ceiling above chance: how much of what a judge can see an image shows.

A judge errs on real radiographs as well. Its score is `ceiling` on the captions' own radiographs,
and `chance` on images that have nothing to do with their captions. The share is

    (score - chance) / (ceiling - chance).

Suppose that the judge ranks some images as well as radiographs, and all others at random. The score
of this mixture is the mixture of the two scores. The share is then the share of images that show
what was asked for. (For a share of correct answers this is the correction of Rogan and Gladen,
1978, with the judge's sensitivity and specificity in the ceiling.) The share is not clipped to 0
and 1, because a model may draw a finding more plainly than radiographs show it.

The interval comes from scores and ceilings on drawn sets of patients. Both use the same sets if
they rest on the same patients, so that their common variation cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from workflow_scripts.common.records import Value
from workflow_scripts.downstream import gains
from workflow_scripts.downstream.classification.score import FEWEST_PATIENTS, fewest_patients

LEVEL: Final = gains.LEVEL

BY_PATIENT: Final = f"bootstrap {LEVEL:.0%} over test patients"
"""The kind of an interval from draws of test patients."""

LEAST_ABOVE_CHANCE: Final = 0.1
"""Least distance between chance and the lower bound of a ceiling. A judge that hardly recognises a
finding on real radiographs is not asked about it."""


@dataclass(frozen=True)
class Drawn:
    """A score, on all patients and on drawn sets of patients.

    Attributes:
        value: the score on all patients.
        draws: (draws,), the score on each drawn set; nan where it is undefined.
        units: number of patients behind it, on the side with fewer; None for many.
    """

    value: float
    draws: np.ndarray
    units: int | None = None

    def interval(self) -> tuple[float, float] | None:
        """Return the 95% percentiles of the draws, expanded for few patients; None if all agree."""
        return gains.percentiles(self.draws, self.units)

    def as_value(
        self,
        metric: str,
        direction: str,
        n: int,
        subset: str = "all",
        kind: str | None = BY_PATIENT,
        n_reference: int | None = None,
    ) -> Value:
        """Return the score as a value of a record.

        Args:
            metric, direction, n, subset, n_reference: see `Value`.
            kind: the kind of its interval; None leaves the interval out.
        """
        interval = None if kind is None else self.interval()
        return Value(
            metric,
            self.value,
            direction,
            n,
            subset,
            n_reference,
            interval,
            None if interval is None else kind,
        )


def mean_of(scores: Sequence[Drawn], rows: Sequence[int]) -> Drawn:
    """Return the mean of some scores, draw by draw."""
    return Drawn(
        float(np.mean([scores[k].value for k in rows])),
        np.mean([scores[k].draws for k in rows], axis=0),
        together([scores[k].units for k in rows]),
    )


def together(units: Sequence[int | None]) -> int | None:
    """Return the number of units behind a mean of scores, whose units are mostly different ones."""
    known = [count for count in units if count is not None]
    return sum(known) if len(known) == len(units) else None


def too_few_patients(labels: np.ndarray, patients: np.ndarray) -> list[str | None]:
    """Return why a finding is left out: too few patients have it or lack it. None if enough do.

    Args:
        labels: (n, k), 1 or 0, for k findings.
        patients: (n,), the patient of each row.
    """
    return [
        f"{fewest} test patient(s) with or without the finding ({FEWEST_PATIENTS} needed)"
        if fewest < FEWEST_PATIENTS
        else None
        for fewest in fewest_patients(labels, patients).tolist()
    ]


def why_not_asked(ceiling: Drawn, chance: float) -> str | None:
    """Return why a judge is not asked about a finding; None if it is asked."""
    interval = ceiling.interval()
    low = ceiling.value if interval is None else interval[0]
    least = chance + LEAST_ABOVE_CHANCE
    if low >= least:
        return None
    return (
        f"the judge cannot tell it on radiographs: {ceiling.value:.2f}, 95% from {low:.2f}, where "
        f"{least:.2f} is asked and {chance:.2f} is chance"
    )


def share_of_ceiling(score: Drawn, ceiling: Drawn, chance: float) -> Drawn:
    """Return the share of the ceiling above chance.

    Args:
        score: the judge's score of the model's images.
        ceiling: its score of radiographs; on the same draws as `score` if both rest on the same
            patients.
        chance: the score of images that have nothing to do with their captions.

    Raises:
        ValueError: the ceiling is not above chance (see `why_not_asked`).
    """
    if not ceiling.value > chance:
        raise ValueError(f"a ceiling of {ceiling.value} at a chance of {chance}")
    above = np.where(ceiling.draws > chance, ceiling.draws - chance, np.nan)
    draws = (score.draws - chance) / above
    units = min((one.units for one in (score, ceiling) if one.units is not None), default=None)
    return Drawn((score.value - chance) / (ceiling.value - chance), draws, units)
