"""AUROC, F1 and accuracy of a multi-label classifier, on the test set and on bootstrapped ones."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

THRESHOLD: Final = 0.5
METRICS: Final = ("auroc", "f1", "accuracy")


def points(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return each of METRICS per finding, float (k,) in [0, 1]; nan where it is `undefined`.

    Args:
        labels: (n, k), 1 or 0.
        probabilities: (n, k) in [0, 1]; at least THRESHOLD is a positive prediction.
    """
    n, k = labels.shape
    values = {metric: np.full(k, np.nan) for metric in METRICS}
    for j in range(k):
        truth, scores = labels[:, j] == 1, probabilities[:, j]
        predicted = scores >= THRESHOLD
        positives = int(truth.sum())
        if undefined("auroc", positives, n) is None:
            values["auroc"][j] = roc_auc_score(truth, scores)
        if undefined("f1", positives, n) is None:
            values["f1"][j] = f1_score(truth, predicted, zero_division=0.0)
        values["accuracy"][j] = accuracy_score(truth, predicted)
    return values


def undefined(metric: str, positives: int, n: int) -> str | None:
    """Return why a metric is undefined for a number of positives among n test images, or None."""
    if metric in ("auroc", "f1") and positives == 0:
        return "no positive test image"
    if metric == "auroc" and positives == n:
        return "no negative test image"
    return None


def drawn(
    labels: np.ndarray, probabilities: np.ndarray, weights: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Compute the metrics on bootstrapped test sets.

    Args:
        labels: (n, k), 1 or 0.
        probabilities: (n, k) in [0, 1].
        weights: the number of times each image counts, in chunks of (draws, n).

    Returns:
        For each of METRICS a float array (draws, k); nan where it is undefined in a draw.
    """
    predicted, truth = probabilities >= THRESHOLD, labels == 1
    parts: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for counts in weights:
        hits = counts @ (predicted & truth)
        sizes = counts @ predicted + counts @ truth
        columns = range(labels.shape[1])
        aurocs = [weighted_auroc(truth[:, j], probabilities[:, j], counts) for j in columns]
        parts["auroc"].append(np.stack(aurocs, axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            parts["f1"].append(2 * hits / sizes)
            agree = counts @ (predicted == truth)
            parts["accuracy"].append(agree / counts.sum(axis=1, keepdims=True))
    return {metric: np.concatenate(arrays) for metric, arrays in parts.items()}


def weighted_auroc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC, (draws,), of images that count `weights` (draws, n) times; ties half."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # where ties begin
    positive = weights[:, order] * truth[order]
    negative = weights[:, order] * ~truth[order]
    positive = np.add.reduceat(positive, starts, axis=1)
    negative = np.add.reduceat(negative, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(axis=1) / pairs
