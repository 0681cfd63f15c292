"""Precision, recall, density and coverage compared with `prdc` and with their definitions."""

import contextlib
import io

import numpy as np
import prdc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.fidelity import manifold
from workflow_scripts.fidelity.manifold import manifold_overlap
from workflow_scripts.fidelity.resample import GROUPS, groups_of, units_of

METRICS = ("precision", "recall", "density", "coverage")

# How often an interval covers the truth: few draws here, all of them in the full tier.
RUNS = pytest.mark.parametrize(
    ("runs", "least"), [(80, 0.9), pytest.param(200, 0.93, marks=pytest.mark.full)]
)


def peer(real, generated, k):
    with contextlib.redirect_stdout(io.StringIO()):
        return prdc.compute_prdc(real.astype(np.float64), generated.astype(np.float64), k)


def assert_equals_peer(real, generated, k=5):
    overlap, expected = manifold_overlap(real, generated, k), peer(real, generated, k)
    assert {name: getattr(overlap, name) for name in METRICS} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 16), (150, 400, 3), (60, 60, 200)])
@pytest.mark.parametrize("offset", [0, 100, 1000])
def test_equals_prdc_whatever_the_offset(n, m, d, offset):
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((n, d)) + offset).astype(np.float32)
    y = (rng.standard_normal((m, d)) * 0.8 + offset + 0.1).astype(np.float32)
    assert_equals_peer(x, y)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_blocks_do_not_change_memberships(step, monkeypatch):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((90, 6)), rng.standard_normal((70, 6))
    whole = manifold_overlap(x, y)
    in_steps = manifold.blocks

    def narrow(rows, columns, elements=0):
        return in_steps(rows, columns, step * columns)

    monkeypatch.setattr(manifold, "blocks", narrow)
    parts = manifold_overlap(x, y)
    for name in ("balls_holding", "real_reached", "balls_filled"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(8, 40),
    st.integers(8, 40),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 999),
)
def test_equals_prdc_on_a_grid_full_of_ties_and_duplicates(n, m, d, k, seed):
    # Whole numbers: prdc's arithmetic is exact on them, so that equal distances are equal there.
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, (n, d)).astype(np.float32)
    y = rng.integers(0, 4, (m, d)).astype(np.float32)
    y[: m // 2] = x[rng.integers(0, n, m // 2)]
    assert_equals_peer(x, y, k)


def test_a_tie_is_outside_though_the_centre_is_no_float():
    # Points on a line, k = 1: radii are 1; the generated points lie exactly on the balls' edges.
    real = np.arange(0, 40, 2, dtype=np.float32)[:, None] * 0.1
    generated = real.copy()
    overlap = manifold_overlap(real, generated, 1)
    # Every copy is inside its original's ball; a neighbour, at the radius, is not.
    # 0.1 is no binary number, so some neighbours are nearer by rounding: count them exactly.
    distances = np.abs(real.astype(np.float64) - generated.astype(np.float64).T)
    radii = np.sort(distances, axis=1)[:, 1]
    np.testing.assert_array_equal(
        overlap.balls_holding, (distances < radii[:, None] * (1 - 1e-12)).sum(axis=0)
    )


def test_memberships_near_a_radius_are_those_of_float64():
    # Pairs within 1e-6 of the radius, where float32 products cannot tell.
    rng = np.random.default_rng(8)
    real = (rng.standard_normal((80, 40)) * 3).astype(np.float32)
    distances = np.linalg.norm(real[:, None].astype(np.float64) - real[None], axis=2)
    radii = np.sort(distances, axis=1)[:, 5]
    direction = rng.standard_normal((80, 40))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    factor = np.where(np.arange(80) % 2, 1 + 1e-6, 1 - 1e-6)
    generated = (real + direction * (radii * factor)[:, None]).astype(np.float32)
    exact = np.linalg.norm(real[:, None].astype(np.float64) - generated[None], axis=2)
    overlap = manifold_overlap(real, generated)
    np.testing.assert_array_equal(overlap.balls_holding, (exact < radii[:, None]).sum(axis=0))
    assert 0 < (np.diag(exact) < radii).mean() < 1


def test_mode_collapse_loses_recall_and_coverage_not_precision():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.standard_normal((200, 4)), rng.standard_normal((200, 4)) + 30])
    collapsed = rng.standard_normal((400, 4))
    overlap = manifold_overlap(real, collapsed)
    assert overlap.precision > 0.9
    assert overlap.recall < 0.55
    assert overlap.coverage < 0.55
    # The other way round, half of what is generated is nothing real.
    overlap = manifold_overlap(collapsed, real)
    assert overlap.precision < 0.55
    assert overlap.recall > 0.9


