"""Alignment: how well generated images agree with the captions they were made from."""

import numpy as np
from scipy import stats

from workflow_scripts.fidelity.arrays import check_pair
from workflow_scripts.fidelity.resample import variance_of_mean


def cosine_alignment(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the cosine of each image embedding with its text embedding, (n,) in [-1, 1].

    It is the paper's alignment score: a CLIPScore (Hessel et al., 2021) in BioViL-T's joint space,
    without the factor and without clipping at zero. The embeddings need not be normalised.

    Args:
        images: (n, d); row i is the image generated from caption i.
        texts: (n, d); row i is caption i.

    Raises:
        ValueError: the shapes differ, values are not finite, or an embedding has length 0.
    """
    check_pair(images, texts)
    if len(images) != len(texts):
        raise ValueError(f"{len(images)} image embeddings and {len(texts)} text embeddings")
    images, texts = np.asarray(images, np.float64), np.asarray(texts, np.float64)
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    if (lengths == 0).any():
        raise ValueError(f"an embedding of length 0 in row {int((lengths == 0).argmax())}")
    return (images * texts).sum(axis=1) / lengths


def mean_with_interval(
    values: np.ndarray, patients: np.ndarray | None = None
) -> tuple[float, tuple[float, float] | None]:
    """Return the mean and its 95% t interval over patients; one patient gives no interval.

    Args:
        values: (n,).
        patients: (n,) the patient behind each value; None where the values are independent.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("no values to average")
    mean = float(values.mean())
    count = len(values) if patients is None else len(np.unique(patients))
    if count == 1:
        return mean, None
    half = float(stats.t.ppf(0.975, count - 1) * variance_of_mean(values, patients) ** 0.5)
    return mean, (mean - half, mean + half)
