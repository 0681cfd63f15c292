"""With which other prompts' radiographs a model's images are compared: what chance looks like.

Nothing but the prompt tells such a pair from that of an image and its own radiograph: the images
are the same model's, and the radiographs are the same ones. Their findings are as like as can be,
for images that show what was asked are nearer to radiographs of the same findings.
"""

from typing import Final

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

OTHERS: Final = 5
"""Radiographs of other prompts that each prompt's images are compared with."""

_TOGETHER: Final = 2000
"""Prompts that are assigned to one another; more take time with the third power."""

_NEVER: Final = 1000.0


def other_radiographs(
    patients: pd.Series, findings: np.ndarray, others: int = OTHERS, seed: int = 0
) -> pd.DataFrame:
    """Return pairs of a prompt's radiograph and another prompt's, of another patient.

    In each of `others` rounds every radiograph is given to one other prompt, such that the fewest
    findings differ in all; no pair comes twice. So every radiograph stands for as many prompts.

    Args:
        patients: (n,) the patient of each prompt's radiograph, indexed by its `image_id`, unique.
        findings: (n,) uint16, see `make_control.positive_masks`.
        others: rounds.
        seed: decides between assignments that are equally good.

    Returns:
        Columns `image_id` and `other_image_id`: n x others rows, fewer where there are not as many
        radiographs of other patients.
    """
    n = len(patients)
    rng = np.random.default_rng(seed)
    names, codes = patients.index.to_numpy(), patients.factorize()[0]
    bits = (findings[:, None] >> np.arange(16)) & 1
    # Sorted by the most frequent finding, within it by the next one, and so on: like ones together.
    drawn = rng.permutation(n)
    order = drawn[np.lexsort(bits[:, np.argsort(bits.sum(axis=0), kind="stable")][drawn].T)]
    found = []
    for rows in np.array_split(order, -(-n // _TOGETHER)) if n and others else []:
        differing = np.bitwise_count(findings[rows, None] ^ findings[rows]).astype(np.float64)
        differing += 0.01 * rng.random(differing.shape)
        differing[codes[rows, None] == codes[rows]] = _NEVER
        for _ in range(others):
            first, second = linear_sum_assignment(differing)
            kept = differing[first, second] < _NEVER
            found.append(np.column_stack([rows[first], rows[second]])[kept])
            differing[first, second] = _NEVER
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return pd.DataFrame({"image_id": names[pairs[:, 0]], "other_image_id": names[pairs[:, 1]]})
