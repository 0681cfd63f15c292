"""Intervals over test patients and training runs: coverage by simulation, and hand computations."""

import numpy as np
import pytest
from scipy import stats

from tests.clustered import binomial_bound, correlated
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


def arms(rng, runs, seed_sd, patient_sd, effects, sets):
    """Draw two arms of equal expectation: scores of the same patients' images in each run.

    Args:
        rng: Random generator.
        runs: Training runs of each arm.
        seed_sd: Standard deviation of a run's effect on all its scores.
        patient_sd: Standard deviation of an arm's effect on a patient.
        effects: The effects that both arms share, (n,), and the patient of each image, (n,).
        sets: Bootstrap weights of the images, (draws, n).
    """
    scores, patients = effects
    for _ in range(2):
        patient_effects = patient_sd * rng.standard_normal(patients.max() + 1)[patients]
        seeds = seed_sd * rng.standard_normal((runs, 1))
        images = 0.6 + 0.1 * scores + patient_effects + seeds
        yield Measured(images.mean(axis=1), (images @ sets.T) / sets.sum(axis=1))


def gains_of_equal_arms(runs, seed_sd, patient_sd, simulations):
    """Yield the value and the gain of every simulation; the true ones are 0.6 and 0."""
    patients = np.repeat(np.arange(60), 3)
    sets = np.concatenate(list(patient_draws(patients, 100, seed=5)))
    for seed in range(simulations):
        rng = np.random.default_rng(seed)
        effects = correlated(rng, 60, 3, 0.4)
        first, second = arms(rng, runs, seed_sd, patient_sd, effects, sets)
        measured = values_of("dice", first, second, direction="higher", n=180, patients=60)
        yield measured[0], measured[2]


@pytest.mark.parametrize("simulations", [60, pytest.param(500, marks=pytest.mark.full)])
@pytest.mark.parametrize("runs", [2, 3, 5, 10])
@pytest.mark.parametrize(("seed_sd", "patient_sd"), [(0.05, 0.01), (0.005, 0.1), (0.02, 0.1)])
def test_intervals_cover_and_no_direction_is_claimed(runs, seed_sd, patient_sd, simulations):
    """Seeds or patients dominate the variance, with few and with many runs."""
    covered = np.zeros(2)
    claimed = 0
    for value, gain in gains_of_equal_arms(runs, seed_sd, patient_sd, simulations):
        for k, (estimate, truth) in enumerate(((value, 0.6), (gain, 0.0))):
            low, high = estimate.interval
            covered[k] += low <= truth <= high
        claimed += gain.p <= 0.05
    # Three standard errors about 95%, or more: what runs and patients share counts twice.
    least = 0.95 * simulations - 3 * (0.95 * 0.05 * simulations) ** 0.5
    assert (covered >= least).all(), covered / simulations
    assert claimed <= binomial_bound(simulations, 0.05)


def test_with_one_run_the_seed_is_missed_and_nothing_can_be_claimed():
    outside = 0
    for _, gain in gains_of_equal_arms(1, 0.05, 0.01, 60):
        assert gain.p is None
        assert gain.interval_kind == "bootstrap 95% over test patients"
        outside += not gain.interval[0] <= 0 <= gain.interval[1]
    assert outside > 30


def test_a_difference_that_is_there_is_found():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 3)
    sets = np.concatenate(list(patient_draws(patients, 150, seed=5)))
    first, second = arms(rng, 3, 0.005, 0.02, correlated(rng, 60, 3, 0.4), sets)
    better = Measured(first.points + 0.05, first.draws + 0.05)
    gain = values_of("dice", better, second, direction="higher", n=180, patients=60)[2]
    assert gain.p < 0.01
    assert gain.interval[0] > 0


def test_what_two_arms_owe_to_the_same_patients_cancels():
    generator = np.random.default_rng(2)
    sets = np.concatenate(list(patient_draws(np.arange(150), 400, seed=5)))
    effects = generator.uniform(0, 0.8, (1, 150))
    one, other = (
        Measured(scores.mean(axis=1), (scores @ sets.T) / 150)
        for scores in (effects, effects + generator.normal(0.1, 0.05, (1, 150)))
    )
    values = values_of("dice", other, one, direction="higher", n=9, patients=150)
    by_metric = {v.metric: v for v in values}
    low, high = by_metric["dice_gain"].interval
    assert 0 < low < by_metric["dice_gain"].value < high
    own_low, own_high = by_metric["dice"].interval
    assert high - low < 0.25 * (own_high - own_low)


