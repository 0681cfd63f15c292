"""What CheXbert says of a report, and how two reports are compared by it; needs no network."""

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
    """Return which findings count as present, bool, of the shape of `classes`.

    Args:
        classes: see `Labeller.label`.
        uncertain_positive: whether uncertain counts as present (the "+" variants of LLaVA-Rad's
            evaluation, and what f1chexbert does) or, as in LLaVA-Rad's own numbers, as absent.
    """
    return (classes == POSITIVE) | (uncertain_positive & (classes == UNCERTAIN))


def agreement(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Return what micro-F1 rests on, of each report: int64 (n, 3), hits, false alarms, misses.

    Args:
        reference: bool (n, findings), present in the reference.
        generated: the same of the generated report.
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
    """Return F1 over all findings together, 0 to 1; nan where nothing is present on either side.

    Args:
        counts: (sets, 3), sums of rows of `agreement`.
    """
    hits, false_alarms, misses = np.moveaxis(counts.astype(np.float64), -1, 0)
    total = 2 * hits + false_alarms + misses
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, 2 * hits / total, np.nan)
