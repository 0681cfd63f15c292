"""The round trip from prompt to image to report: does the report state what the prompt asked for?

The released LLaVA-Rad writes a report on each generated image. CheXbert labels the report, and the
labels are compared with those of the prompt. A report names a finding or does not, so there is no
probability for an AUROC. The value is the mean of sensitivity and specificity (balanced accuracy)
instead, which is the AUROC of a binary score, with chance at 0.5. As with other judges, the value
of the prompts' own radiographs is the ceiling. A finding that reports do not recognise there is
left out (see `against_ceiling`).
"""

from typing import Final

import numpy as np

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Value
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

# A model that draws a finding in every image reaches a sensitivity of 1. So neither sensitivity nor
# specificity has a better direction of its own.
_KEYS: Final = (
    ("round_trip_balanced", "higher"),
    ("round_trip_balanced_ceiling", "none"),
    ("round_trip_share", "higher"),
    ("round_trip_sensitivity", "none"),
    ("round_trip_sensitivity_ceiling", "none"),
    ("round_trip_specificity", "none"),
    ("round_trip_specificity_ceiling", "none"),
)
METRICS: Final = tuple(metric for metric, _ in _KEYS)
_PARTS: Final = ("balanced", "sensitivity", "specificity")


def round_trip_values(
    labels: np.ndarray,
    patients: np.ndarray,
    images: np.ndarray,
    radiographs: np.ndarray,
    bootstrap: int,
    seed: int,
) -> list[Value]:
    """Return the METRICS of each finding and, as subset `all`, their means.

    The means are over the findings that reports are asked about, the same for score and ceiling.

    Args:
        labels: (n, 14), 1 or 0, the findings that the prompts ask for.
        patients: (n,), the patient of each prompt's radiograph.
        images: bool (n, 14), the findings in reports on the generated images.
        radiographs: bool (n, 14), the findings in reports on the prompts' own radiographs.
        bootstrap: number of drawn sets of patients.
        seed: seed of the draws.
    """
    n = len(labels)
    score, ceiling = (
        agreement(labels, named, patients, bootstrap, seed) for named in (images, radiographs)
    )
    few = too_few_patients(labels, patients)
    values: list[Value] = []
    asked = []
    for k, name in enumerate(FINDINGS):
        reason = few[k] or why_not_asked(ceiling["balanced"][k], CHANCE)
        if reason is None:
            asked.append(k)
            values += _values(_of(score, k), _of(ceiling, k), n, name)
        else:
            values += _without(n, name, reason)
    if not asked:
        reason = "no finding that reports tell on radiographs"
        return values + _without(n, "all", reason)
    means = [{part: mean_of(scores[part], asked) for part in _PARTS} for scores in (score, ceiling)]
    return values + _values(means[0], means[1], n, "all")


def agreement(
    labels: np.ndarray, named: np.ndarray, patients: np.ndarray, draws: int, seed: int
) -> dict[str, list[Drawn]]:
    """Return sensitivity, specificity and their mean (`balanced`) of each finding.

    Args:
        labels: (n, k), 1 or 0, the findings that the prompts ask for.
        named: bool (n, k), the findings in the reports.
        patients: (n,), the patient of each row.
        draws: number of drawn sets of patients.
        seed: seed of the draws; the same seed and patients give the same sets.

    Returns:
        A list of k scores for each; nan if no image, or every image, has the finding.
    """
    truth, named = labels == 1, named.astype(bool)

    def shares(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(invalid="ignore"):
            sensitivity = counts @ (truth & named) / (counts @ truth)
            specificity = counts @ (~truth & ~named) / (counts @ ~truth)
        return sensitivity, specificity

    value = [part[0] for part in shares(np.ones((1, len(truth))))]
    parts = [shares(counts) for counts in patient_draws(patients, draws, seed)]
    sets = [np.concatenate([part[side] for part in parts]) for side in (0, 1)]
    value.append(np.mean(value, axis=0))
    sets.append(np.mean(sets, axis=0))
    units = fewest_patients(labels, patients).tolist()
    return {
        name: [Drawn(float(value[i][k]), sets[i][:, k], units[k]) for k in range(truth.shape[1])]
        for i, name in enumerate(("sensitivity", "specificity", "balanced"))
    }


def _of(scores: dict[str, list[Drawn]], k: int) -> dict[str, Drawn]:
    return {part: scores[part][k] for part in _PARTS}


def _values(score: dict[str, Drawn], ceiling: dict[str, Drawn], n: int, subset: str) -> list[Value]:
    share = share_of_ceiling(score["balanced"], ceiling["balanced"], CHANCE)
    numbers = [score["balanced"], ceiling["balanced"], share]
    for part in ("sensitivity", "specificity"):
        numbers += [score[part], ceiling[part]]
    return [number.as_value(*key, n, subset) for key, number in zip(_KEYS, numbers, strict=True)]


def _without(n: int, subset: str, reason: str) -> list[Value]:
    return [Value(metric, None, way, n, subset, reason=reason) for metric, way in _KEYS]
