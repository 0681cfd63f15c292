"""Splits of a training set into training and validation rows; the latter choose the epoch."""

import hashlib

import numpy as np

from workflow_scripts.common.errors import InputError


def split_by_patient(
    patients: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation rows so that no patient is on both sides.

    Patients go to validation in the order of a hash of seed and id, until they hold `share` of all
    rows. So the same patients validate in every setting and for every model, as far as the counts
    allow.

    Args:
        patients: patient ids (n,), one per row.
        share: the validation rows' share of all rows, in (0, 1).
        seed: seed of the order.

    Returns:
        Row numbers of training and of validation, ascending; neither is empty.

    Raises:
        InputError: fewer than two patients.
    """
    names, counts = np.unique(patients.astype(str), return_counts=True)
    if len(names) < 2:
        raise InputError(
            f"a validation split by patient needs two patients or more, not {len(names)}",
            "the images to train on",
            "give more patients to the augment prompts",
        )
    hashes = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    order = sorted(range(len(names)), key=hashes.__getitem__)
    target = share * len(patients)
    taken = np.cumsum(counts[order])
    number = min(max(1, int(np.searchsorted(taken, target)) + 1), len(names) - 1)
    chosen = np.isin(patients.astype(str), names[order[:number]])
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def split_at_random(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split n rows at random, regardless of patients, as the official release does.

    Args:
        n: number of rows.
        share: the validation rows' share of all rows, in (0, 1).
        seed: seed of the split.

    Returns:
        Row numbers of training and of validation, ascending; neither is empty.

    Raises:
        InputError: fewer than two rows.
    """
    if n < 2:
        raise InputError(f"{n} image(s) cannot be split", "the images to train on")
    order = np.random.default_rng(seed).permutation(n)
    number = min(max(1, int(np.ceil(share * n))), n - 1)
    return np.sort(order[number:]), np.sort(order[:number])
