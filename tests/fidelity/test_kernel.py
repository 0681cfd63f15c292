"""KID against the double loop of its definition, and what its interval is worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.fidelity import kernel
from workflow_scripts.fidelity.kernel import SMALLEST_FOR_INTERVAL, kernel_distance
from workflow_scripts.fidelity.resample import draw_resamples

# How often an interval covers the truth: few draws here, all of them in the full tier.
RUNS = pytest.mark.parametrize("runs", [75, pytest.param(300, marks=pytest.mark.full)])


def with_interval(x, y, replicates, rng, patients=None):
    return kernel_distance(x, y, draw_resamples(len(x), len(y), replicates, rng, patients))


def by_definition(x, y):
    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    def within(z):
        return np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])

    x, y = x.astype(np.float64), y.astype(np.float64)
    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


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


def resampled(x, y, rows_x, rows_y):
    """A replicate by definition: pairs of one original image, copies of it, do not count."""

    def within(z, rows):
        k = (z[rows] @ z[rows].T / z.shape[1] + 1) ** 3
        other = rows[:, None] != rows[None, :]
        return k[other].mean()

    cross = (x[rows_x] @ y[rows_y].T / x.shape[1] + 1) ** 3
    return within(x, rows_x) + within(y, rows_y) - 2 * cross.mean()


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_replicates_leave_out_pairs_of_copies(offset, monkeypatch):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((20, 4)) + offset, rng.standard_normal((15, 4)) + offset + 2
    monkeypatch.setattr(kernel, "_BLOCK_ELEMENTS", 60)
    result = with_interval(x, y, 50, np.random.default_rng(5))
    draws = np.random.default_rng(5)
    rows_x, rows_y = draws.integers(0, 20, (50, 20)), draws.integers(0, 15, (50, 15))
    values = [resampled(x, y, a, b) for a, b in zip(rows_x, rows_y, strict=True)]
    value = by_definition(x, y)
    assert result.value == pytest.approx(value, rel=1e-9, abs=1e-9)
    # Widened by Student's quantile at 14 degrees of freedom over the normal one.
    around = np.array(values) - np.mean(values)
    expected = value + 2.144787 / 1.959964 * around
    np.testing.assert_allclose(result.replicates, expected, rtol=1e-5, atol=1e-5)
    expected = np.quantile(expected, [0.025, 0.975])
    assert result.interval == pytest.approx(tuple(expected), rel=1e-5, abs=1e-5)


def test_contributions_are_the_definitions_and_add_up():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((12, 4)), rng.standard_normal((9, 4)) + 1
    result = kernel_distance(x, y)
    assert result.real.mean() + result.generated.mean() == pytest.approx(result.value)

    def k(a, b):
        return (float(a @ b) / 4 + 1) ** 3

    third = np.mean([k(y[2], b) for j, b in enumerate(y) if j != 2]) - np.mean(
        [k(a, y[2]) for a in x]
    )
    assert result.generated[2] == pytest.approx(third)


def test_variance_parts_come_from_the_centred_matrices(monkeypatch):
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((11, 4)), rng.standard_normal((12, 4)) + 1
    monkeypatch.setattr(kernel, "_BLOCK_ELEMENTS", 30)
    found = {}
    monkeypatch.setattr(
        kernel, "_variances", lambda xx, yy, xy, *own: found.update(xx=xx, xy=xy) or (1.0, 1.0)
    )
    with_interval(x, y, 10, rng)
    own, cross = (x @ x.T / 4 + 1) ** 3, (x @ y.T / 4 + 1) ** 3
    n, m = cross.shape
    np.fill_diagonal(own, 0)
    rows = own.sum(0)
    centred = own - rows / (n - 2) - rows[:, None] / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0)
    np.testing.assert_allclose(centred.sum(0), 0, atol=1e-9)
    # Taking a constant off the kernel changes nothing: U-centring removes it.
    assert kernel._own_pairs(found["xx"]) == pytest.approx(np.sum(centred**2) / (n * (n - 3)))
    both = cross - cross.mean(0) - cross.mean(1, keepdims=True) + cross.mean()
    expected = np.sum(both**2) / ((n - 1) * (m - 1))
    assert kernel._cross_pairs(found["xy"]) == pytest.approx(expected)


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


def clustered(rng, patients, d):
    """Return four images of each patient that share half of their variance, and the patients."""
    own = np.repeat(rng.standard_normal((patients, d)), 4, axis=0)
    x = 0.5**0.5 * (own + rng.standard_normal((4 * patients, d)))
    return x, np.repeat(np.arange(patients), 4)


@RUNS
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_images_of_one_patient_are_one_unit(shift, runs):
    """With four images a patient the interval is that of the patients, not of the images."""
    rng = np.random.default_rng(99)
    truth = kernel_distance(rng.standard_normal((4000, 8)), rng.standard_normal((4000, 8)) + shift)
    covered, as_images = 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        (x, patients), y = clustered(rng, 40, 8), rng.standard_normal((160, 8)) + shift
        low, high = with_interval(x, y, 200, rng, patients).interval
        covered += low <= truth.value <= high
        low, high = with_interval(x, y, 200, rng).interval
        as_images += low <= truth.value <= high
    assert covered >= 0.93 * runs
    assert as_images < covered - 0.05 * runs


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
    """The unbiased estimate takes the two for samples; pairs with the own copy pull it down."""
    x = np.random.default_rng(0).standard_normal((40, 6))
    own = ((x * x).sum(axis=1) / 6 + 1) ** 3
    others = ((x @ x.T / 6 + 1) ** 3)[~np.eye(40, dtype=bool)]
    expected = 2 / 40 * (others.mean() - own.mean())
    assert kernel_distance(x, x).value == pytest.approx(expected)
    assert expected < 0
