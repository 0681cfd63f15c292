"""Re-identification scores of pairs of images, from their cached features."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pair_scores(
    a: ArrayLike, b: ArrayLike, weight: ArrayLike, bias: ArrayLike
) -> NDArray[np.float64]:
    """Return the probability that a[i] and b[i] show one patient, float64 (n,) in [0, 1].

    Args:
        a: features of the network's branch, (n, d) or (d,).
        b: features of the network's branch, (n, d) or (d,).
        weight: the weight of `fc_end`, (1, d) or (d,).
        bias: the bias of `fc_end`, one number.
    """
    difference = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    logit = difference @ np.asarray(weight, np.float64).reshape(-1)
    logit = np.atleast_1d(logit + np.asarray(bias, np.float64).reshape(()))
    return 0.5 * (1 + np.tanh(0.5 * logit))
