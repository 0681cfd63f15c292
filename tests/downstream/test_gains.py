"""Intervals over test patients and training runs: coverage by simulation, and hand computations."""

import numpy as np
import pytest

from workflow_scripts.downstream.gains import Measured, patient_draws, percentiles, values_of


def test_test_sets_are_drawn_by_patient_and_are_the_same_for_the_same_seed():
    patients = np.array(["b", "a", "b", "c", "a"], dtype=object)
    draws = np.concatenate(list(patient_draws(patients, 50, seed=3)))
    assert draws.shape == (50, 5)
    np.testing.assert_array_equal(draws[:, 0], draws[:, 2])
    np.testing.assert_array_equal(draws[:, 1], draws[:, 4])
    np.testing.assert_array_equal(draws[:, [0, 1, 3]].sum(axis=1), 3)
    again = np.concatenate(list(patient_draws(patients, 50, seed=3)))
    np.testing.assert_array_equal(draws, again)
    assert (draws != np.concatenate(list(patient_draws(patients, 50, seed=4)))).any()


def simulated(generator, runs, n=150, patient_sd=1.0, run_sd=0.0, shift=0.0, patient_effects=None):
    """A mean over test images whose runs share a shift of their own."""
    effects = generator.normal(0, patient_sd, n) if patient_effects is None else patient_effects
    scores = effects + shift + generator.normal(0, run_sd, (runs, 1))
    sets = np.concatenate(list(patient_draws(np.arange(n), 400, seed=5)))
    return Measured(scores.mean(axis=1), (scores @ sets.T) / n)


@pytest.mark.parametrize(("runs", "run_sd"), [(1, 0.0), (5, 0.15)])
def test_the_interval_covers_what_varies(runs, run_sd):
    """Of one run the patients; of several the runs, too (of five it is a little short)."""
    generator = np.random.default_rng(0)
    covered = 0
    for k in range(300):
        own = simulated(generator, runs, run_sd=run_sd)
        value = values_of("dice", own, None, direction="higher", n=150, seed=k)[0]
        low, high = value.interval
        covered += low <= 0 <= high
    assert 0.88 < covered / 300 < 0.985


def test_without_drawing_runs_their_spread_would_be_missed():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        own = simulated(generator, 1, run_sd=0.3)
        low, high = percentiles(own.draws[0])
        covered += low <= 0 <= high
    assert covered / 200 < 0.6


def test_what_two_arms_owe_to_the_same_patients_cancels():
    generator = np.random.default_rng(2)
    effects = generator.normal(0, 1, 150)
    one = simulated(generator, 1, patient_effects=effects)
    other = simulated(generator, 1, patient_effects=effects + generator.normal(0.1, 0.05, 150))
    found = {v.metric: v for v in values_of("dice", other, one, direction="higher", n=9, seed=0)}
    low, high = found["dice_gain"].interval
    assert 0 < low < found["dice_gain"].value < high
    own_low, own_high = found["dice"].interval
    assert high - low < 0.2 * (own_high - own_low)


def test_mean_spread_and_gain_by_hand():
    own = Measured(np.array([0.6, 0.8]), np.array([[0.5, 0.7], [0.7, 0.9]]))
    real = Measured(np.array([0.5]), np.array([[0.4, 0.6]]))
    values = values_of("auroc", own, real, direction="higher", n=7, subset="Edema", seed=0)
    found = {v.metric: v for v in values}
    assert found["auroc"].value == pytest.approx(0.7)
    assert found["auroc"].interval_kind == "bootstrap 95% over test patients and training runs"
    assert found["auroc_sd"].value == pytest.approx(np.std([0.6, 0.8], ddof=1))
    assert found["auroc_sd"].n == 2
    assert found["auroc_gain"].value == pytest.approx(0.2)
    # The baseline's runs cannot be drawn: its one seed stays as it is, and the kind says so.
    assert found["auroc_gain"].interval_kind == "bootstrap 95% over test patients"
    assert all(v.subset == "Edema" for v in values)


def test_one_run_has_no_spread_and_says_why():
    one = Measured(np.array([0.6]), np.array([[0.5, 0.7]]))
    found = {v.metric: v for v in values_of("f1", one, None, direction="higher", n=7, seed=0)}
    assert found["f1_sd"].value is None
    assert "`repeats` is 1" in found["f1_sd"].reason
    assert "real data alone" in found["f1_gain"].reason


def test_no_interval_where_nothing_varies_and_undefined_draws_are_left_out():
    assert percentiles(np.full(10, 0.3)) is None
    assert percentiles(np.full(10, np.nan)) is None
    low, high = percentiles(np.r_[np.nan, np.linspace(0, 1, 1001)])
    assert (low, high) == pytest.approx((0.025, 0.975))


@pytest.mark.parametrize("runs", [2, 3, 8])
def test_the_variance_of_the_mean_over_runs_is_unbiased(runs):
    """s^2 / R, as the textbook has it; drawing all R runs would give (R - 1) / R of it."""
    points = np.random.default_rng(runs).normal(size=runs)
    measured = Measured(points, np.repeat(points[:, None], 40_000, axis=1))
    drawn = measured.over_runs(seed=3)
    assert drawn.mean() == pytest.approx(points.mean(), abs=0.02)
    assert drawn.var() == pytest.approx(points.var(ddof=1) / runs, rel=0.05)
