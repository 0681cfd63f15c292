"""The bound on leaks that remain covers, and gets looser where less is known."""

import numpy as np
import pytest

from workflow_scripts.curate.bounds import HALF, LEVEL, least_share, most_left, most_missed

PLANTED = 60


def test_the_lower_bound_of_a_share_is_clopper_and_pearsons():
    assert least_share(60, 60) == pytest.approx(HALF ** (1 / 60))
    assert least_share(0, 60) == 0
    assert least_share(30, 60) < least_share(40, 60) < 40 / 60


def test_a_perfect_filter_misses_nothing_and_a_blind_one_may_miss_all():
    assert most_missed(5, 1.0, 100) == 0
    assert most_missed(0, 0.0, 100) == 100
    assert most_missed(5, 0.5, 0) == 0


def test_more_flagged_images_loosen_the_bound():
    assert most_missed(2, 0.9, 1000) < most_missed(20, 0.9, 1000)


def drawn_bound(rng, sensitivities, patients, each, together):
    """Plant leaks of each kind, leak patients' images of a kind unknown to us, and filter."""
    low = min(least_share(int(rng.binomial(PLANTED, share)), PLANTED) for share in sensitivities)
    # A leak of an unknown kind is caught as the worst planted kind is.
    worst = min(sensitivities)
    if together:
        caught = np.repeat(rng.random((patients, 1)) < worst, each, axis=1)
    else:
        caught = rng.random((patients, each)) < worst
    false_alarms = int(rng.binomial(300, 0.02))
    flagged_patients = int(caught.any(axis=1).sum()) + false_alarms
    multiplicity = int((~caught).sum(axis=1).max(initial=1)) or 1
    flagged = int(caught.sum()) + false_alarms
    kept = 300 - false_alarms + int((~caught).sum())
    return int((~caught).sum()), most_left(flagged, flagged_patients, low, kept, multiplicity)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("sensitivities", "patients", "each"), [((0.99, 0.8), 12, 3), ((1.0, 0.5), 6, 1)]
)
def test_the_bound_covers_leaks_of_patients_with_several(sensitivities, patients, each, together):
    rng = np.random.default_rng(1)
    draws = [drawn_bound(rng, sensitivities, patients, each, together) for _ in range(400)]
    covered = np.mean([left <= bound for left, bound in draws])
    assert covered >= 1 - LEVEL
    # It says something: fewer than all that is left.
    assert np.median([bound for _, bound in draws]) < 150
