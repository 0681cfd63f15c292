"""Seeded random numbers and the order of training rows; neither depends on what ran before.

So a run that is killed and started again draws the same numbers and sees the same batches.
"""

from typing import Final

import numpy as np

ORDER: Final = 0
"""The stream that shuffles the rows of an epoch."""

STEP: Final = 1
"""The stream that seeds torch in a step of the training loop (training.py)."""


def random_stream(seed: int, *place: int) -> np.random.Generator:
    """Return the random generator that belongs to a seed and a place (epoch, step, purpose)."""
    return np.random.default_rng([seed, *place])


def epoch_batches(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the row numbers of an epoch's batches: a shuffle of all n rows, each used once.

    Batch sizes differ by at most one row. A last batch of one or two rows, which plain slicing
    leaves, would break batch normalisation and give these rows the weight of a whole batch.
    """
    order = random_stream(seed, epoch, ORDER).permutation(n)
    return np.array_split(order, max(1, -(-n // batch_size)))
