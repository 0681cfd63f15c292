"""Fidelity metrics where patients have several images and generated images follow captions."""

import numpy as np
import pytest

from tests.clustered import World, binomial_bound, correlated, long_stays
from workflow_scripts.fidelity.alignment import mean_with_interval
from workflow_scripts.fidelity.kernel import kernel_distance
from workflow_scripts.fidelity.manifold import manifold_overlap
from workflow_scripts.fidelity.resample import draw_resamples, units_of

# Few draws by default, many in the full tier.
RUNS = pytest.mark.parametrize("runs", [60, pytest.param(200, marks=pytest.mark.full)])


def least(runs):
    """Return the least number of runs that a 95% interval must cover: 3 standard errors below."""
    return runs - binomial_bound(runs, 0.05)


def drawn(world, patients, images, seed, **how):
    rng = np.random.default_rng(seed)
    cohort = world.cohort(rng, patients, images)
    generated = world.answers(rng, cohort, **how)
    return cohort.features, generated, units_of(cohort.patients, cohort.asked), rng


@pytest.mark.parametrize("freedom", [None, 5.0])
def test_the_simulated_patients_are_what_they_are_said_to_be(freedom):
    rng = np.random.default_rng(0)
    world = World(3, icc=0.4, caption=0.25, freedom=freedom)
    cohort = world.cohort(rng, 20_000, 4, captions=2)
    together = world.answers(rng, cohort, together=True)
    alone = world.answers(rng, cohort)
    first, second, third = (cohort.features[k::4] for k in range(3))
    covariance = lambda a, b: (a * b).mean()  # noqa: E731
    for images in (cohort.features, together, alone):
        assert images.var() == pytest.approx(1, abs=0.05)
    # The first and the third image have one caption, the second another one of the same patient.
    assert covariance(first, third) == pytest.approx(0.65, abs=0.03)
    assert covariance(first, second) == pytest.approx(0.4, abs=0.03)
    assert covariance(first, together[::2]) == pytest.approx(0.25, abs=0.03)
    assert covariance(together[::2], together[1::2]) == pytest.approx(0.4, abs=0.03)
    assert covariance(alone[::2], alone[1::2]) == pytest.approx(0, abs=0.03)
    counts = long_stays(rng, 20_000, 8.0)
    assert counts.mean() == pytest.approx(8, rel=0.05)
    assert counts.std() == pytest.approx(7.5, rel=0.05)
    assert counts.min() == 1


@RUNS
@pytest.mark.parametrize(("icc", "caption"), [(0.6, 0.0), (0.0, 0.3), (0.3, 0.3)])
@pytest.mark.parametrize("patients", [8, 15, 60])
def test_kid_of_a_perfect_generator_is_centred_on_zero(patients, icc, caption, runs):
    """It holds for few patients, too; it would not if pairs within patients counted."""
    world = World(8, icc, caption)
    between, within = [], []
    for seed in range(runs):
        real, generated, units, _ = drawn(world, patients, 5, seed)
        between.append(kernel_distance(real, generated, units).value)
        within.append(kernel_distance(real, generated, units, within_units=True).value)
    error = np.std(between) / runs**0.5
    assert abs(np.mean(between)) < 3 * error
    if icc == 0.6:
        assert np.mean(within) > 3 * np.std(within) / runs**0.5


def test_exact_copies_of_the_reference_read_zero():
    real, _, units, rng = drawn(World(8, 0.4, 0.2), 20, 5, 0)
    order = rng.permutation(len(real))
    copies = units_of(units.real, units.real[order])
    assert kernel_distance(real, real[order], copies).value == pytest.approx(0, abs=1e-12)


def test_left_out_of_the_two_inner_means_alone_pairs_within_patients_bias_the_other_way():
    """A caption's radiograph and image are correlated: if these pairs count, KID is too low."""
    world, half = World(8, 0.0, 0.3), []
    for seed in range(60):
        real, generated, units, _ = drawn(world, 15, 4, seed)
        kernel = lambda a, b: (a @ b.T / 8 + 1) ** 3  # noqa: E731
        same = units.real[:, None] == units.generated[None, :]
        cross = kernel(real, generated)
        # All pairs between the sides in place of those of two patients.
        value = kernel_distance(real, generated, units).value
        half.append(value + 2 * cross[~same].mean() - 2 * cross.mean())
    assert np.mean(half) < -3 * np.std(half) / 60**0.5


