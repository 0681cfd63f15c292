"""DeLong against pairwise comparisons, the bootstrap against literal redrawing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.downstream.classification_metrics import (
    bootstrap,
    delong,
    delong_interval,
    values,
)


def pairwise(labels, scores):
    """AUROC and its variance from all pairs, as the U-statistic is defined."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    better = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = better.mean(1).var(ddof=1) / len(positive) + better.mean(0).var(ddof=1) / len(
        negative
    )
    return better.mean(), variance


@given(st.lists(st.integers(0, 6), min_size=4, max_size=40), st.integers(0, 99))
def test_delong_equals_all_pairs_with_ties(scores, seed):
    labels = np.random.default_rng(seed).integers(0, 2, len(scores))
    labels[:4] = [0, 0, 1, 1]
    scores = np.array(scores, float)
    assert delong(labels, scores) == pytest.approx(pairwise(labels, scores), abs=1e-12)
    assert delong(labels, scores)[0] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_delong_interval_covers_the_truth_nineteen_times_in_twenty():
    from scipy.stats import norm

    truth = norm.cdf(1 / np.sqrt(2))  # two unit normals, one apart
    generator = np.random.default_rng(0)
    labels = np.r_[np.ones(40), np.zeros(60)]
    covered = 0
    for _ in range(600):
        low, high = delong_interval(labels, generator.normal(labels))
        covered += low <= truth <= high
    assert 0.92 < covered / 600 < 0.975


@pytest.mark.parametrize("labels", [[1, 0, 0, 0], [1, 1, 0, 0]])
def test_no_interval_where_none_can_be_estimated(labels):
    """One positive image, or a perfect order."""
    assert delong_interval(np.array(labels), np.array([0.9, 0.8, 0.2, 0.1])) is None


def test_bootstrap_equals_redrawing_patients_by_hand():
    generator = np.random.default_rng(1)
    n, replicates, seed = 60, 20, 5
    patients = np.array([f"p{k}" for k in generator.integers(0, 20, n)], dtype=object)
    labels = (generator.random((n, 2)) < 0.4).astype(np.float32)
    probabilities = (0.5 * labels + generator.random((n, 2))).round(1) / 1.5
    drawn = bootstrap(labels, probabilities, patients, replicates, seed)
    names = np.unique(patients.astype(str))
    times = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=replicates
    )
    for b in range(replicates):
        rows = np.concatenate(
            [
                np.tile(np.flatnonzero(patients == name), k)
                for name, k in zip(names, times[b], strict=True)
            ]
        ).astype(int)
        for k in range(2):
            truth, scores = labels[rows, k], probabilities[rows, k]
            expected = {
                "auroc": roc_auc_score(truth, scores),
                "f1": f1_score(truth, scores >= 0.5),
                "accuracy": accuracy_score(truth, scores >= 0.5),
            }
            for metric, value in expected.items():
                assert drawn[metric][b, k] == pytest.approx(value, abs=1e-12)


def test_images_of_few_patients_widen_the_interval():
    generator = np.random.default_rng(2)
    quality = np.repeat(generator.normal(size=20), 15)  # shared by a patient's images
    labels = np.repeat(generator.integers(0, 2, 20), 15)[:, None]
    scores = 1 / (1 + np.exp(-(quality + labels[:, 0])))[:, None]
    clustered = bootstrap(labels, scores, np.repeat(np.arange(20), 15).astype(str))["auroc"]
    single = bootstrap(labels, scores, np.arange(300).astype(str))["auroc"]
    assert np.nanstd(clustered) > 2 * np.nanstd(single)


def test_values_are_absent_with_their_reason_and_the_mean_is_over_the_rest():
    generator = np.random.default_rng(3)
    labels = np.zeros((80, 14), np.float32)
    labels[:, 0] = generator.random(80) < 0.5
    labels[:, 1] = 1
    probabilities = np.clip(0.3 * labels + generator.random((80, 14)) * 0.7, 0, 1)
    found = {
        (v.metric, v.subset): v for v in values(labels, probabilities, np.arange(80).astype(str), 0)
    }
    assert len(found) == 3 * 15
    assert found["auroc", FINDINGS[1]].reason == "no negative test image"
    assert found["auroc", FINDINGS[2]].reason == "no positive test image"
    assert found["auroc", "all"].value == pytest.approx(found["auroc", FINDINGS[0]].value)
    assert found["auroc", FINDINGS[0]].interval_kind == "DeLong 95%"
    agree = (probabilities >= 0.5) == (labels == 1)
    assert found["accuracy", "all"].value == pytest.approx(agree.mean())
    assert all(v.n == 80 and v.direction == "higher" for v in found.values())


def test_nothing_defined_gives_a_mean_with_a_reason():
    found = values(np.zeros((5, 14)), np.full((5, 14), 0.1), np.arange(5).astype(str), 0)
    mean = next(v for v in found if (v.metric, v.subset) == ("auroc", "all"))
    assert mean.value is None
    assert "no finding" in mean.reason
