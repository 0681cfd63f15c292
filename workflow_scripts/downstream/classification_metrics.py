"""AUROC, F1 and accuracy of a multi-label classifier, with their intervals.

AUROC per finding has DeLong's interval (DeLong, DeLong and Clarke-Pearson, Biometrics 1988, in the
mid-rank form of Sun and Xu, IEEE SPL 2014). It takes images as independent. Everything else, the
mean AUROC among it, has a percentile bootstrap over test patients, because a patient's images are
not.
"""

from typing import Final

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import Value

THRESHOLD: Final = 0.5
BOOTSTRAP: Final = 1000
LEVEL: Final = 0.95
METRICS: Final = ("auroc", "f1", "accuracy")

_CELLS: Final = 4_000_000  # replicates x images at a time: some 100 MB


def delong(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return the AUROC and its variance after DeLong.

    Args:
        labels: (n,), 1 or 0, both present.
        scores: (n,), higher for positive; ties count half.

    Returns:
        AUROC in [0, 1] and its variance; nan where a side has one image only.
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    # The share of the other side that each image is rightly ordered against.
    of_positive = (ranks[:m] - rankdata(positive)) / n
    of_negative = 1 - (ranks[m:] - rankdata(negative)) / m
    if min(m, n) < 2:
        return float(of_positive.mean()), float("nan")
    variance = of_positive.var(ddof=1) / m + of_negative.var(ddof=1) / n
    return float(of_positive.mean()), float(variance)


def delong_interval(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float] | None:
    """Return DeLong's 95 % interval of the AUROC, cut to [0, 1].

    None where the variance cannot be estimated (one image on a side) or is zero: perfect order
    says nothing of its own spread, and [1, 1] would claim certainty.
    """
    auroc, variance = delong(labels, scores)
    if not variance > 0:
        return None
    half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance)
    return max(0.0, auroc - half), min(1.0, auroc + half)


def bootstrap(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    replicates: int = BOOTSTRAP,
    seed: int = 42,
) -> dict[str, np.ndarray]:
    """Recompute the metrics on test sets drawn patient by patient, with replacement.

    Args:
        labels: (n, k), 1 or 0.
        probabilities: (n, k) in [0, 1].
        patients: (n,), who is shown.
        replicates: how many test sets.
        seed: of the draw.

    Returns:
        For each of METRICS a float array (replicates, k); nan where it is undefined in a draw.
    """
    names, patient_of = np.unique(patients.astype(str), return_inverse=True)
    generator = np.random.default_rng(seed)
    shape = (replicates, labels.shape[1])
    drawn = {metric: np.empty(shape) for metric in METRICS}
    predicted = probabilities >= THRESHOLD
    at_a_time = max(1, _CELLS // len(labels))
    for start in range(0, replicates, at_a_time):
        rows = slice(start, min(start + at_a_time, replicates))
        count = rows.stop - rows.start
        times = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
        weights = times[:, patient_of].astype(np.float64)
        agree = weights @ (predicted == (labels == 1))
        hits = weights @ (predicted & (labels == 1))
        sizes = weights @ predicted + weights @ (labels == 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn["accuracy"][rows] = agree / weights.sum(axis=1, keepdims=True)
            drawn["f1"][rows] = 2 * hits / sizes
        for k in range(labels.shape[1]):
            drawn["auroc"][rows, k] = _weighted_auroc(labels[:, k], probabilities[:, k], weights)
    return drawn


def _weighted_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC, (replicates,), of images that count `weights` (replicates, n) times."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of each run of ties
    positive = weights[:, order] * (labels[order] == 1)
    negative = weights[:, order] * (labels[order] == 0)
    positive = np.add.reduceat(positive, starts, axis=1)
    negative = np.add.reduceat(negative, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(axis=1) / pairs


def values(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, seed: int
) -> list[Value]:
    """Return AUROC, F1 and accuracy per finding and, as subset `all`, their means over findings.

    The mean is over the findings where the metric is defined.

    Args:
        labels: (n, 14), 1 or 0.
        probabilities: (n, 14) in [0, 1]; positive from THRESHOLD on.
        patients: (n,), who is shown.
        seed: of the bootstrap.
    """
    n = len(labels)
    draws = bootstrap(labels, probabilities, patients, seed=seed)
    enough_patients = len(set(patients)) > 1
    found: list[Value] = []
    for metric in METRICS:
        points: dict[int, float] = {}
        for k, finding in enumerate(FINDINGS):
            truth, scores = labels[:, k] == 1, probabilities[:, k]
            reason = _undefined(metric, int(truth.sum()), n)
            if reason is not None:
                found.append(Value(metric, None, "higher", n, finding, reason=reason))
                continue
            points[k] = _point(metric, truth, scores)
            if metric == "auroc":
                interval, kind = delong_interval(truth, scores), "DeLong 95%"
            else:
                interval = _percentiles(draws[metric][:, k]) if enough_patients else None
                kind = "bootstrap 95%"
            found.append(_value(metric, points[k], n, finding, interval, kind))
        if points:
            means = _row_means(draws[metric][:, list(points)])
            interval = _percentiles(means) if enough_patients else None
            mean = float(np.mean(list(points.values())))
            found.append(_value(metric, mean, n, "all", interval, "bootstrap 95%"))
        else:
            reason = "no finding with positive and negative test images"
            found.append(Value(metric, None, "higher", n, "all", reason=reason))
    return found


def _undefined(metric: str, positives: int, n: int) -> str | None:
    if metric in ("auroc", "f1") and positives == 0:
        return "no positive test image"
    if metric == "auroc" and positives == n:
        return "no negative test image"
    return None


def _point(metric: str, truth: np.ndarray, scores: np.ndarray) -> float:
    if metric == "auroc":
        return float(roc_auc_score(truth, scores))
    if metric == "f1":
        return float(f1_score(truth, scores >= THRESHOLD, zero_division=0.0))
    return float(accuracy_score(truth, scores >= THRESHOLD))


def _row_means(draws: np.ndarray) -> np.ndarray:
    """Return the mean of each row over what is defined in it; nan where nothing is."""
    defined = np.isfinite(draws)
    total = np.where(defined, draws, 0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return total / defined.sum(axis=1)


def _percentiles(draws: np.ndarray) -> tuple[float, float] | None:
    """Return the interval of what is defined; None where all is equal (a perfect score)."""
    defined = draws[np.isfinite(draws)]
    if len(defined) == 0 or defined.min() == defined.max():
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _value(
    metric: str,
    value: float,
    n: int,
    subset: str,
    interval: tuple[float, float] | None,
    kind: str,
) -> Value:
    return Value(
        metric,
        value,
        "higher",
        n,
        subset,
        interval=interval,
        interval_kind=None if interval is None else kind,
    )
