"""A task's metrics over training runs: mean, spread, and the gain over real data alone.

Two things vary: which patients are in the test set, and the training itself (its seed). The first
is told by a bootstrap over test patients, whose images are not independent. All runs of all models
see the same draws, so that what two of them owe to the same patients cancels in their difference.
The second is told by the spread of two or more runs: s^2 / R is the variance of the mean of R. With
few runs that variance is itself hardly known, so that the interval is Student's. Of the gain
between two trained arms it is at Satterthwaite's degrees of freedom of the sum of the variances
(Biometrics Bulletin 1946), which covers 94 to 96% of the time from two runs on, whether seeds or
patients dominate. Of one arm's value it would cover 88% with two runs: there the half widths, each
at Student's quantile of its own variance, are added in squares (Zou and Donner, Statistics in
Medicine 2008), which covers 95 to 99% with two runs and 95 to 96% with ten.

With one run nothing is known of what another seed would have given. The interval is of the test
patients alone, its kind says so, and a gain has no p: nobody can say whether it is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import optimize, stats

from workflow_scripts.common.records import Value

LEVEL: Final = 0.95

_CELLS: Final = 4_000_000  # draws x images at a time: some 100 MB


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

    @property
    def over_runs(self) -> np.ndarray:
        """Draws, (draws,), of the mean over runs."""
        mean: np.ndarray = self.draws.mean(axis=0)
        return mean

    @property
    def variance_of_runs(self) -> float:
        """The variance of the mean over two or more runs that their seeds give it."""
        return float(self.points.var(ddof=1)) / self.runs


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
    patients: int,
    subset: str = "all",
    most: float = 1.0,
    baseline_is_trained: bool = True,
) -> list[Value]:
    """Return a metric's mean over runs, its spread, and its gain over the baseline.

    Args:
        metric: its name; `{metric}_sd` is the standard deviation over runs, `{metric}_gain` the
            difference to the baseline (above 0 is more, whatever is better).
        own: of the arm.
        baseline: of real data alone, over the same draws; None where the arm is the baseline.
        direction: whether `higher` or `lower` is better.
        n: how many test images.
        patients: how many test patients it rests on, where a metric of positives rests on the
            smaller side.
        subset: `all` or a finding.
        most: the largest value that the metric can have; the smallest is 0.
        baseline_is_trained: False where the baseline is a network as it was released, which no seed
            of ours can change.
    """
    of_value = _interval(own.over_runs, [own], patients, float(own.points.mean()))
    found = [
        _value(metric, float(own.points.mean()), direction, n, subset, of_value.within(0, most))
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
    arms = [own, baseline] if baseline_is_trained else [own]
    gain = float(own.points.mean() - baseline.points.mean())
    of_gain = _interval(own.over_runs - baseline.over_runs, arms, patients, gain)
    found.append(_value(f"{metric}_gain", gain, direction, n, subset, of_gain))
    return found


@dataclass(frozen=True)
class _Interval:
    """95% bounds, None where nothing varies; what they cover; the p of no gain, where known."""

    bounds: tuple[float, float] | None
    kind: str
    p: float | None = None

    def within(self, least: float, most: float) -> "_Interval":
        """Return the interval of a value that lies between two numbers, which has no p."""
        bounds = None
        if self.bounds is not None:
            bounds = (max(least, self.bounds[0]), min(most, self.bounds[1]))
        return _Interval(bounds, self.kind)


def _interval(draws: np.ndarray, arms: list[Measured], patients: int, value: float) -> _Interval:
    """Return the interval of a value that rests on test patients and on the runs of arms.

    Args:
        draws: (draws,) of the value, on test sets drawn patient by patient.
        arms: whose training runs vary.
        patients: test patients.
        value: on the test set as it is.
    """
    if min(arm.runs for arm in arms) == 1:
        return _Interval(percentiles(draws), f"bootstrap {LEVEL:.0%} over test patients")
    kind = f"t {LEVEL:.0%} over test patients and training runs"
    if percentiles(draws) is None:
        return _Interval(None, kind)
    parts = [(float(np.nanvar(draws)), max(patients - 1, 1))]
    parts += [(arm.variance_of_runs, arm.runs - 1) for arm in arms]
    half = _half_width(parts, 1 - LEVEL)
    return _Interval((value - half, value + half), kind, _p_of(parts, abs(value)))


def _half_width(parts: list[tuple[float, int]], beyond: float) -> float:
    """Return the half width of an interval that misses with this probability.

    Args:
        parts: the variance of test patients and those of one or two arms' seeds, each with its
            degrees of freedom.
        beyond: above 0, up to 1.
    """
    variances, freedoms = (np.array(column, dtype=float) for column in zip(*parts, strict=True))
    if len(parts) > 2:
        squares = np.square(variances) / freedoms
        freedom = variances.sum() ** 2 / squares.sum()
        return float(stats.t.isf(beyond / 2, freedom) * variances.sum() ** 0.5)
    return float((np.square(stats.t.isf(beyond / 2, freedoms)) * variances).sum() ** 0.5)


def _p_of(parts: list[tuple[float, int]], distance: float) -> float:
    """Return the probability at which the interval just reaches from a value to zero."""
    least = 1e-12
    if _half_width(parts, least) <= distance:
        return least
    found = optimize.brentq(
        lambda log: _half_width(parts, 10.0**log) - distance, np.log10(least), 0.0
    )
    return float(10.0**found)


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
    metric: str, value: float, direction: str, n: int, subset: str, interval: _Interval
) -> Value:
    return Value(
        metric,
        value,
        direction,
        n,
        subset,
        interval=interval.bounds,
        interval_kind=None if interval.bounds is None else interval.kind,
        p=interval.p,
    )
