"""Metrics of the test set and its bootstrap draws against scikit-learn, and undefined metrics."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.downstream.classification.metrics import drawn, points
from workflow_scripts.downstream.classification.score import values
from workflow_scripts.downstream.gains import patient_draws
from workflow_scripts.downstream.outcomes import Outcomes


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=30), st.integers(0, 99))
def test_drawn_metrics_equal_those_of_the_repeated_rows(scores, seed):
    """It includes ties: an image of weight three equals three images."""
    generator = np.random.default_rng(seed)
    n = len(scores)
    labels = generator.integers(0, 2, (n, 1)).astype(np.float32)
    labels[:2, 0] = [0, 1]
    probabilities = np.array(scores, float)[:, None] / 6
    weights = generator.integers(1, 4, (5, n)).astype(float)
    resampled = drawn(labels, probabilities, [weights[:2], weights[2:]])
    for b in range(5):
        rows = np.repeat(np.arange(n), weights[b].astype(int))
        truth, repeated = labels[rows, 0], probabilities[rows, 0]
        assert resampled["auroc"][b, 0] == pytest.approx(roc_auc_score(truth, repeated), abs=1e-12)
        assert resampled["f1"][b, 0] == pytest.approx(f1_score(truth, repeated >= 0.5), abs=1e-12)
        assert resampled["accuracy"][b, 0] == pytest.approx(
            accuracy_score(truth, repeated >= 0.5), abs=1e-12
        )
    ones = drawn(labels, probabilities, [np.ones((1, n))])
    for metric, value in points(labels, probabilities).items():
        assert ones[metric][0] == pytest.approx(value, abs=1e-12)


def test_images_of_few_patients_widen_the_interval():
    generator = np.random.default_rng(2)
    quality = np.repeat(generator.normal(size=20), 15)  # shared by a patient's images
    labels = np.repeat(generator.integers(0, 2, 20), 15)[:, None]
    scores = 1 / (1 + np.exp(-(quality + labels[:, 0])))[:, None]
    spread = {}
    for name, patients in (("few", np.repeat(np.arange(20), 15)), ("many", np.arange(300))):
        sets = patient_draws(patients, 500, seed=1)
        spread[name] = np.nanstd(drawn(labels, scores, sets)["auroc"])
    assert spread["few"] > 2 * spread["many"]


def delong_variance(labels, scores):
    """Return DeLong's variance of the AUROC, from all pairs (DeLong et al., Biometrics 1988)."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    better = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return better.mean(1).var(ddof=1) / len(positive) + better.mean(0).var(ddof=1) / len(negative)


def test_with_one_image_of_a_patient_the_spread_is_delongs():
    generator = np.random.default_rng(3)
    labels = (generator.random(400) < 0.3).astype(np.float32)
    scores = generator.normal(labels)
    sets = patient_draws(np.arange(400), 3000, seed=1)
    spread = drawn(labels[:, None], scores[:, None], sets)["auroc"].std()
    assert spread == pytest.approx(np.sqrt(delong_variance(labels, scores)), rel=0.05)


def arm(probabilities, patients, seed=0):
    columns = {name: probabilities[:, k] for k, name in enumerate(FINDINGS)}
    rows = pd.DataFrame({"image_id": np.arange(len(patients)), "patient_id": patients, **columns})
    return Outcomes(rows, {"seed": seed})


def test_values_are_absent_with_their_reason_and_the_mean_is_over_the_rest():
    generator = np.random.default_rng(3)
    labels = np.zeros((80, 14), np.float32)
    labels[:, 0] = generator.random(80) < 0.5
    labels[:, 1] = 1
    probabilities = np.clip(0.3 * labels + generator.random((80, 14)) * 0.7, 0, 1)
    patients = np.arange(80).astype(str)
    by_key = {
        (v.metric, v.subset): v
        for v in values(labels, patients, [arm(probabilities, patients)], None, 200, 0)
    }
    assert len(by_key) == 9 * 15
    assert by_key["auroc", FINDINGS[1]].reason == "no negative test image"
    assert by_key["auroc", FINDINGS[2]].reason == "no positive test image"
    assert by_key["auroc", "all"].value == pytest.approx(by_key["auroc", FINDINGS[0]].value)
    assert by_key["auroc", FINDINGS[0]].interval_kind == "bootstrap 95% over test patients"
    assert "real data alone" in by_key["auroc_gain", "all"].reason
    agree = (probabilities >= 0.5) == (labels == 1)
    assert by_key["accuracy", "all"].value == pytest.approx(agree.mean())


