"""Are the findings visible that a prompt asks for? A judge's probabilities against its labels.

The judge gives each image a probability of each finding. A model's values are the AUROC of these
probabilities against the prompts' labels, by finding and as a mean, and their calibration error.
The judge's AUROC on the prompts' own radiographs is the ceiling, and the model reaches a share of
the ceiling above chance (see `against_ceiling`). The radiographs of the ceiling also decide which
findings the judge is asked about, so the ceiling is slightly too high.
"""

from typing import Final

import numpy as np

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Value
from workflow_scripts.downstream.classification.metrics import drawn, points
from workflow_scripts.downstream.classification.score import fewest_patients
from workflow_scripts.downstream.gains import patient_draws
from workflow_scripts.faithfulness.against_ceiling import (
    Drawn,
    mean_of,
    share_of_ceiling,
    too_few_patients,
    why_not_asked,
)

CHANCE: Final = 0.5
BINS: Final = 15
"""Number of bins of equal width, as in Guo et al. (2017)."""

_KEYS: Final = (
    ("judged_auroc", "higher"),
    ("judged_auroc_ceiling", "none"),
    ("judged_share", "higher"),
    ("judged_ece", "lower"),
    ("judged_ece_ceiling", "none"),
)
METRICS: Final = tuple(metric for metric, _ in _KEYS)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the expected calibration error (Guo et al., 2017).

    It is the mean distance between mean probability and share of positives, over the bins, weighted
    by the number of images.

    Args:
        labels: (n,), 1 or 0, at least one.
        probabilities: (n,) in [0, 1].
    """
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    gaps = np.bincount(bins, weights=probabilities - labels, minlength=BINS)
    return float(np.abs(gaps[counts > 0]).sum() / len(labels))


def finding_values(
    labels: np.ndarray,
    patients: np.ndarray,
    images: np.ndarray,
    radiographs: np.ndarray,
    bootstrap: int,
    seed: int,
    knows: np.ndarray | None = None,
) -> list[Value]:
    """Return the METRICS of each finding and, as subset `all`, their means.

    The means are over the findings that the judge is asked about, the same for score and ceiling.

    Args:
        labels: (n, 14), 1 or 0, the findings that the prompts ask for.
        patients: (n,), the patient of each prompt's radiograph.
        images: (n, 14), the judge's probabilities for the generated images.
        radiographs: (n, 14), its probabilities for the prompts' own radiographs.
        bootstrap: number of drawn sets of patients.
        seed: seed of the draws.
        knows: bool (14,), the findings that the judge was trained on; None for all.
    """
    n = len(labels)
    if knows is not None:  # the other findings have no probability
        images, radiographs = (np.where(knows, x, 0.0) for x in (images, radiographs))
    score = _auroc(labels, images, patients, bootstrap, seed)
    ceiling = _auroc(labels, radiographs, patients, bootstrap, seed)
    few = too_few_patients(labels, patients)
    errors = [
        [expected_calibration_error(labels[:, k], x[:, k]) for k in range(len(FINDINGS))]
        for x in (images, radiographs)
    ]
    values: list[Value] = []
    asked = []
    for k, name in enumerate(FINDINGS):
        reason = few[k]
        if knows is not None and not knows[k]:
            reason = "the judge was not trained on this finding"
        reason = reason or why_not_asked(ceiling[k], CHANCE)
        if reason is None:
            asked.append(k)
            calibration = (errors[0][k], errors[1][k])
            values += _values(score[k], ceiling[k], calibration, n, name)
        else:
            values += _without(n, name, reason)
    if not asked:
        reason = "no finding that the judge can tell on radiographs"
        return values + _without(n, "all", reason)
    calibration = (
        float(np.mean(np.array(errors)[0, asked])),
        float(np.mean(np.array(errors)[1, asked])),
    )
    return values + _values(mean_of(score, asked), mean_of(ceiling, asked), calibration, n, "all")


def _auroc(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, draws: int, seed: int
) -> list[Drawn]:
    """Return the AUROC of each finding; the same seed and patients give the same draws."""
    values = points(labels, probabilities)["auroc"]
    sets = drawn(labels, probabilities, patient_draws(patients, draws, seed))["auroc"]
    units = fewest_patients(labels, patients)
    return [Drawn(float(value), sets[:, k], int(units[k])) for k, value in enumerate(values)]


def _values(
    score: Drawn, ceiling: Drawn, calibration: tuple[float, float], n: int, subset: str
) -> list[Value]:
    share = share_of_ceiling(score, ceiling, CHANCE)
    scores = (score, ceiling, share)
    # A calibration error is larger on any drawn set: percentiles of draws would be no interval.
    return [
        *(x.as_value(*key, n, subset) for key, x in zip(_KEYS[:3], scores, strict=True)),
        *(Value(m, x, way, n, subset) for (m, way), x in zip(_KEYS[3:], calibration, strict=True)),
    ]


def _without(n: int, subset: str, reason: str) -> list[Value]:
    return [Value(metric, None, way, n, subset, reason=reason) for metric, way in _KEYS]
