"""A task's metrics over training runs: mean, spread, and the gain over real data alone.

Two things vary: which patients are in the test set, and the training itself (its seed). The first
is drawn by a bootstrap over test patients, whose images are not independent. All runs of all models
see the same draws, so that what two of them owe to the same patients cancels in their difference.
The second can be drawn only where there are repeats: of R runs R - 1 are drawn with replacement,
which makes the variance of their mean unbiased (Rao and Wu, JASA 1988). With one run an interval
says nothing of what another seed would have given, and its kind says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from workflow_scripts.common.records import Value

LEVEL: Final = 0.95

_CELLS: Final = 4_000_000  # draws x images at a time: some 100 MB
_OWN, _BASELINE = 1, 2  # streams of random numbers beside that of the test patients


@dataclass(frozen=True)
class Measured:
    """One metric of the runs of one arm.

    Attributes:
        points: (runs,), on the test set as it is.
        draws: (runs, draws), on test sets drawn patient by patient; nan where it is undefined.
    """

    points: np.ndarray
    draws: np.ndarray

    @property
    def runs(self) -> int:
        """How many training runs."""
        return len(self.points)

    def over_runs(self, seed: int) -> np.ndarray:
        """Return draws, (draws,), of the mean over runs: with two or more, runs are drawn, too."""
        if self.runs == 1:
            return self.draws[0]
        generator = np.random.default_rng(seed)
        drawn = generator.integers(self.runs, size=(self.runs - 1, self.draws.shape[1]))
        return np.take_along_axis(self.draws, drawn, axis=0).mean(axis=0)


def patient_draws(patients: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Draw test sets patient by patient, with replacement.

    Args:
        patients: (n,), who is shown.
        draws: how many test sets.
        seed: of the draw; the same seed and patients give the same test sets.

    Yields:
        How often each image counts, float64 (some of the draws, n), until there are `draws`.
    """
    names, patient_of = np.unique(patients.astype(str), return_inverse=True)
    generator = np.random.default_rng(seed)
    equal = np.full(len(names), 1 / len(names))
    at_a_time = max(1, _CELLS // len(patients))
    for start in range(0, draws, at_a_time):
        times = generator.multinomial(len(names), equal, size=min(at_a_time, draws - start))
        yield times[:, patient_of].astype(np.float64)


def values_of(
    metric: str,
    own: Measured,
    baseline: Measured | None,
    *,
    direction: str,
    n: int,
    subset: str = "all",
    seed: int,
) -> list[Value]:
    """Return a metric's mean over runs, its spread, and its gain over the baseline.

    Args:
        metric: its name; `{metric}_sd` is the standard deviation over runs, `{metric}_gain` the
            difference to the baseline (above 0 is more, whatever is better).
        own: of the arm.
        baseline: of real data alone, over the same draws; None where the arm is the baseline.
        direction: whether `higher` or `lower` is better.
        n: how many test images.
        subset: `all` or a finding.
        seed: of the drawing of runs.
    """
    kind = f"bootstrap {LEVEL:.0%} over test patients"
    over_runs = own.over_runs(seed + _OWN)
    found = [
        _value(
            metric,
            float(own.points.mean()),
            direction,
            n,
            subset,
            percentiles(over_runs),
            f"{kind} and training runs" if own.runs > 1 else kind,
        )
    ]
    if own.runs > 1:
        spread = float(own.points.std(ddof=1))
        found.append(Value(f"{metric}_sd", spread, "none", own.runs, subset))
    else:
        reason = "one training run: `repeats` is 1"
        found.append(Value(f"{metric}_sd", None, "none", own.runs, subset, reason=reason))
    if baseline is None:
        reason = "real data alone is what the gains are measured against"
        found.append(Value(f"{metric}_gain", None, direction, n, subset, reason=reason))
        return found
    gain = float(own.points.mean() - baseline.points.mean())
    draws = over_runs - baseline.over_runs(seed + _BASELINE)
    both = min(own.runs, baseline.runs) > 1
    found.append(
        _value(
            f"{metric}_gain",
            gain,
            direction,
            n,
            subset,
            percentiles(draws),
            f"{kind} and training runs" if both else kind,
        )
    )
    return found


def percentiles(draws: np.ndarray) -> tuple[float, float] | None:
    """Return the interval of the draws that are defined; None where they do not vary.

    A perfect score in every draw says nothing of its own spread, and [1, 1] would claim certainty.
    """
    defined = draws[np.isfinite(draws)]
    if len(defined) == 0 or defined.min() == defined.max():
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _value(
    metric: str,
    value: float,
    direction: str,
    n: int,
    subset: str,
    interval: tuple[float, float] | None,
    kind: str,
) -> Value:
    return Value(
        metric,
        value,
        direction,
        n,
        subset,
        interval=interval,
        interval_kind=None if interval is None else kind,
    )
