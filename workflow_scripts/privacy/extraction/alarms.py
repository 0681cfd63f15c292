"""When an image counts as one that shows a training radiograph.

The score of an image is the ratio of its distance to the closest training radiograph and the mean
distance to its closest ones (Carlini et al., 2023): small where one radiograph is much closer than
all others. A lens compares pixels or RAD-DINO's tokens, of the whole image or of the one patch that
is closest. The limit of a lens is set on radiographs of patients that no model was trained on: a
stated share of these patients may fall below it. Each patient counts once, however many films he
has.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from workflow_scripts.privacy.extraction.tiles import Nearest

LENSES: Final = ("pixel_whole", "latent_whole", "pixel_patch", "latent_patch")
"""What is compared, of what: all of an image, or its closest patch."""

EASE: Final = {"pixel": 0.02, "latent": 0.05}
"""Added above and below the ratio: of grey values from 0 to 1, and of standard deviations. Two
patches that show nothing are at distance 0 and no copies of each other."""


@dataclass(frozen=True)
class Scores:
    """What the four lenses say of n images.

    Attributes:
        values: (n, 4) float64 in [0, 1 or a little above], by lens: the smaller, the riskier.
        rows: (n, 4) the training image that is named.
        tiles: (n, 4) the patch, row by row from 0; -1 for the whole image.
    """

    values: np.ndarray
    rows: np.ndarray
    tiles: np.ndarray


def scores_of(pixels: Nearest, tokens: Nearest) -> Scores:
    """Return the scores of images from their closest training radiographs."""
    values, rows, tiles = [], [], []
    whole = np.full(len(pixels.whole), -1)
    for found, ease in ((pixels, EASE["pixel"]), (tokens, EASE["latent"])):
        values.append((found.whole + ease) / (found.whole_mean + ease))
        rows.append(found.whole_row)
        tiles.append(whole)
    for found, ease in ((pixels, EASE["pixel"]), (tokens, EASE["latent"])):
        ratio = (found.tile + ease) / (found.tile_mean + ease)
        least = ratio.argmin(axis=1)
        every = np.arange(len(ratio))
        values.append(ratio[every, least])
        rows.append(found.tile_row[every, least])
        tiles.append(least)
    return Scores(*(np.stack(columns, axis=1) for columns in (values, rows, tiles)))


@dataclass(frozen=True)
class Limits:
    """The limits below which a score is an alarm.

    Attributes:
        lenses: (4,) of each lens alone.
        held_out: for each lens the scores of held-out images, sorted, and their weights' sums.
        any_of_them: the limit of the smallest of an image's four shares, see `shares`.
    """

    lenses: np.ndarray
    held_out: tuple[tuple[np.ndarray, np.ndarray], ...]
    any_of_them: float

    def alarms(self, scores: Scores) -> np.ndarray:
        """Return which scores are alarms, bool (n, 5): by each lens, and by any of them."""
        alone = scores.values < self.lenses
        together = self.shares(scores.values).min(axis=1) < self.any_of_them
        return np.column_stack([alone, together])

    def shares(self, values: np.ndarray) -> np.ndarray:
        """Return the share of held-out patients that score lower or as low, (n, 4)."""
        columns = []
        for lens, (sorted_values, sums) in enumerate(self.held_out):
            below = np.searchsorted(sorted_values, values[:, lens], side="right")
            columns.append(np.concatenate([[0.0], sums])[below])
        return np.column_stack(columns)


def weights_of(patients: np.ndarray) -> np.ndarray:
    """Return the weight of each of a patient's images, (n,): those of a patient add up alike."""
    codes = np.unique(patients, return_inverse=True)[1]
    counts = np.bincount(codes)
    return 1 / counts[codes] / len(counts)


def limit_of(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Return the largest of the values below which no more than a share of the weights lies."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    # A sum of fractions may miss a whole number by its rounding.
    beyond = int(np.searchsorted(sums, share * (1 + 1e-9), side="right"))
    return float(values[order][min(beyond, len(values) - 1)])


def limits_of(held_out: Scores, patients: np.ndarray, false_alarms: float) -> Limits | None:
    """Return the limits that a stated share of held-out patients falls below.

    Args:
        held_out: scores of held-out radiographs.
        patients: (n,) whose they are.
        false_alarms: the share.

    Returns:
        The limits; None where there are fewer than 1 / `false_alarms` patients, so that none of
        them may raise an alarm and the share cannot be told.
    """
    if len(np.unique(patients)) * false_alarms < 1:
        return None
    weights = weights_of(patients)
    columns = list(held_out.values.T)
    lenses = np.array([limit_of(column, weights, false_alarms) for column in columns])
    known = []
    for column in columns:
        order = np.argsort(column, kind="stable")
        known.append((column[order], np.cumsum(weights[order])))
    alone = Limits(lenses, tuple(known), 0.0)
    least = alone.shares(held_out.values).min(axis=1)
    return Limits(lenses, tuple(known), limit_of(least, weights, false_alarms))
