"""The bias of FID before and after the jackknife, on Gaussians of known distance."""

import numpy as np
import pytest

from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.fidelity.jackknife import corrected_distance, fewest_images
from workflow_scripts.fidelity.resample import GROUPS, groups_of, units_of

# How often an interval covers the truth: few draws here, all of them in the full tier.
RUNS = pytest.mark.parametrize("runs", [40, pytest.param(150, marks=pytest.mark.full)])


def gaussians(n, m, d, shift, scale, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), scale * rng.standard_normal((m, d)) + shift


@RUNS
@pytest.mark.parametrize(
    ("n", "m", "d", "shift", "scale"),
    [(200, 200, 16, 0.0, 1.0), (200, 300, 16, 0.5, 1.0), (120, 200, 64, 0.0, 1.3)],
)
def test_the_bias_goes_and_the_interval_covers_the_truth(n, m, d, shift, scale, runs):
    truth = d * shift**2 + d * (1 - scale) ** 2
    plain, corrected, covered = [], [], 0
    for seed in range(runs):
        x, y = gaussians(n, m, d, shift, scale, seed)
        plain.append(frechet_distance(x, y))
        distance = corrected_distance(x, y)
        corrected.append(distance.value)
        covered += distance.interval[0] <= truth <= distance.interval[1]
    bias = np.mean(plain) - truth
    assert bias > 5 * np.std(plain) / len(plain) ** 0.5
    assert abs(np.mean(corrected) - truth) < 0.2 * bias
    assert covered >= 0.93 * runs


def test_is_the_definition_with_groups_left_out():
    x, y = gaussians(60, 45, 4, 0.3, 1.0, 0)
    x, y = x + 100, y + 100  # an offset costs no digits
    group_x, group_y = groups_of(units_of(60, 45))
    left = [frechet_distance(x[group_x != g], y[group_y != g]) for g in range(GROUPS)]
    expected = GROUPS * frechet_distance(x, y) - (GROUPS - 1) * np.mean(left)
    distance = corrected_distance(x, y)
    assert distance.value == pytest.approx(expected, rel=1e-8)
    error = ((GROUPS - 1) / GROUPS * np.sum((np.array(left) - np.mean(left)) ** 2)) ** 0.5
    low, high = distance.interval
    assert high - low == pytest.approx(2 * 2.093024 * error, rel=1e-6)


def test_images_of_one_patient_are_left_out_together():
    """Each image occurs four times: groups of rows would count copies as information."""
    x, y = gaussians(60, 240, 4, 0.0, 1.0, 1)
    rng = np.random.default_rng(0)
    order = rng.permutation(240)
    copies, patients = np.repeat(x, 4, axis=0)[order], np.repeat(np.arange(60), 4)[order]
    widths = {}
    for name, units in (("patients", units_of(patients, 240)), ("rows", None)):
        low, high = corrected_distance(copies, y, units).interval
        widths[name] = high - low
    assert widths["patients"] > 1.3 * widths["rows"]


def test_too_few_images_are_refused():
    x, y = gaussians(fewest_images(16) - 1, 100, 16, 0.0, 1.0, 0)
    with pytest.raises(ValueError, match="too few"):
        corrected_distance(x, y)
    x, y = gaussians(fewest_images(16), 100, 16, 0.0, 1.0, 0)
    assert np.isfinite(corrected_distance(x, y).value)


def test_few_patients_make_no_standard_error():
    x, y = gaussians(100, 100, 4, 0.0, 1.0, 0)
    with pytest.raises(ValueError, match=r"9 group\(s\)"):
        corrected_distance(x, y, units_of(np.arange(100) * 9 // 100, 100))
    distance = corrected_distance(x, y, units_of(np.arange(100) * 12 // 100, 100))
    assert len(distance.without_groups) == 12
