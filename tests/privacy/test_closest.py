"""The closest training image, compared with a search over all pairs in float64."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workflow_scripts.features.pair_scores import pair_scores
from workflow_scripts.privacy import closest
from workflow_scripts.privacy.closest import closest_by_distance, closest_by_score
from workflow_scripts.privacy.products import InBfloat16, InFloat32


def by_distance(queries, references, k=1, skip=None):
    difference = queries[:, None].astype(np.float64) - references[None].astype(np.float64)
    values = np.sqrt(np.square(difference).mean(axis=2))
    if skip is not None:
        values[np.arange(len(queries)), skip] = np.inf
    rows = np.argsort(values, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(values, rows, axis=1)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(closest, "_QUERIES", 7)
    monkeypatch.setattr(closest, "_REFERENCES", 70)
    monkeypatch.setattr(closest, "_CHUNK", 16)


ARITHMETICS = [InFloat32, InBfloat16]


@pytest.fixture(params=ARITHMETICS)
def arithmetic(request, monkeypatch):
    """Both arithmetics, whichever this machine would choose; torch emulates a missing one."""
    monkeypatch.setattr(closest, "multiplies_bfloat16", lambda device: request.param is InBfloat16)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("k", [1, 3])
def test_is_the_closest_of_all_pairs(offset, k, small_blocks):
    rng = np.random.default_rng(0)
    references = (rng.standard_normal((333, 12)) + offset).astype(np.float32)
    queries = (rng.standard_normal((40, 12)) + offset).astype(np.float32)
    nearest = closest_by_distance(queries, references, k)
    rows, values = by_distance(queries, references, k)
    np.testing.assert_array_equal(nearest.rows, rows)
    np.testing.assert_array_equal(nearest.values, values)


@pytest.mark.usefixtures("arithmetic")
def test_a_copy_is_at_zero_and_a_near_copy_is_not_taken_for_it(small_blocks):
    """Two references differ from the query by less than float32 products can resolve."""
    rng = np.random.default_rng(1)
    references = (10 * rng.standard_normal((200, 64))).astype(np.float32)
    queries = references[[5, 150]].copy()
    references[120] = queries[0]
    references[5, 3] += np.float32(1e-4)
    nearest = closest_by_distance(queries, references)
    assert nearest.rows.ravel().tolist() == [120, 150]
    assert nearest.values.ravel().tolist() == [0, 0]
    # Without itself, each has the next.
    again = closest_by_distance(queries, references, skip=np.array([120, 150]))
    assert again.rows[0, 0] == 5
    assert 0 < again.values[0, 0] < 1e-4


@pytest.mark.usefixtures("arithmetic")
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.integers(1, 30), st.integers(4, 300), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9)
)
def test_ties_go_to_the_first(m, n, d, k, seed):
    # Whole numbers: many pairs are equally near, and float32 is exact.
    rng = np.random.default_rng(seed)
    references = rng.integers(0, 3, (n, d)).astype(np.float32)
    queries = rng.integers(0, 3, (m, d)).astype(np.float32)
    skip = rng.integers(0, n, m) if seed % 2 else None
    nearest = closest_by_distance(queries, references, k, skip)
    rows, values = by_distance(queries, references, k, skip)
    np.testing.assert_array_equal(nearest.rows, rows)
    np.testing.assert_array_equal(nearest.values, values)


def test_more_candidates_than_are_kept_open(small_blocks, monkeypatch):
    monkeypatch.setattr(closest, "_MOST_CANDIDATES", 50)
    references = np.zeros((400, 5), np.float32)
    references[390:] = 1
    queries = np.vstack([np.zeros((9, 5)), np.ones((9, 5))]).astype(np.float32)
    nearest = closest_by_distance(queries, references, 2)
    assert (nearest.rows[:9] == [0, 1]).all()
    assert (nearest.rows[9:] == [390, 391]).all()
    assert (nearest.values == 0).all()


@pytest.mark.parametrize("kind", ARITHMETICS)
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(-20, 20), st.integers(0, 99))
def test_products_are_wrong_by_less_than_their_bound(kind, d, spread, seed):
    """Vectors have norms over many orders of magnitude, with copies among them."""
    rng = np.random.default_rng(seed)
    x, y = (rng.standard_normal((n, d)) * 2.0 ** rng.integers(-9, 9, (n, 1)) for n in (12, 20))
    x, y = (torch.from_numpy(points * 2.0**spread).float() for points in (x, y))
    y[:5] = x[:5]
    products = kind(x, (12, 20))
    bounded = products.against(y)(slice(2, 12))
    exact = (x[2:, None].double() - y[None].double()).square().sum(dim=2)
    exact -= x[2:, None].double().square().sum(dim=2)
    wrong = (bounded.values.double() - exact).abs()
    assert (wrong <= bounded.error[:, None] + bounded.grain * bounded.values.double().abs()).all()


@pytest.mark.parametrize("kind", ARITHMETICS)
def test_bounds_of_products_are_narrow(kind):
    """With wide bounds every pair would be a candidate."""
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((50, 768))).float() for _ in range(2))
    products = kind(x, (50, 50))
    bounded = products.against(y)(slice(0, 50))
    bound = bounded.error[:, None] + bounded.grain * bounded.values.double().abs()
    assert (bound < 0.03 * torch.cdist(x, y).square()).all()


@pytest.mark.parametrize("k", [1, 4])
def test_scores_are_the_highest_of_all_pairs(k, small_blocks, monkeypatch):
    monkeypatch.setattr(closest, "_MOST_CANDIDATES", 40)
    rng = np.random.default_rng(2)
    references = rng.random((250, 20)).astype(np.float32)
    queries = rng.random((30, 20)).astype(np.float32)
    queries[3] = references[77]
    weight, bias = rng.standard_normal((1, 20)) - 0.5, np.array([0.7])
    nearest = closest_by_score(queries, references, weight, bias, k)
    scores = np.array([pair_scores(references, query, weight, bias) for query in queries])
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(nearest.rows, rows)
    np.testing.assert_allclose(nearest.values, np.take_along_axis(scores, rows, 1), rtol=1e-12)
    # Positive weights reward a difference: a copy need not be the highest, but scores its bias.
    copy = closest_by_score(queries[3:4], references, -np.abs(weight), bias)
    assert copy.rows[0, 0] == 77
    assert copy.values[0, 0] == pytest.approx(1 / (1 + np.exp(-0.7)), abs=1e-15)


@pytest.mark.parametrize("kind", ["all positive", "all zero"])
def test_weights_of_one_sign(kind):
    rng = np.random.default_rng(3)
    references, queries = rng.random((90, 6)), rng.random((5, 6))
    weight = np.zeros(6) if kind == "all zero" else np.ones(6)
    nearest = closest_by_score(queries, references, weight, np.zeros(1))
    scores = np.array([pair_scores(references, query, weight, np.zeros(1)) for query in queries])
    np.testing.assert_array_equal(nearest.rows[:, 0], scores.argmax(axis=1))


def test_what_has_no_answer_is_refused():
    x = np.zeros((5, 3))
    with pytest.raises(ValueError, match=r"5 reference\(s\) have no 6 closest"):
        closest_by_distance(x, x, 6)
    with pytest.raises(ValueError, match="no 5 closest"):
        closest_by_distance(x, x, 5, skip=np.arange(5))
    with pytest.raises(ValueError, match="dimensions"):
        closest_by_distance(x[:, :2], x)
    with pytest.raises(ValueError, match="not finite"):
        closest_by_distance(np.full((2, 3), np.nan), x)
