"""CheXbert's classes, and the comparison of two reports by them; needs no network."""

from typing import Final

import numpy as np

HEADS: Final = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
"""The findings in the order of the heads."""

FIVE: Final = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The findings of F1-5."""

BLANK, POSITIVE, NEGATIVE, UNCERTAIN = 0, 1, 2, 3


def is_positive(classes: np.ndarray, uncertain_positive: bool) -> np.ndarray:
    """Return whether each finding counts as present, bool, in the shape of `classes`.

    Args:
        classes: see `Labeller.label`.
        uncertain_positive: whether an uncertain finding counts as present, as in f1chexbert and the
            "+" variants of LLaVA-Rad's evaluation. Otherwise it counts as absent, as in LLaVA-Rad's
            main results.
    """
    return (classes == POSITIVE) | (uncertain_positive & (classes == UNCERTAIN))


def agreement(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Return each report's hits, false alarms and misses, int64 (n, 3), the counts of micro-F1.

    Args:
        reference: bool (n, findings), present in the reference.
        generated: bool (n, findings), present in the generated report.
    """
    return np.stack(
        [
            (reference & generated).sum(axis=1),
            (~reference & generated).sum(axis=1),
            (reference & ~generated).sum(axis=1),
        ],
        axis=1,
    )


def micro_f1(counts: np.ndarray) -> np.ndarray:
    """Return F1 over all findings together, in [0, 1]; nan if neither side has any finding.

    Args:
        counts: (sets, 3), sums of rows of `agreement`.
    """
    hits, false_alarms, misses = np.moveaxis(counts.astype(np.float64), -1, 0)
    total = 2 * hits + false_alarms + misses
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, 2 * hits / total, np.nan)
