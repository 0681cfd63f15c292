"""Pairs of a model's images with other prompts' radiographs, the baseline of similarity by chance.

The images and the radiographs are those of the pairs with the prompts' own radiographs; only who is
paired with whom differs. The pairs agree in findings as far as possible, because an image that
follows its prompt is closer to radiographs with the prompt's findings.
"""

from typing import Final

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

OTHERS: Final = 5
"""Number of other prompts' radiographs that each prompt's images are compared with."""

_TOGETHER: Final = 2000
"""Prompts in one assignment problem; its run time grows with their third power."""

_NEVER: Final = 1000.0
"""The cost of a pair that is not allowed: more than all findings together."""


def other_radiographs(
    patients: pd.Series, findings: np.ndarray, others: int = OTHERS, seed: int = 0
) -> pd.DataFrame:
    """Return pairs of a prompt's radiograph and the radiograph of another prompt and patient.

    In each of `others` rounds every radiograph is assigned to one other prompt, such that the total
    number of differing findings is smallest. No pair occurs twice, and every radiograph is used
    equally often.

    Args:
        patients: (n,) the patient of each prompt's radiograph, indexed by its unique `image_id`.
        findings: (n,) uint16 bit masks, see `make_control.positive_masks`.
        others: number of rounds.
        seed: decides between equally good assignments.

    Returns:
        Columns `image_id` and `other_image_id` with n x others rows, or fewer if there are too few
        radiographs of other patients.
    """
    n = len(patients)
    rng = np.random.default_rng(seed)
    names, codes = patients.index.to_numpy(), patients.factorize()[0]
    bits = (findings[:, None] >> np.arange(16)) & 1
    # Sorted by the most frequent finding, then by the next one, and so on: similar ones together.
    shuffled = rng.permutation(n)
    by_frequency = bits[:, np.argsort(bits.sum(axis=0), kind="stable")]
    order = shuffled[np.lexsort(by_frequency[shuffled].T)]
    pairs_by_round = []
    for rows in np.array_split(order, -(-n // _TOGETHER)) if n and others else []:
        differing = np.bitwise_count(findings[rows, None] ^ findings[rows]).astype(np.float64)
        differing += 0.01 * rng.random(differing.shape)
        differing[codes[rows, None] == codes[rows]] = _NEVER
        for _ in range(others):
            first, second = linear_sum_assignment(differing)
            possible = differing[first, second] < _NEVER
            pairs_by_round.append(np.column_stack([rows[first], rows[second]])[possible])
            differing[first, second] = _NEVER
    pairs = np.concatenate([np.empty((0, 2), np.int64), *pairs_by_round])
    return pd.DataFrame({"image_id": names[pairs[:, 0]], "other_image_id": names[pairs[:, 1]]})
