"""FID compared with SciPy's matrix square root and closed forms; properties of a distance."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.fidelity.frechet import frechet_distance


def by_definition(x, y):
    """The formula of Heusel et al., with SciPy's square root of the non-symmetric product."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    s1, s2 = np.cov(x.T), np.cov(y.T)
    means = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return means + np.trace(s1 + s2) - 2 * np.trace(scipy.linalg.sqrtm(s1 @ s2)).real


def symmetric_root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T


def correlated(rng, n, d, offset=0.0):
    mixing = rng.standard_normal((d, d)) / d**0.5
    return (rng.standard_normal((n, d)) @ mixing + offset).astype(np.float32)


@pytest.mark.parametrize(("n", "m"), [(400, 300), (60, 500), (500, 61), (61, 62)])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_equals_the_matrix_root_with_more_images_than_dimensions(n, m, offset):
    rng = np.random.default_rng(n)
    x, y = correlated(rng, n, 24, offset), correlated(rng, m, 24, offset + 0.3)
    assert frechet_distance(x, y) == pytest.approx(by_definition(x, y), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(20, 15), (2, 15), (20, 200), (200, 3)])
def test_equals_the_root_taken_by_eigenvalues_with_fewer_images_than_dimensions(n, m):
    rng = np.random.default_rng(m)
    x, y = correlated(rng, n, 40), correlated(rng, m, 40, 0.3)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    s1, s2 = np.cov(x64.T), np.cov(y64.T)
    # sqrtm is not accurate for singular products: the roots of each covariance are.
    product = np.linalg.svd(symmetric_root(s1) @ symmetric_root(s2))[1]
    means = ((x64.mean(0) - y64.mean(0)) ** 2).sum()
    expected = means + np.trace(s1 + s2) - 2 * product.sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_two_images_on_each_side_by_hand():
    # Covariances of rank one: u u^T with u = (2, 0) / sqrt(2) and v = (0, 4) / sqrt(2).
    # Means coincide, traces are 2 and 8, u and v are orthogonal: nothing is taken off.
    x = np.array([[-1.0, 0.0], [1.0, 0.0]])
    y = np.array([[0.0, -2.0], [0.0, 2.0]])
    assert frechet_distance(x, y) == pytest.approx(10)
    # Along one axis: (sqrt(2) - sqrt(8))^2.
    assert frechet_distance(x, y[:, ::-1].copy()) == pytest.approx(2)


def test_of_gaussians_in_closed_form():
    # N(0, I) scaled by s and moved by t: |t|^2 + d (s - 1)^2, exactly so for any one sample.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 10))
    whitened = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    moved = 3 * whitened + np.full(10, 0.5)
    assert frechet_distance(whitened, moved) == pytest.approx(10 * 0.25 + 10 * 4, rel=1e-9)


@pytest.mark.parametrize("n", [2, 10, 300])
def test_of_identical_sets_is_zero(n):
    x = correlated(np.random.default_rng(1), n, 30, 5)
    assert 0 <= frechet_distance(x, x) <= 1e-6 * x.var(axis=0).sum()


def test_constant_features():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((50, 6))
    constant = np.full((40, 6), 2.0)
    # A side without spread: the distance of the means and the other's trace remain.
    expected = ((x.mean(0) - 2) ** 2).sum() + np.trace(np.cov(x.T))
    assert frechet_distance(x, constant) == pytest.approx(expected)
    assert frechet_distance(constant, x) == pytest.approx(expected)
    assert frechet_distance(constant, constant + 1) == pytest.approx(6)
    # One constant feature makes the covariance singular.
    y = rng.standard_normal((60, 6)) * 2
    x[:, 3], y[:, 3] = 1.0, 4.0
    keep = [0, 1, 2, 4, 5]
    expected = by_definition(x[:, keep], y[:, keep]) + 9
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "real features: 1 row"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "generated features: 0 row"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 dimensions, generated ones 4"),
        (np.zeros((5, 3)), np.array([[0, 0, 0], [0, np.nan, 0]]), "generated .* row 1"),
        (np.array([[np.inf, 0, 0], [0, 0, 0]]), np.zeros((5, 3)), "real .* row 0"),
        (np.zeros(5), np.zeros((5, 3)), r"shape \(5,\)"),
    ],
)
def test_what_has_no_answer_is_refused(x, y, told):
    with pytest.raises(ValueError, match=told):
        frechet_distance(x, y)


sizes = st.tuples(st.integers(2, 30), st.integers(2, 30), st.integers(1, 12))


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 2**32 - 1))
def test_properties_of_a_distance(size, seed):
    n, m, d = size
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) * 2 + 1
    fid = frechet_distance(x, y)
    assert fid >= 0
    close = {"rel": 1e-6, "abs": 1e-6}
    assert frechet_distance(y, x) == pytest.approx(fid, **close)
    assert frechet_distance(rng.permutation(x), rng.permutation(y)) == pytest.approx(fid, **close)
    shift = rng.standard_normal(d)
    moved = frechet_distance(x, x + shift)
    assert moved == pytest.approx((shift**2).sum(), **close)
    # A rotation or reflection of the space changes nothing.
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(fid, **close)
