"""Measures of anatomy on masks that can be measured by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.faithfulness.anatomy import STRUCTURES, measure

SIDE = 100


def box(top, bottom, first, last):
    """Return a mask of rows top..bottom and columns first..last, the last ones excluded."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, first:last] = True
    return mask


def chest(**changes):
    masks = {
        "left_clavicle": box(15, 18, 55, 85),
        "right_clavicle": box(15, 18, 15, 45),
        "heart": box(50, 80, 35, 75),
        "right_lung": box(20, 80, 10, 40),
        "left_lung": box(20, 80, 60, 90),
    }
    return masks | changes


def test_a_chest_measured_by_hand():
    found = measure(chest())
    assert found.ratio == 40 / 80
    assert found.area_right == found.area_left == 60 * 30 / SIDE**2
    assert found.asymmetry == 0
    assert found.heart_inside == 1
    assert found.clavicles == 2


@given(st.integers(4, 60))
def test_a_wider_heart_has_a_greater_ratio(width):
    assert measure(chest(heart=box(50, 80, 30, 30 + width))).ratio == width / 80


def test_the_chest_is_as_wide_as_in_the_row_where_it_is_widest():
    right = chest()["right_lung"] | box(60, 70, 5, 40)
    # A row that one lung reaches alone does not count.
    left = chest()["left_lung"] | box(85, 95, 60, 99)
    assert measure(chest(right_lung=right, left_lung=left)).ratio == 40 / 85


def test_a_small_lung_shows_as_asymmetry_on_its_side():
    found = measure(chest(right_lung=box(20, 50, 10, 40)))
    assert found.asymmetry == pytest.approx((30 - 60) / 90)
    mirrored = {name: mask[:, ::-1] for name, mask in chest(right_lung=box(20, 50, 10, 40)).items()}
    swapped = mirrored | {
        "right_lung": mirrored["left_lung"],
        "left_lung": mirrored["right_lung"],
    }
    assert measure(swapped).asymmetry == pytest.approx((60 - 30) / 90)


def test_a_heart_outside_the_lungs_field():
    assert measure(chest(heart=box(70, 90, 35, 75))).heart_inside == 0.5
    assert measure(chest(heart=box(85, 95, 35, 75))).heart_inside == 0


@pytest.mark.parametrize("gone", list(STRUCTURES))
def test_what_is_absent_is_not_measured(gone):
    found = measure(chest(**{gone: box(0, 1, 0, 2)}))
    assert found.clavicles == (1 if "clavicle" in gone else 2)
    assert (found.ratio is None) == (gone in ("heart", "right_lung", "left_lung"))
    assert (found.asymmetry is None) == gone.endswith("lung")
    assert (found.area_right is None) == (gone == "right_lung")
    assert (found.heart_inside is None) == (found.ratio is None)
