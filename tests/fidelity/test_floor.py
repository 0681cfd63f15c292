"""The floor of FID: what a perfect generator scores at the same sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.fidelity.floor import disjoint_groups, fid_floor
from workflow_scripts.fidelity.frechet import frechet_distance


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=60),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 999),
)
def test_groups_share_neither_image_nor_patient(patients, first, second, seed):
    patients = np.array([f"p{patient}" for patient in patients])
    a, b = disjoint_groups(patients, first, second, np.random.default_rng(seed))
    assert len(np.unique(np.concatenate([a, b]))) == len(a) + len(b)
    assert not set(patients[a]) & set(patients[b])
    assert len(a) <= first
    assert len(b) <= second


def test_groups_have_the_sizes_asked_for_where_they_fit():
    patients = np.repeat(np.arange(100), 3)
    a, b = disjoint_groups(patients, 50, 200, np.random.default_rng(0))
    assert (len(a), len(b)) == (50, 200)
    a, b = disjoint_groups(patients, 300, 300, np.random.default_rng(0))
    assert len(a) == 150
    assert 147 <= len(b) <= 150


def of_perfect_generators(rng, n, m, scale):
    """The mean FID of two fresh samples of one distribution."""
    values = []
    for _ in range(20):
        x, y = (rng.standard_normal((size, len(scale))) * scale for size in (m, n))
        values.append(frechet_distance(x, y))
    return np.mean(values)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (15, 60), (150, 200)])
@pytest.mark.parametrize("narrow", [1.0, 0.3])
def test_is_what_a_perfect_generator_scores(n, m, narrow):
    # More and fewer images than dimensions, groups that fit and groups carried to the size; the
    # reference is like all images, or differs less within itself than they do.
    rng = np.random.default_rng(1)
    scale = np.arange(1, 31) ** -0.5
    reference = np.arange(300) < m
    real = rng.standard_normal((300, 30)) * scale * np.where(reference, narrow, 1)[:, None]
    floor = fid_floor(real, np.arange(300), n, reference, rng, repeats=20)
    assert floor is not None
    assert (floor.n, floor.n_reference) == (n, m)
    expected = of_perfect_generators(rng, n, m, scale * narrow)
    assert floor.value == pytest.approx(expected, rel=0.2)


def test_too_few_images_to_carry_it_say_the_sizes_they_had():
    real = np.random.default_rng(0).standard_normal((20, 30))
    floor = fid_floor(real, np.arange(20), 20, np.full(20, True), np.random.default_rng(0))
    assert floor is not None
    assert (floor.n, floor.n_reference) == floor.measured == (10, 10)


def test_one_patient_gives_no_floor():
    real, rng = np.random.default_rng(0).standard_normal((30, 3)), np.random.default_rng(0)
    assert fid_floor(real, np.zeros(30), 10, np.full(30, True), rng) is None
    assert fid_floor(real[:3], np.arange(3), 3, np.full(3, True), rng) is None


def test_constant_features_have_a_floor_of_zero():
    floor = fid_floor(
        np.ones((30, 3)), np.arange(30), 10, np.full(30, True), np.random.default_rng(0)
    )
    assert floor is not None
    assert floor.value == 0


def test_one_image_on_a_side_is_refused():
    one = np.arange(9) == 0
    for n, reference in ((1, ~one), (9, one)):
        with pytest.raises(ValueError, match="two images"):
            fid_floor(np.zeros((9, 2)), np.arange(9), n, reference, np.random.default_rng(0))
