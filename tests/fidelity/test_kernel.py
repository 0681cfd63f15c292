"""KID compared with the double loop of its definition, and the coverage of its interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clustered import World
from workflow_scripts.fidelity import kernel
from workflow_scripts.fidelity.kernel import SMALLEST_FOR_INTERVAL, kernel_distance
from workflow_scripts.fidelity.resample import draw_resamples, units_of

# How often an interval covers the truth: few draws here, all of them in the full tier.
RUNS = pytest.mark.parametrize("runs", [75, pytest.param(300, marks=pytest.mark.full)])


def with_interval(x, y, replicates, rng, units=None):
    units = units or units_of(len(x), len(y))
    return kernel_distance(x, y, units, draw_resamples(units, replicates, rng))


def by_definition(x, y, patients=None, asked=None):
    """KID over all pairs of different images, or of images of different patients."""

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    def mean(a, own, b, other):
        pairs = [
            k(one, two)
            for one, who in zip(a, own, strict=True)
            for two, whose in zip(b, other, strict=True)
            if who != whose
        ]
        return np.mean(pairs)

    x, y = x.astype(np.float64), y.astype(np.float64)
    own = [f"x{i}" for i in range(len(x))] if patients is None else list(patients)
    other = [f"y{i}" for i in range(len(y))] if asked is None else list(asked)
    return mean(x, own, x, own) + mean(y, other, y, other) - 2 * mean(x, own, y, other)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (30, 30), (25, 40)])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_equals_the_double_loop(n, m, offset, monkeypatch):
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((n, 9)) + offset).astype(np.float32)
    y = (rng.standard_normal((m, 9)) * 1.2 + offset).astype(np.float32)
    expected = by_definition(x, y)
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-6, abs=1e-9)
    # In blocks of a few rows, the last one shorter: the same.
    monkeypatch.setattr(kernel, "_BLOCK_ELEMENTS", 7 * max(n, m))
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-6, abs=1e-9)


PATIENTS = np.array([3, 1, 1, 0, 3, 5, 5, 5, 2, 4, 4, 9, 8, 7, 6, 10, 11, 12, 13, 13])
ASKED = np.array([1, 0, 3, 3, 2, 4, 5, 6, 14, 9, 10, 11, 14, 8, 7])


@pytest.mark.parametrize("elements", [1 << 22, 60])
def test_pairs_of_one_patient_count_in_none_of_the_means(elements, monkeypatch):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((15, 4)) + 1
    monkeypatch.setattr(kernel, "_BLOCK_ELEMENTS", elements)
    units = units_of(PATIENTS, ASKED)
    expected = by_definition(x, y, PATIENTS, ASKED)
    assert kernel_distance(x, y, units).value == pytest.approx(expected)
    assert with_interval(x, y, 20, rng, units).value == pytest.approx(expected)
    # As everybody else computes it, patients do not matter.
    everything = kernel_distance(x, y, units, within_units=True).value
    assert everything == pytest.approx(by_definition(x, y))
    assert everything != pytest.approx(expected)


def resampled(x, y, rows_x, rows_y, own, other, within):
    """A bootstrap replicate by definition, of the drawn rows; copies of an image form no pair."""

    def mean(a, rows, units, b, columns, others, same_side):
        k = (a[rows] @ b[columns].T / a.shape[1] + 1) ** 3
        counts = units[rows][:, None] != others[columns][None, :]
        if within:
            counts = rows[:, None] != columns[None, :] if same_side else np.ones_like(counts)
        return k[counts].mean()

    both = mean(x, rows_x, own, y, rows_y, other, False)
    first = mean(x, rows_x, own, x, rows_x, own, True)
    return first + mean(y, rows_y, other, y, rows_y, other, True) - 2 * both


def weighted(x, y, weights, units, within):
    """KID where the images of each unit have a weight."""

    def mean(a, own, b, other, same_side):
        k = (a @ b.T / a.shape[1] + 1) ** 3
        counts = own[:, None] != other[None, :]
        if within:
            counts = ~np.eye(len(a), dtype=bool) if same_side else np.ones_like(counts)
        counts = counts * weights[own][:, None] * weights[other][None, :]
        return (k * counts).sum() / counts.sum()

    both = mean(x, units.real, y, units.generated, False)
    first = mean(x, units.real, x, units.real, True)
    return first + mean(y, units.generated, y, units.generated, True) - 2 * both


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_replicates_are_those_of_the_drawn_patients(offset, within, monkeypatch):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((20, 4)) + offset, rng.standard_normal((15, 4)) + offset + 2
    monkeypatch.setattr(kernel, "_BLOCK_ELEMENTS", 60)
    units = units_of(PATIENTS, ASKED)
    resamples = draw_resamples(units, 40, rng)
    result = kernel_distance(x, y, units, resamples, within_units=within)
    values = []
    for k in range(40):
        rows_x = np.repeat(np.arange(20), resamples.real[:, k].astype(int))
        rows_y = np.repeat(np.arange(15), resamples.generated[:, k].astype(int))
        drawn = resampled(x, y, rows_x, rows_y, units.real, units.generated, within)
        values.append(drawn)
    expected = result.value + np.array(values) - np.mean(values)
    np.testing.assert_allclose(result.replicates, expected, rtol=2e-5, atol=2e-5)
    # Widened by Student's quantile at 12 degrees of freedom (13 patients have prompts) over the
    # normal one, since KID is far from zero; and by what the jackknife is wider than derivatives.
    count = units.count
    plain = weighted(x, y, np.ones(count), units, within)
    away = {"zero": 0.0, "a little less": 1 - 1e-5}
    moved = {}
    for name, weight in away.items():
        others = [np.where(np.arange(count) == i, weight, 1.0) for i in range(count)]
        moved[name] = [(plain - weighted(x, y, w, units, within)) / (1 - weight) for w in others]
    wider = np.linalg.norm(moved["zero"]) / np.linalg.norm(moved["a little less"])
    assert wider > 1.05
    around = wider * 2.178813 / 1.959964 * (expected - result.value)
    low, high = np.quantile(result.value + around, [0.025, 0.975])
    assert result.interval == pytest.approx((low, high), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("patients", [None, 4])
def test_at_the_null_the_variance_is_that_of_pairs(patients):
    """The variance is of second order: the first-order contribution of a unit is constant there."""
    world = World(6, 0.3, 0.3 if patients else 0.0)
    values, seconds = [], []
    spied = kernel._variances
    for seed in range(150):
        rng = np.random.default_rng(seed)
        cohort = world.cohort(rng, 30, patients or 1)
        y = world.answers(rng, cohort, together=True)
        units = units_of(cohort.patients, cohort.asked) if patients else None
        found = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel, "_variances", lambda *a, f=found: f.append(spied(*a)) or f[0])
            values.append(with_interval(cohort.features, y, 2, rng, units).value)
        seconds.append(found[0][1])
    assert np.mean(seconds) == pytest.approx(np.var(values), rel=0.25)


def test_is_unbiased_for_two_samples_of_one_distribution():
    values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values.append(
            kernel_distance(rng.standard_normal((30, 8)), rng.standard_normal((50, 8))).value
        )
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0


@RUNS
@pytest.mark.parametrize(
    ("n", "m", "d", "shift"),
    [
        (100, 100, 8, 0.0),
        (60, 150, 30, 0.0),
        (100, 100, 8, 0.3),
        (60, 150, 30, 0.3),
        (150, 60, 8, 1.0),
    ],
)
def test_the_interval_covers_the_truth_and_is_not_much_wider_than_needed(n, m, d, shift, runs):
    truth = 0.0
    if shift:  # from samples large enough to give it to 1%
        x, y = np.random.default_rng(99).standard_normal((2, 4000, d))
        truth = kernel_distance(x, y + shift).value
    covered, widths, values = 0, [], []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + shift
        result = with_interval(x, y, 200, rng)
        low, high = result.interval
        covered += low <= truth <= high
        widths.append(high - low)
        values.append(result.value)
    assert covered >= 0.93 * runs
    # Near zero KID is skewed, so that no interval of its spread would do.
    assert np.mean(widths) < (1.2 if shift else 1.5) * 3.92 * np.std(values)


def test_an_interval_needs_some_images():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 3)), rng.standard_normal((SMALLEST_FOR_INTERVAL - 1, 3))
    assert with_interval(x, y, 100, rng).interval is None
    assert with_interval(x, x, 100, rng).interval is not None
    assert kernel_distance(x, x).interval is None


def test_same_seed_same_interval():
    x, y = np.random.default_rng(0).standard_normal((2, 40, 5))
    first, again = (with_interval(x, y, 100, np.random.default_rng(7)) for _ in range(2))
    assert first.value == again.value
    assert first.interval == again.interval


def test_constant_features():
    x, y = np.full((5, 2), 1.0), np.full((4, 2), 3.0)
    # k(x, x) = 8, k(y, y) = 1000, k(x, y) = 64.
    assert kernel_distance(x, y).value == pytest.approx(8 + 1000 - 2 * 64)
    assert kernel_distance(x, x).value == pytest.approx(0)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3))),
        (np.zeros((5, 3)), np.zeros((5, 2))),
        (np.zeros((5, 3)), np.full((5, 3), np.nan)),
    ],
)
def test_what_has_no_answer_is_refused(x, y):
    with pytest.raises(ValueError, match="features"):
        kernel_distance(x, y)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 25), st.integers(2, 25), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_properties(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 1
    kid = kernel_distance(x, y).value
    close = {"rel": 1e-7, "abs": 1e-9}
    assert kernel_distance(y, x).value == pytest.approx(kid, **close)
    shuffled = kernel_distance(rng.permutation(x), rng.permutation(y)).value
    assert shuffled == pytest.approx(kid, **close)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    assert kernel_distance(x @ turn, y @ turn).value == pytest.approx(kid, **close)
    # Features written twice double the dot product and d: the kernel stays.
    assert kernel_distance(np.tile(x, 2), np.tile(y, 2)).value == pytest.approx(kid, **close)


def test_a_set_against_itself_is_below_zero_by_what_own_copies_weigh():
    """The unbiased estimate treats both as samples; pairs of an image and its copy lower it."""
    x = np.random.default_rng(0).standard_normal((40, 6))
    diagonal = ((x * x).sum(axis=1) / 6 + 1) ** 3
    others = ((x @ x.T / 6 + 1) ** 3)[~np.eye(40, dtype=bool)]
    expected = 2 / 40 * (others.mean() - diagonal.mean())
    assert kernel_distance(x, x).value == pytest.approx(expected)
    assert expected < 0
