"""Alignment and the interval of its mean, compared with values computed by hand."""

import numpy as np
import pytest

from workflow_scripts.fidelity.alignment import cosine_alignment, mean_with_interval


def test_cosines_by_hand_whatever_the_lengths():
    images = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, -3.0]])
    texts = np.array([[5.0, 0.0], [0.0, 0.5], [0.0, 0.1]])
    np.testing.assert_allclose(cosine_alignment(images, texts), [1, 0.5**0.5, -1])


@pytest.mark.parametrize(
    ("images", "texts", "told"),
    [
        (np.ones((2, 3)), np.ones((3, 3)), "2 image embeddings and 3 text"),
        (np.ones((2, 3)), np.ones((2, 4)), "dimensions"),
        (np.ones((2, 3)), np.array([[1, 1, 1], [0, 0, 0]]), "length 0 in row 1"),
        (np.ones((2, 3)), np.full((2, 3), np.nan), "not finite"),
    ],
)
def test_what_has_no_answer_is_refused(images, texts, told):
    with pytest.raises(ValueError, match=told):
        cosine_alignment(images, texts)


def test_the_interval_of_the_mean():
    assert mean_with_interval(np.array([0.4])) == (0.4, None)
    # t(0.975, 3) = 3.182446, sd of 1..4 = 1.290994
    mean, interval = mean_with_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert mean == 2.5
    assert interval == pytest.approx((2.5 - 2.054260, 2.5 + 2.054260), abs=1e-5)
    # Two of each patient: sums of deviations -2 and 2, t(0.975, 1) = 12.706205.
    mean, interval = mean_with_interval(np.array([1.0, 2.0, 3.0, 4.0]), np.array(list("aabb")))
    assert interval == pytest.approx((2.5 - 12.706205, 2.5 + 12.706205), abs=1e-5)
    assert mean_with_interval(np.array([1.0, 2.0]), np.array(["a", "a"])) == (1.5, None)
    with pytest.raises(ValueError, match="no values"):
        mean_with_interval(np.zeros(0))