def test_one_outlier_does_not_raise_coverage_as_it_raises_precision():
    rng = np.random.default_rng(1)
    real = np.concatenate([rng.standard_normal((100, 3)), np.full((1, 3), 100.0)])
    far = rng.standard_normal((100, 3)) + 50
    overlap = manifold_overlap(real, far)
    assert overlap.precision == 1  # the outlier's ball reaches everywhere
    assert overlap.coverage < 0.05
    assert overlap.density < 0.5


def test_identical_sets_overlap_entirely():
    x = np.random.default_rng(2).standard_normal((120, 10))
    overlap = manifold_overlap(x, x)
    assert (overlap.precision, overlap.recall, overlap.coverage) == (1, 1, 1)
    # A ball holds its own point and the k - 1 nearer than its radius.
    assert overlap.density == 1


def test_sets_far_apart_do_not_overlap():
    x = np.random.default_rng(2).standard_normal((50, 10))
    overlap = manifold_overlap(x, x + 1e4)
    assert [getattr(overlap, name) for name in METRICS] == [0, 0, 0, 0]


def test_constant_features_have_balls_without_inside():
    x = np.full((30, 4), 7.0)
    overlap = manifold_overlap(x, x)
    assert [getattr(overlap, name) for name in METRICS] == [0, 0, 0, 0]
    spread = np.random.default_rng(0).standard_normal((30, 4)) + 7
    overlap = manifold_overlap(spread, x)
    assert overlap.recall == 0
    assert overlap.precision in (0, 1)


def test_the_smallest_set_has_one_point_more_than_k():
    x = np.random.default_rng(0).standard_normal((6, 3))
    assert manifold_overlap(x, x, 5).coverage == 1
    with pytest.raises(ValueError, match=r"real features: 5 row.* 6 are needed"):
        manifold_overlap(x[:5], x, 5)
    with pytest.raises(ValueError, match="generated features: 5 row"):
        manifold_overlap(x, x[:5], 5)


@pytest.mark.parametrize("bad", [np.full((9, 3), np.nan), np.zeros((9, 4))])
def test_what_has_no_answer_is_refused(bad):
    with pytest.raises(ValueError, match="features"):
        manifold_overlap(np.zeros((9, 3)), bad)


def test_counts_by_group_are_those_of_the_balls_of_the_group():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((45, 3)), rng.standard_normal((30, 3)) + 0.5
    overlap = manifold_overlap(x, y, 3)
    radii_x = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, 3]
    radii_y = np.sort(np.linalg.norm(y[:, None] - y, axis=2), axis=1)[:, 3]
    distances = np.linalg.norm(x[:, None] - y, axis=2)
    in_real, in_generated = distances < radii_x[:, None], distances < radii_y
    group_x, group_y = groups_of(units_of(45, 30))
    for g in range(GROUPS):
        assert np.array_equal(overlap.holding_by[:, g], in_real[group_x == g].sum(axis=0))
        assert np.array_equal(overlap.reached_by[:, g], in_generated[:, group_y == g].sum(axis=1))
        assert np.array_equal(overlap.filled_by[:, g], in_real[:, group_y == g].sum(axis=1))


