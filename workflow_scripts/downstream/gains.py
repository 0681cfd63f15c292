"""A task's metrics over training runs: mean, spread, and the gain over real data alone.

A metric varies with the patients in the test set and with the training seed.

- A bootstrap over test patients estimates the first variance, because images of one patient are not
  independent. All runs of all models share the draws, so the patients' effect on two of them
  cancels in their difference.
- The spread of two or more runs estimates the second: the mean of R runs has the variance s^2 / R.

With few runs s^2 is itself uncertain, so the intervals are Student's. The interval of a gain
between two trained arms has Satterthwaite's degrees of freedom of the sum of variances (Biometrics
Bulletin 1946). It covers 94 to 96% from two runs on, whether seeds or patients dominate. For the
value of one arm that method would cover 88% with two runs. There the half widths, each at Student's
quantile for its own variance, are added in squares (Zou and Donner, Statistics in Medicine 2008),
which covers 95 to 99% with two runs and 95 to 96% with ten.

With one run, the effect of another seed is unknown. The interval then covers the choice of test
patients alone, its kind says so, and a gain has no p-value.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import optimize, stats

from workflow_scripts.common.records import Value
from workflow_scripts.fidelity.resample import expanded_tail

LEVEL: Final = 0.95

_CELLS: Final = 4_000_000  # draws x images at a time: some 100 MB


@dataclass(frozen=True)
class Measured:
    """One metric of the training runs of one arm.

    Attributes:
        points: (runs,) the metric on the test set.
        draws: (runs, draws) the metric on bootstrapped test sets; nan where it is undefined.
    """

    points: np.ndarray
    draws: np.ndarray

    @property
    def runs(self) -> int:
        """The number of training runs."""
        return len(self.points)

    @property
    def over_runs(self) -> np.ndarray:
        """The mean over runs in each draw, (draws,)."""
        mean: np.ndarray = self.draws.mean(axis=0)
        return mean

    @property
    def variance_of_runs(self) -> float:
        """The variance of the mean over two or more runs that is due to their seeds."""
        return float(self.points.var(ddof=1)) / self.runs


def patient_draws(patients: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Draw test sets patient by patient, with replacement.

    Args:
        patients: (n,) the patient of each test image.
        draws: number of test sets.
        seed: seed of the draws; the same seed and patients give the same test sets.

    Yields:
        The number of times each image counts, float64 (part of the draws, n), in chunks.
    """
    names, patient_of = np.unique(patients.astype(str), return_inverse=True)
    generator = np.random.default_rng(seed)
    equal = np.full(len(names), 1 / len(names))
    at_a_time = max(1, _CELLS // len(patients))
    for start in range(0, draws, at_a_time):
        times = generator.multinomial(len(names), equal, size=min(at_a_time, draws - start))
        yield times[:, patient_of].astype(np.float64)


def without(metric: str, n: int, reason: str, subset: str = "all") -> list[Value]:
    """Return what `values_of` returns, without any value, for a reason."""
    return [
        Value(metric, None, "higher", n, subset, reason=reason),
        Value(f"{metric}_sd", None, "none", n, subset, reason=reason),
        Value(f"{metric}_gain", None, "higher", n, subset, reason=reason),
    ]


def values_of(
    metric: str,
    arm: Measured,
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
        metric: the metric's name; `{metric}_sd` is the standard deviation over runs,
            `{metric}_gain` the difference to the baseline (positive means a larger value).
        arm: the arm's runs.
        baseline: the runs on real data alone, with the same draws; None if the arm is the baseline.
        direction: whether `higher` or `lower` is better.
        n: number of test images.
        patients: number of test patients behind the value; for a metric of positives and negatives
            the smaller of their two numbers.
        subset: `all` or a finding.
        most: the largest value that the metric can have; the smallest is 0.
        baseline_is_trained: False if the baseline is a released network, which has no seed.

    Returns:
        The three values, each with a reason in its place if it cannot be computed.
    """
    of_value = _interval(arm.over_runs, [arm], patients, float(arm.points.mean()))
    computed = [
        _value(metric, float(arm.points.mean()), direction, n, subset, of_value.within(0, most))
    ]
    if arm.runs > 1:
        spread = float(arm.points.std(ddof=1))
        computed.append(Value(f"{metric}_sd", spread, "none", arm.runs, subset))
    else:
        reason = "one training run: `repeats` is 1"
        computed.append(Value(f"{metric}_sd", None, "none", arm.runs, subset, reason=reason))
    if baseline is None:
        reason = "real data alone is what the gains are measured against"
        computed.append(Value(f"{metric}_gain", None, direction, n, subset, reason=reason))
        return computed
    arms = [arm, baseline] if baseline_is_trained else [arm]
    gain = float(arm.points.mean() - baseline.points.mean())
    of_gain = _interval(arm.over_runs - baseline.over_runs, arms, patients, gain)
    computed.append(_value(f"{metric}_gain", gain, direction, n, subset, of_gain))
    return computed


def gain_replicates(arm: Measured, baseline: Measured, patients: np.ndarray) -> dict[str, Any]:
    """Return a gain on bootstrapped test sets, as a record keeps it; see `kept_draws`.

    Args:
        arm: the arm's runs.
        baseline: the runs on real data alone, with the same draws.
        patients: (n,) the patient of each test image.
    """
    return kept_draws(arm.over_runs - baseline.over_runs, patients)


def kept_draws(values: np.ndarray, patients: np.ndarray) -> dict[str, Any]:
    """Return a number on the sets of `patient_draws`, as a record keeps it.

    Two records whose `units_sha256` and `seed` agree drew the same patients, draw by draw.

    Args:
        values: (draws,), nan where undefined.
        patients: (n,) the patient of each test image.

    Returns:
        `kind`, `values` (None where undefined), `units`, how many patients there are, their digest.
    """
    names = np.unique(patients.astype(str))
    return {
        "kind": "bootstrap",
        "units": len(names),
        "units_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "values": [float(x) if np.isfinite(x) else None for x in values],
    }


@dataclass(frozen=True)
class _Interval:
    """A 95% interval, None if nothing varies; its kind; and the p-value of a gain, if known."""

    bounds: tuple[float, float] | None
    kind: str
    p: float | None = None

    def within(self, least: float, most: float) -> "_Interval":
        """Return the interval cut to the range of a metric, without a p-value."""
        bounds = None
        if self.bounds is not None:
            bounds = (max(least, self.bounds[0]), min(most, self.bounds[1]))
        return _Interval(bounds, self.kind)


def _interval(draws: np.ndarray, arms: list[Measured], patients: int, value: float) -> _Interval:
    """Return the interval of a value that varies with test patients and training runs.

    Args:
        draws: (draws,) the value on bootstrapped test sets.
        arms: the arms whose training runs vary.
        patients: number of test patients, see `values_of`.
        value: the value on the test set.
    """
    if min(arm.runs for arm in arms) == 1:
        return _Interval(percentiles(draws, patients), f"bootstrap {LEVEL:.0%} over test patients")
    kind = f"t {LEVEL:.0%} over test patients and training runs"
    if percentiles(draws) is None:
        return _Interval(None, kind)
    parts = [(float(np.nanvar(draws)), max(patients - 1, 1))]
    parts += [(arm.variance_of_runs, arm.runs - 1) for arm in arms]
    half = _half_width(parts, 1 - LEVEL)
    return _Interval((value - half, value + half), kind, _p_of(parts, abs(value)))


def _half_width(parts: list[tuple[float, int]], beyond: float) -> float:
    """Return the half width of an interval that misses the true value with a given probability.

    Args:
        parts: the variance due to test patients and those due to one or two arms' seeds, each with
            its degrees of freedom.
        beyond: the probability, in (0, 1].
    """
    variances, freedoms = (np.array(column, dtype=float) for column in zip(*parts, strict=True))
    if len(parts) > 2:
        squares = np.square(variances) / freedoms
        freedom = variances.sum() ** 2 / squares.sum()
        return float(stats.t.isf(beyond / 2, freedom) * variances.sum() ** 0.5)
    return float((np.square(stats.t.isf(beyond / 2, freedoms)) * variances).sum() ** 0.5)


def _p_of(parts: list[tuple[float, int]], distance: float) -> float:
    """Return the p-value: the probability at which the interval just reaches zero."""
    least = 1e-12
    if _half_width(parts, least) <= distance:
        return least
    exponent = optimize.brentq(
        lambda log: _half_width(parts, 10.0**log) - distance, np.log10(least), 0.0
    )
    return float(10.0**exponent)


def percentiles(draws: np.ndarray, units: int | None = None) -> tuple[float, float] | None:
    """Return the percentile interval of the defined draws; None if they do not vary.

    A perfect score in every draw gives no estimate of its spread, and [1, 1] would claim certainty.

    With few units they are expanded (`expanded_tail`): with ten positive patients, the interval of
    an AUROC covered 91% without and 94% with it.

    Args:
        draws: (n,), a value on drawn sets of units.
        units: number of units, on the side with fewer; None for plain percentiles.
    """
    defined = draws[np.isfinite(draws)]
    if len(defined) == 0 or defined.min() == defined.max():
        return None
    tail = (1 - LEVEL) / 2
    if units is not None:
        tail = expanded_tail(units, tail)
    low, high = np.quantile(defined, [tail, 1 - tail])
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