def test_nothing_defined_gives_a_mean_with_a_reason():
    patients = np.arange(5).astype(str)
    runs = [arm(np.full((5, 14), 0.1), patients)]
    measured = values(np.zeros((5, 14)), patients, runs, None, 100, 0)
    mean = next(v for v in measured if (v.metric, v.subset) == ("auroc", "all"))
    assert mean.value is None
    assert mean.reason == "no finding with 10 positive and 10 negative patients"


def test_a_better_arm_gains_and_an_equal_one_gains_nothing():
    """The same patients are drawn for both arms, so that shared effects cancel."""
    generator = np.random.default_rng(4)
    n = 300
    patients = np.repeat(np.arange(n // 3), 3).astype(str)
    labels = (generator.random((n, 14)) < 0.4).astype(np.float32)
    shared = generator.normal(size=(n, 14))
    squash = lambda logits: 1 / (1 + np.exp(-logits))  # noqa: E731
    weak = arm(squash(labels + shared), patients)
    strong = arm(squash(1.4 * labels + shared), patients)
    by_key = {(v.metric, v.subset): v for v in values(labels, patients, [strong], [weak], 500, 0)}
    low, high = by_key["auroc_gain", "all"].interval
    assert 0 < low < by_key["auroc_gain", "all"].value < high
    own_low, own_high = by_key["auroc", "all"].interval
    assert high - low < 0.7 * (own_high - own_low)
    same = values(labels, patients, [weak], [weak], 500, 0)
    gain = next(v for v in same if (v.metric, v.subset) == ("auroc_gain", "all"))
    assert (gain.value, gain.interval) == (0.0, None)


def test_a_finding_of_few_patients_has_no_score_and_is_not_in_the_mean():
    generator = np.random.default_rng(5)
    labels = (generator.random((90, 14)) < 0.5).astype(np.float32)
    labels[:, 2], labels[:27, 2] = 0, 1  # images of nine patients
    labels[:, 3], labels[:30, 3] = 0, 1  # of ten
    labels[:, 4], labels[:27, 4] = 1, 0  # without the finding: nine
    patients = np.repeat(np.arange(30), 3).astype(str)
    probabilities = np.clip(0.3 * labels + 0.7 * generator.random((90, 14)), 0, 1)
    runs = [arm(probabilities, patients)]
    by_key = {(v.metric, v.subset): v for v in values(labels, patients, runs, runs, 200, 0)}
    kept = [k for k in range(14) if k not in (2, 4)]
    for metric in ("auroc", "f1", "auroc_gain"):
        for k in (2, 4):
            assert by_key[metric, FINDINGS[k]].reason == (
                "9 test patient(s) with or without the finding (10 needed)"
            )
        assert by_key[metric, FINDINGS[3]].value is not None
        mean = np.mean([by_key[metric, FINDINGS[k]].value for k in kept])
        assert by_key[metric, "all"].value == pytest.approx(mean)
    assert by_key["auroc", FINDINGS[3]].interval is not None
    assert by_key["accuracy", FINDINGS[2]].interval is not None
    # Every finding has an accuracy.
    everything = np.mean([by_key["accuracy", name].value for name in FINDINGS])
    assert by_key["accuracy", "all"].value == pytest.approx(everything)


def auroc_interval(rng, positive, negative):
    labels = np.zeros((positive + negative, 14), np.float32)
    labels[:positive, 0] = 1
    scores = rng.normal(labels[:, :1] * 1.0, size=(len(labels), 1))
    probabilities = np.repeat(1 / (1 + np.exp(-scores)), 14, axis=1)
    patients = np.arange(len(labels)).astype(str)
    measured = values(labels, patients, [arm(probabilities, patients)], None, 200, 0)
    return next(v for v in measured if (v.metric, v.subset) == ("auroc", FINDINGS[0])).interval


@pytest.mark.parametrize("runs", [30, pytest.param(400, marks=pytest.mark.full)])
def test_with_ten_positive_patients_the_interval_covers(runs):
    """A shift of one standard deviation: the AUROC is Phi(1 / sqrt(2)) = 0.76025."""
    covered = 0
    for seed in range(runs):
        low, high = auroc_interval(np.random.default_rng(seed), 10, 100)
        covered += low <= 0.76025 <= high
    assert covered >= 0.93 * runs - 3 * (0.07 * 0.93 * runs) ** 0.5
