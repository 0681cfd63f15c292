"""Units and groups: who is drawn, who is left out, and the variance that follows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.fidelity.resample import (
    GROUPS,
    draw_resamples,
    paired_groups,
    variance_of_mean,
)


def test_images_of_one_patient_are_drawn_together():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = draw_resamples(6, 4, 200, np.random.default_rng(0), patients)
    assert drawn.real.shape == (6, 200)
    assert drawn.generated.shape == (4, 200)
    np.testing.assert_array_equal(drawn.real[0], drawn.real[2])
    np.testing.assert_array_equal(drawn.real[0], drawn.real[5])
    np.testing.assert_array_equal(drawn.real[1], drawn.real[4])
    # As many patients as there are, and as many generated images.
    assert (drawn.real[[0, 1, 3]].sum(axis=0) == 3).all()
    assert (drawn.generated.sum(axis=0) == 4).all()
    assert drawn.fewest == 3


def test_models_of_one_size_have_one_set_of_resamples():
    first, again = (draw_resamples(20, 10, 5, np.random.default_rng([42, 0])) for _ in range(2))
    np.testing.assert_array_equal(first.real, again.real)
    np.testing.assert_array_equal(first.generated, again.generated)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_groups_are_as_many_on_both_sides_and_keep_patients_together(n, m, count, seed):
    patients = np.random.default_rng(seed).integers(0, count, n).astype(str)
    real, generated = paired_groups(n, m, patients)
    assert set(real) == set(generated) == set(range(int(real.max()) + 1))
    assert len(set(real)) <= min(GROUPS, len(set(patients)), m)
    for patient in set(patients):
        assert len(set(real[patients == patient])) == 1


def test_groups_of_single_images_are_of_equal_size():
    real, generated = paired_groups(100, 203)
    assert set(np.bincount(real)) == {5}
    assert set(np.bincount(generated)) == {10, 11}


def test_the_variance_of_a_mean_by_hand():
    values = np.array([1.0, 2.0, 3.0, 6.0])
    assert variance_of_mean(values) == pytest.approx(values.var(ddof=1) / 4)
    # Two patients: sums of deviations from 3 are -3 and 3; 2/1 x (9 + 9) / 16.
    assert variance_of_mean(values, np.array([0, 0, 1, 1])) == pytest.approx(2.25)
    # One patient says nothing of others.
    assert variance_of_mean(values, np.zeros(4, int)) == np.inf