def test_mean_spread_and_gain_by_hand():
    augmented = Measured(np.array([0.6, 0.8]), np.array([[0.5, 0.7], [0.7, 0.9]]))
    real = Measured(np.array([0.5]), np.array([[0.4, 0.6]]))
    values = values_of(
        "auroc", augmented, real, direction="higher", n=7, patients=5, subset="Edema"
    )
    by_metric = {v.metric: v for v in values}
    assert by_metric["auroc"].value == pytest.approx(0.7)
    assert by_metric["auroc"].interval_kind == "t 95% over test patients and training runs"
    # Over runs the draws are 0.6 and 0.8, of variance 0.01, at 4 degrees of freedom: t is 2.776.
    # That of the runs, 0.02, over two is 0.01, at one: t is 12.706. No AUROC is beyond 0 and 1.
    assert by_metric["auroc"].interval == (0, 1)
    augmented = Measured(np.array([0.69, 0.71]), np.array([[0.68, 0.70], [0.70, 0.72]]))
    half = 0.01 * (2.776445**2 + 12.706205**2) ** 0.5
    alone = values_of("auroc", augmented, None, direction="higher", n=7, patients=5)[0]
    assert alone.interval == pytest.approx((0.7 - half, 0.7 + half), abs=1e-6)
    assert by_metric["auroc_sd"].value == pytest.approx(np.std([0.6, 0.8], ddof=1))
    assert by_metric["auroc_sd"].n == 2
    assert by_metric["auroc_gain"].value == pytest.approx(0.2)
    # Nothing is known of the baseline's seeds: its one run stays as it is, and the kind says so.
    assert by_metric["auroc_gain"].p is None
    assert by_metric["auroc_gain"].interval_kind == "bootstrap 95% over test patients"
    assert all(v.subset == "Edema" for v in values)


def test_a_gain_has_satterthwaites_degrees_of_freedom_by_hand():
    """Patients, own seeds and the baseline's have variances of 0.01, at 4, 1 and 1 degrees."""
    augmented = Measured(np.array([0.4, 0.6]), np.array([[0.4, 0.6], [0.4, 0.6]]) + 0.1)
    real = Measured(np.array([0.3, 0.5]), np.array([[0.4, 0.4], [0.4, 0.4]]))
    gain = values_of("auroc", augmented, real, direction="higher", n=7, patients=5)[2]
    freedom = 0.03**2 / (0.01**2 / 4 + 2 * 0.01**2)
    half = stats.t.ppf(0.975, freedom) * 0.03**0.5
    assert freedom == pytest.approx(4)
    assert gain.interval == pytest.approx((0.1 - half, 0.1 + half))
    assert gain.p == pytest.approx(2 * stats.t.sf(0.1 / 0.03**0.5, 4))


def test_one_run_has_no_spread_and_says_why():
    one = Measured(np.array([0.6]), np.array([[0.5, 0.7]]))
    by_metric = {
        v.metric: v for v in values_of("f1", one, None, direction="higher", n=7, patients=5)
    }
    assert by_metric["f1_sd"].value is None
    assert "`repeats` is 1" in by_metric["f1_sd"].reason
    assert "real data alone" in by_metric["f1_gain"].reason


def test_no_interval_where_nothing_varies_and_undefined_draws_are_left_out():
    assert percentiles(np.full(10, 0.3)) is None
    assert percentiles(np.full(10, np.nan)) is None
    low, high = percentiles(np.r_[np.nan, np.linspace(0, 1, 1001)])
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_percentiles_of_few_units_reach_as_far_out_as_student_does():
    # On a normal distribution: sqrt(10 / 9) times Student's 2.262 with 9 degrees of freedom.
    draws = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    low, high = percentiles(draws, 10)
    assert (low, high) == pytest.approx((-2.3845, 2.3845), abs=2e-3)
    plain, many = percentiles(draws), percentiles(draws, 10_000)
    assert plain == pytest.approx((-1.96, 1.96), abs=2e-3)
    assert many == pytest.approx(plain, abs=2e-3)


def test_one_runs_interval_is_that_of_few_patients():
    draws = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[None]
    one = Measured(np.array([0.5]), 0.5 + 0.01 * draws)
    zero = Measured(np.array([0.5]), np.full_like(draws, 0.5))
    values = values_of("auroc", one, zero, direction="higher", n=70, patients=10)
    assert values[0].interval == pytest.approx((0.5 - 0.0238, 0.5 + 0.0238), abs=1e-4)
    assert values[2].interval == pytest.approx((-0.0238, 0.0238), abs=1e-4)


def test_a_baseline_that_nobody_trained_has_no_seed():
    augmented = Measured(np.array([0.6, 0.8]), np.array([[0.5, 0.7], [0.7, 0.9]]))
    released = Measured(np.array([0.5]), np.array([[0.4, 0.6]]))
    trained, as_it_is = (
        values_of(
            "green",
            augmented,
            released,
            direction="higher",
            n=7,
            patients=5,
            baseline_is_trained=known,
        )[2]
        for known in (True, False)
    )
    assert trained.p is None
    assert as_it_is.interval_kind == "t 95% over test patients and training runs"
    # The difference is 0.2 in both draws, but for rounding: the seeds alone vary, at one degree.
    half = 12.706205 * 0.01**0.5
    assert as_it_is.interval == pytest.approx((0.2 - half, 0.2 + half), rel=1e-5)
    assert as_it_is.p == pytest.approx(2 * stats.t.sf(2, 1), rel=1e-5)