@RUNS
@pytest.mark.parametrize(
    ("patients", "images", "icc", "caption", "freedom"),
    [(20, 10, 0.6, 0.0, None), (30, 5, 0.3, 0.3, None), (30, 5, 0.3, 0.3, 6.0)],
)
def test_kids_interval_covers_zero_at_the_null(patients, images, icc, caption, freedom, runs):
    """The interval is conservative, as KID is skewed there. Units of images would not cover."""
    world, covered, by_image = World(8, icc, caption, freedom), 0, 0
    for seed in range(runs):
        real, generated, units, rng = drawn(world, patients, images, seed, together=True)
        low, high = kernel_distance(
            real, generated, units, draw_resamples(units, 150, rng)
        ).interval
        covered += low <= 0 <= high
        if icc < 0.6:
            continue
        single = units_of(len(real), len(generated))
        low, high = kernel_distance(
            real, generated, single, draw_resamples(single, 150, rng)
        ).interval
        by_image += low <= 0 <= high
    assert covered >= least(runs)
    if icc == 0.6:
        assert by_image < least(runs)


@RUNS
@pytest.mark.parametrize(("icc", "caption"), [(0.6, 0.0), (0.3, 0.3)])
def test_kids_interval_covers_a_distance_that_is_there(icc, caption, runs):
    """Most patients have few images and a few of them many."""
    # The moments of the products of two Gaussian vectors of d dimensions, one or both shifted.
    d, shift = 8, 0.6
    square = d * shift**2
    a = 1 + square / d
    generated_mean = a**3 + 3 * a * (2 * square + d) / d**2 + 6 * square / d**3
    truth = (1 + 3 / d) + generated_mean - 2 * (1 + 3 * (square + d) / d**2)
    covered = 0
    for seed in range(runs):
        images = long_stays(np.random.default_rng([seed, 1]), 60, 4.0)
        real, generated, units, rng = drawn(
            World(d, icc, caption), 60, images, seed, together=True, shift=shift
        )
        resamples = draw_resamples(units, 200, rng)
        low, high = kernel_distance(real, generated, units, resamples).interval
        covered += low <= truth <= high
    assert covered >= least(runs)


@pytest.mark.parametrize("runs", [200, pytest.param(1000, marks=pytest.mark.full)])
@pytest.mark.parametrize("icc", [0.0, 0.05, 0.2, 0.4])
@pytest.mark.parametrize(("patients", "images"), [(30, 8), (293, 17)])
def test_alignments_interval_covers_at_mimics_shape(patients, images, icc, runs):
    runs = runs if patients < 100 else runs // 4
    covered, by_image = 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        values, shown = correlated(rng, patients, images, icc)
        _, (low, high) = mean_with_interval(values, shown)
        covered += low <= 0 <= high
        _, (low, high) = mean_with_interval(values)
        by_image += low <= 0 <= high
    assert covered >= least(runs)
    assert covered <= 0.95 * runs + 3 * (0.95 * 0.05 * runs) ** 0.5
    if icc >= 0.2:
        assert by_image < 0.85 * runs


@RUNS
def test_alignments_interval_covers_where_few_patients_stay_long(runs):
    covered = 0
    for seed in range(5 * runs):
        rng = np.random.default_rng(seed)
        values, shown = correlated(rng, 40, long_stays(rng, 40, 8.0), 0.3)
        _, (low, high) = mean_with_interval(values, shown)
        covered += low <= 0 <= high
    assert covered >= 0.93 * 5 * runs - 3 * (0.07 * 0.93 * 5 * runs) ** 0.5


@pytest.mark.parametrize("runs", [30, pytest.param(200, marks=pytest.mark.full)])
def test_the_manifolds_intervals_cover_where_both_sides_are_clustered(runs):
    """They cover the expectation, estimated by the mean over the runs."""
    names = ("precision", "recall", "density", "coverage")
    values, bounds = [], []
    for seed in range(runs):
        real, generated, units, _ = drawn(World(8, 0.3, 0.3), 40, 5, seed, together=True, shift=0.3)
        overlap = manifold_overlap(real, generated, units=units)
        values.append([getattr(overlap, name) for name in names])
        bounds.append([overlap.intervals()[name] for name in names])
    low, high = np.moveaxis(np.array(bounds), 2, 0)
    expected = np.mean(values, axis=0)
    covered = ((low <= expected) & (expected <= high)).sum(axis=0)
    assert (covered >= least(runs)).all(), covered / runs
