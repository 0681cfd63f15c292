"""Intervals of findings hold what they are of, where few patients have a finding."""

import numpy as np
from scipy import stats

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.downstream.classification.metrics import drawn
from workflow_scripts.downstream.gains import patient_draws, percentiles
from workflow_scripts.faithfulness.findings import finding_values

POSITIVE, NEGATIVE = 10, 45
"""Patients: the fewest that a finding is asked about with, and the rest."""


def probabilities(rng, patient_of, present, shift):
    """A judge's, (n, 14): alike within a patient, apart by `shift` standard deviations."""
    shape = (POSITIVE + NEGATIVE, len(FINDINGS))
    scores = 0.8 * rng.standard_normal(shape)[patient_of]
    scores += 0.6 * rng.standard_normal(scores.shape) + shift * present[:, None]
    return stats.norm.cdf(scores - shift / 2)


def test_an_auroc_of_ten_patients_is_held_as_promised_and_less_often_by_plain_percentiles():
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1.2 / 2**0.5)
    held, plain, n = 0, 0, 0
    for _ in range(30):
        films = rng.integers(1, 4, POSITIVE + NEGATIVE)
        patient_of = np.repeat(np.arange(len(films)), films)
        present = (patient_of < POSITIVE).astype(float)
        labels = np.repeat(present[:, None], len(FINDINGS), axis=1)
        images = probabilities(rng, patient_of, present, 1.2)
        films_seen = probabilities(rng, patient_of, present, 3.0)
        values = finding_values(labels, patient_of, images, films_seen, 250, 1)
        sets = drawn(labels, images, patient_draws(patient_of, 250, 1))["auroc"]
        for value in values:
            if value.metric != "judged_auroc" or value.subset == "all":
                continue
            low, high = value.interval
            held += low <= truth <= high
            low, high = percentiles(sets[:, FINDINGS.index(value.subset)])
            plain += low <= truth <= high
            n += 1
    assert n == 30 * len(FINDINGS)
    assert held / n > 0.93
    assert plain / n < held / n - 0.015
