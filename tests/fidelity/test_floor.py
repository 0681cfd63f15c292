"""The floor of FID: what a perfect generator scores at the same sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.fidelity.floor import FEWEST, disjoint_groups, fid_floor
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


@pytest.mark.parametrize(("n", "m"), [(20, 20), (15, 60), (150, 200)])
def test_is_what_a_perfect_generator_scores(n, m):
    # More and fewer images than dimensions, groups that fit and groups carried to the size.
    rng = np.random.default_rng(1)
    scale = np.arange(1, 31) ** -0.5
    perfect = []
    for _ in range(20):
        x, y = (rng.standard_normal((size, 30)) * scale for size in (m, n))
        perfect.append(frechet_distance(x, y))
    real = rng.standard_normal((200, 30)) * scale
    floor = fid_floor(real, np.arange(200), n, m, rng)
    assert floor is not None
    assert (floor.n, floor.n_reference) == (n, m)
    assert floor.value == pytest.approx(np.mean(perfect), rel=0.15)


def test_it_draws_until_the_mean_is_known_to_five_percent():
    # Patients with many images each make groups that differ from draw to draw.
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(30), 5)
    alike = rng.standard_normal((150, 2)) * 0.1 + 2 * rng.standard_normal((30, 2))[patients]
    first, second = (
        fid_floor(alike, patients, 40, 40, np.random.default_rng(seed)) for seed in (1, 2)
    )
    assert first is not None
    assert second is not None
    assert first.draws > FEWEST
    assert first.value == pytest.approx(second.value, rel=0.25)
    independent = fid_floor(rng.standard_normal((400, 40)), np.arange(400), 60, 60, rng)
    assert independent is not None
    assert independent.draws == FEWEST


def test_too_few_images_to_carry_it_say_the_sizes_they_had():
    real = np.random.default_rng(0).standard_normal((20, 30))
    floor = fid_floor(real, np.arange(20), 20, 20, np.random.default_rng(0))
    assert floor is not None
    assert (floor.n, floor.n_reference) == floor.measured == (10, 10)


def test_one_patient_gives_no_floor():
    real, rng = np.random.default_rng(0).standard_normal((30, 3)), np.random.default_rng(0)
    assert fid_floor(real, np.zeros(30), 10, 10, rng) is None
    assert fid_floor(real[:3], np.arange(3), 3, 3, rng) is None


def test_constant_features_have_a_floor_of_zero():
    floor = fid_floor(np.ones((30, 3)), np.arange(30), 10, 10, np.random.default_rng(0))
    assert floor is not None
    assert floor.value == 0


def test_one_image_on_a_side_is_refused():
    for n, m in ((1, 9), (9, 1)):
        with pytest.raises(ValueError, match="two images"):
            fid_floor(np.zeros((9, 2)), np.arange(9), n, m, np.random.default_rng(0))
