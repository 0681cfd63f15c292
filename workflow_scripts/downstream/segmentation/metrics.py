"""Dice of masks, per image and pooled, on the test set and on bootstrapped ones."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Numbers of pixels in the masks of n images, each float64 (n,).

    Attributes:
        predicted: pixels in the predicted mask.
        true: pixels in the mask that it is compared with.
        both: pixels in both.
    """

    predicted: np.ndarray
    true: np.ndarray
    both: np.ndarray

    def __len__(self) -> int:
        return len(self.both)

    def of(self, rows: np.ndarray) -> "Counts":
        """Return the counts of some images."""
        return Counts(self.predicted[rows], self.true[rows], self.both[rows])


def count(predicted: np.ndarray, true: np.ndarray) -> Counts:
    """Count the pixels of masks, bool (n, h, w) each."""
    if predicted.shape != true.shape:
        raise ValueError(f"masks of different shapes: {predicted.shape} and {true.shape}")

    def pixels(masks: np.ndarray) -> np.ndarray:
        return masks.sum(axis=(1, 2)).astype(np.float64)

    return Counts(pixels(predicted), pixels(true), pixels(predicted & true))


def dice(counts: Counts) -> np.ndarray:
    """Return each image's Dice, 2 |A and B| / (|A| + |B|), float64 (n,) in [0, 1].

    Two empty masks agree: 1.
    """
    size = counts.predicted + counts.true
    return np.where(size > 0, 2 * counts.both / np.where(size > 0, size, 1), 1.0)


def pooled_dice(counts: Counts) -> float:
    """Return the Dice of all images' pixels together; 1 if all masks are empty."""
    size = counts.predicted.sum() + counts.true.sum()
    return float(2 * counts.both.sum() / size) if size > 0 else 1.0


def drawn(counts: Counts, weights: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Compute mean and pooled Dice on bootstrapped test sets.

    Args:
        counts: the counts of n images.
        weights: the number of times each image counts, in chunks of (draws, n).

    Returns:
        `dice` and `dice_pooled`, float64 (draws,); nan where a draw has no image or no pixel.
    """
    each = dice(counts)
    means, pooled = [], []
    for times in weights:
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(times @ each / times.sum(axis=1))
            pooled.append(2 * (times @ counts.both) / (times @ (counts.predicted + counts.true)))
    return {"dice": np.concatenate(means), "dice_pooled": np.concatenate(pooled)}