@RUNS
@pytest.mark.parametrize(
    ("n", "m", "d", "scale", "shift"),
    [
        (100, 100, 4, 1.0, 0.0),
        (120, 300, 16, 1.0, 0.0),
        (300, 120, 4, 1.0, 0.5),
        (100, 100, 4, 1.5, 0.0),
        (120, 300, 16, 0.5, 0.0),
    ],
)
def test_intervals_cover_the_expected_value_and_are_not_much_wider_than_needed(
    n, m, d, scale, shift, runs, least
):
    """Over new samples of both sides the values fall into the intervals, despite fixed radii."""
    values, intervals = [], []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((n, d)), scale * rng.standard_normal((m, d)) + shift
        overlap = manifold_overlap(x, y)
        values.append([getattr(overlap, name) for name in METRICS])
        intervals.append([overlap.intervals()[name] for name in METRICS])
    values, intervals = np.array(values), np.array(intervals)
    truth, spread = values.mean(axis=0), values.std(axis=0)
    covered = ((intervals[:, :, 0] <= truth) & (truth <= intervals[:, :, 1])).mean(axis=0)
    widths = (intervals[:, :, 1] - intervals[:, :, 0]).mean(axis=0)
    assert (covered >= least).all(), dict(zip(METRICS, covered, strict=True))
    # A share near 0 or 1 has almost no spread; its interval is that of so many images without one.
    inner = (truth > 0.05) & ((truth < 0.95) | (np.array(METRICS) == "density"))
    assert (widths[inner] < 2.2 * 3.92 * spread[inner]).all()


def test_without_a_real_point_the_other_balls_hold_what_is_said():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((25, 2)), rng.standard_normal((40, 2))
    held = manifold_overlap(x, y, 3).filled_by.sum(axis=1)
    for j in range(25):
        without = manifold_overlap(np.delete(x, j, axis=0), y, 3).filled_by.sum()
        assert without - np.delete(held, j).sum() == manifold_overlap(x, y, 3).gained[j]


def test_values_without_a_group_are_those_of_its_absence():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((60, 3)), rng.standard_normal((40, 3)) + 0.5
    left = manifold_overlap(x, y, 3).without_groups()
    radii_x = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, 3]
    radii_y = np.sort(np.linalg.norm(y[:, None] - y, axis=2), axis=1)[:, 3]
    distances = np.linalg.norm(x[:, None] - y, axis=2)
    group_x, group_y = groups_of(units_of(60, 40))
    for g in range(GROUPS):
        kept = np.ix_(group_x != g, group_y != g)
        in_real = (distances < radii_x[:, None])[kept]
        in_generated = (distances < radii_y)[kept]
        assert left["precision"][g] == in_real.any(axis=0).mean()
        assert left["recall"][g] == in_generated.any(axis=1).mean()
        assert left["coverage"][g] == in_real.any(axis=1).mean()


def test_two_spreads_say_the_same_of_density():
    """The standard errors by group, by both sides at once and by image agree."""
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((600, 12)), rng.standard_normal((500, 12))
    overlap = manifold_overlap(x, y)
    left = overlap.without_groups()["density"]
    low, high = overlap.intervals()["density"]
    assert left.mean() == pytest.approx(overlap.density, rel=0.02)
    by_group = (GROUPS - 1) ** 0.5 * left.std()
    assert by_group == pytest.approx((high - low) / 3.92, rel=0.4)


def test_density_without_anything_inside_has_no_interval():
    x = np.random.default_rng(2).standard_normal((50, 10))
    assert set(manifold_overlap(x, x + 1e4).intervals()) == {"precision", "recall", "coverage"}


def test_a_share_of_one_has_an_interval_below_it():
    x = np.random.default_rng(0).standard_normal((60, 4))
    low, high = manifold_overlap(x, x).intervals()["precision"]
    assert high == 1
    # Wilson's at 60 of 60.
    assert low == pytest.approx(60 / (60 + 1.96**2))


@pytest.mark.parametrize("scale", [1e-14, 1e14])
def test_scales_within_reach_change_nothing(scale):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((30, 5)) + 0.5
    plain, scaled = manifold_overlap(x, y), manifold_overlap(x * scale, y * scale)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(scaled, name) == getattr(plain, name)


@pytest.mark.parametrize("scale", [1e19, 1e-22])
def test_a_scale_whose_squares_leave_float32_is_refused_by_name(scale):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((30, 5)) + 0.5
    with pytest.raises(ValueError, match="precision, recall, density and coverage need"):
        manifold_overlap(x * scale, y * scale)
