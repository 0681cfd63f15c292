"""Units and groups: which are drawn, which are left out, and the resulting variance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.fidelity.resample import (
    GROUPS,
    draw_resamples,
    effective_number,
    expanded_tail,
    groups_of,
    means_without,
    units_of,
    variance_of_mean,
    wilson_interval,
)


def test_images_of_one_patient_are_drawn_together_on_both_sides():
    patients, asked = np.array(["b", "a", "b", "c", "a", "b"]), np.array(["a", "b", "b", "d"])
    drawn = draw_resamples(units_of(patients, asked), 200, np.random.default_rng(0))
    assert drawn.real.shape == (6, 200)
    assert drawn.generated.shape == (4, 200)
    # A patient's radiographs, and the images of the patient's prompts.
    for same in (drawn.real[2], drawn.real[5], drawn.generated[1], drawn.generated[2]):
        np.testing.assert_array_equal(drawn.real[0], same)
    np.testing.assert_array_equal(drawn.real[1], drawn.generated[0])
    # As many patients as there are: a, b, c and d.
    four = drawn.real[[0, 1, 3]].sum(axis=0) + drawn.generated[3]
    assert (four == 4).all()
    assert drawn.units.fewest == 3


def test_every_replicate_has_two_patients_of_each_side():
    drawn = draw_resamples(units_of(np.arange(2), np.arange(30)), 300, np.random.default_rng(0))
    assert (drawn.real > 0).all()
    with pytest.raises(ValueError, match="one unit"):
        draw_resamples(units_of(np.zeros(5), np.arange(9)), 3, np.random.default_rng(0))


def test_models_with_the_same_prompts_have_one_set_of_resamples():
    units = units_of(20, 10)
    first, again = (draw_resamples(units, 5, np.random.default_rng([42, 0])) for _ in range(2))
    np.testing.assert_array_equal(first.drawn, again.drawn)


def test_images_without_patients_are_units_of_their_own():
    units = units_of(3, 6)
    assert units.count == 9
    assert len(set(units.real) | set(units.generated)) == 9
    mixed = units_of(np.array(["a", "a", "b"]), 2)
    assert mixed.real[0] == mixed.real[1] != mixed.real[2]
    assert mixed.count == 4


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_groups_keep_the_images_of_a_patient_together_on_both_sides(n, m, count, seed):
    rng = np.random.default_rng(seed)
    patients, asked = rng.integers(0, count, n), rng.integers(0, count, m)
    real, generated = groups_of(units_of(patients, asked))
    assert set(real) | set(generated) == set(range(max(real.max(), generated.max()) + 1))
    assert len(set(real) | set(generated)) <= min(GROUPS, len(set(patients)), len(set(asked)))
    for patient in {*patients, *asked}:
        assert len({*real[patients == patient], *generated[asked == patient]}) == 1


def test_groups_of_single_images_are_of_near_equal_size():
    real, generated = groups_of(units_of(100, 203))
    assert set(np.bincount(real)) <= {4, 5, 6}
    assert set(np.bincount(generated)) <= {9, 10, 11}
    assert len(set(real)) == len(set(generated)) == GROUPS


def test_groups_of_patients_are_of_near_equal_size():
    patients = np.repeat(np.arange(40), 5)
    real, generated = groups_of(units_of(patients, patients[::5]))
    assert set(np.bincount(real)) == {10}
    assert set(np.bincount(generated)) == {2}


def test_means_without_a_unit_by_hand():
    values = np.array([1.0, 2.0, 3.0, 6.0])
    assert means_without(values, np.array(["b", "a", "b", "b"])) == pytest.approx([10 / 3, 2])
    assert means_without(values) == pytest.approx([11 / 3, 10 / 3, 3, 2])


def test_the_variance_of_a_mean_by_hand():
    values = np.array([1.0, 2.0, 3.0, 6.0])
    assert variance_of_mean(values) == pytest.approx(values.var(ddof=1) / 4)
    # Two patients: sums of deviations from 3 are -3 and 3; 2/1 x (9 + 9) / 16.
    assert variance_of_mean(values, np.array([0, 0, 1, 1])) == pytest.approx(2.25)
    # Of one and three images: left out, the mean is 11 / 3 or 1; half of 4 / 9 + 4.
    assert variance_of_mean(values, np.array([7, 2, 2, 2])) == pytest.approx(20 / 9)
    # One patient says nothing of others.
    assert variance_of_mean(values, np.zeros(4, int)) == np.inf


def test_an_effective_number_by_hand():
    """Rows agree within units, so four units of 3, 3, 1 and 1 rows count as 8^2 / 20."""
    values = np.array([0.0, 0, 0, 0, 0, 0, 1, 0])
    units = np.repeat(["a", "b", "c", "d"], [3, 3, 1, 1])
    assert effective_number(values, units) == pytest.approx(3.2)
    # The variance over units alone is small, because the one is a unit of a single row.
    assert len(values) * variance_of_mean(values) / variance_of_mean(values, units) > 6
    # Rows that agree no more within units than between them are as many as they are.
    assert effective_number(np.tile([0.0, 1.0], 4), np.repeat(np.arange(4), 2)) == 8
    assert effective_number(values, np.arange(8)) == pytest.approx(8)
    assert effective_number(np.ones(8), units) == 4
    assert effective_number(values, np.zeros(8)) == 1


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_a_share_of_unequal_units_is_held_as_promised(share, alike):
    """Seventeen rows in one unit of six. The variance over units alone holds 72% at the least."""
    sizes = np.where(np.arange(100) < 16, 17, 1)
    units = np.repeat(np.arange(100), sizes)
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        own = rng.random(len(units)) < share
        of_unit = (rng.random(100) < share)[units]
        values = np.where((rng.random(100) < alike)[units], of_unit, own).astype(float)
        low, high = wilson_interval(values.mean(), effective_number(values, units))
        held += low <= share <= high
    assert held / 200 > 0.91


def test_percentiles_of_few_units_lie_farther_out():
    # 1 - Phi(sqrt(10 / 9) x 2.2622), with Student's quantile of nine degrees of freedom.
    assert expanded_tail(10) == pytest.approx(0.0085515, abs=1e-6)
    assert expanded_tail(10**6) == pytest.approx(0.025, abs=1e-5)
    assert expanded_tail(1) == 0.025
