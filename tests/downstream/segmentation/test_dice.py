"""Dice against values by hand, its properties, and its values on resampled test sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from workflow_scripts.downstream.gains import patient_draws
from workflow_scripts.downstream.segmentation.metrics import Counts, count, dice, drawn, pooled_dice

MASKS = arrays(bool, (3, 4, 4))


def masks(*rows: str) -> np.ndarray:
    return np.array([[[pixel == "#" for pixel in row]] for row in rows])


def test_dice_of_hand_computed_masks():
    counts = count(masks("##..", "#...", "....", "...."), masks(".##.", "#...", "...#", "...."))
    assert counts.predicted.tolist() == [2, 1, 0, 0]
    assert counts.true.tolist() == [2, 1, 1, 0]
    assert counts.both.tolist() == [1, 1, 0, 0]
    assert dice(counts).tolist() == [0.5, 1.0, 0.0, 1.0]  # two empty masks agree
    assert pooled_dice(counts) == pytest.approx(2 * 2 / (3 + 4))
    assert pooled_dice(counts.of(np.array([3]))) == 1.0


@given(MASKS, MASKS)
def test_dice_is_symmetric_between_0_and_1_and_1_only_of_equals(a: np.ndarray, b: np.ndarray):
    one, other = dice(count(a, b)), dice(count(b, a))
    assert (one == other).all()
    assert ((one >= 0) & (one <= 1)).all()
    assert ((one == 1) == (a == b).all(axis=(1, 2))).all()
    assert pooled_dice(count(a, b)) == pooled_dice(count(b, a))
    assert (pooled_dice(count(a, b)) == 1) == (a == b).all()


@given(MASKS, MASKS)
def test_dice_is_the_f1_of_pixels(a: np.ndarray, b: np.ndarray):
    expected = f1_score(a.ravel(), b.ravel(), zero_division=1.0)
    assert pooled_dice(count(a, b)) == pytest.approx(expected)


@given(st.integers(0, 9))
def test_drawn_test_sets_are_the_images_repeated(seed: int):
    rng = np.random.default_rng(seed)
    counts = count(rng.random((6, 4, 4)) < 0.4, rng.random((6, 4, 4)) < 0.4)
    patients = np.array(["a", "a", "b", "c", "c", "d"])
    scores = drawn(counts, patient_draws(patients, 5, seed))
    for k, times in enumerate(np.concatenate(list(patient_draws(patients, 5, seed)))):
        rows = np.repeat(np.arange(6), times.astype(int))
        assert scores["dice"][k] == pytest.approx(dice(counts)[rows].mean())
        assert scores["dice_pooled"][k] == pytest.approx(pooled_dice(counts.of(rows)))


def test_masks_of_two_shapes_are_a_mistake():
    with pytest.raises(ValueError, match="masks of"):
        count(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 3), bool))
    assert len(Counts(np.zeros(2), np.zeros(2), np.zeros(2))) == 2
