"""Is what was asked for visible? A judge's score of generated images against their prompts' labels.

The judge gives each image a probability of each finding. Of a model: the AUROC of these against the
prompts' labels, per finding and their mean, and how well the probabilities are calibrated. Beside
it the judge's own AUROC on the prompts' own radiographs, the ceiling, and the share of the ceiling
above chance that the model reaches (see `against_ceiling`). Which findings the judge is asked about
is decided on the radiographs whose ceiling is reported, so that the ceiling is a little too high.
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
"""Of equal width, as Guo et al. (2017) have them."""

_KEYS: Final = (
    ("judged_auroc", "higher"),
    ("judged_auroc_ceiling", "none"),
    ("judged_share", "higher"),
    ("judged_ece", "lower"),
    ("judged_ece_ceiling", "none"),
)
METRICS: Final = tuple(metric for metric, _ in _KEYS)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean distance of probabilities from shares, over bins, by their images.

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
        labels: (n, 14), 1 or 0: what the prompts ask for.
        patients: (n,), of each prompt's radiograph.
        images: (n, 14), the judge's probabilities of the generated images.
        radiographs: (n, 14), those of the prompts' own radiographs.
        bootstrap: how many sets of patients are drawn.
        seed: of the draws.
        knows: (14,), the findings that the judge was trained on; None for all.
    """
    n = len(labels)
    if knows is not None:  # of the others there is no probability
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
