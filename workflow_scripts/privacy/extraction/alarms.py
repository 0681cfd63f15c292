"""When an image counts as one that shows a training radiograph: when it raises an alarm.

The score of an image is its distance to the closest training radiograph, over the mean distance to
its closest ones (Carlini et al., 2023). It is small if one radiograph is much closer than all
others. A lens compares pixels or RAD-DINO's tokens, of the whole image or of the one patch that is
closest. The limit of a lens is set on radiographs of patients that no model was trained on. A new
patient's radiograph falls below it with at most a stated probability. Each patient counts once,
whatever the number of films. If images are compared in several views (`views`), the least score of
them counts, of held-out radiographs as of images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from workflow_scripts.privacy.extraction.tiles import Nearest

LENSES: Final = ("pixel_whole", "latent_whole", "pixel_patch", "latent_patch")
"""The lenses: pixels or RAD-DINO's tokens, of the whole image or of its closest patch."""

EASE: Final = {"pixel": 0.02, "latent": 0.05}
"""Added to both distances of the ratio: grey values from 0 to 1, and standard deviations. Without
it, two patches that show nothing, at distance 0, would count as copies of each other."""


@dataclass(frozen=True)
class Scores:
    """The scores of n images by the four lenses.

    Attributes:
        values: (n, 4) float64, from 0 to 1 or a little above; the smaller, the riskier.
        rows: (n, 4) the row of the training image that is closest.
        tiles: (n, 4) the patch, row by row from 0; -1 for the whole image.
        views: (n, 4) the number of the view in which the radiograph is closest; 0 is the image as
            it lies.
    """

    values: np.ndarray
    rows: np.ndarray
    tiles: np.ndarray
    views: np.ndarray

    def of(self, rows: np.ndarray) -> "Scores":
        """Return the scores of some images."""
        return Scores(self.values[rows], self.rows[rows], self.tiles[rows], self.views[rows])


def scores_of(pixels: Nearest, tokens: Nearest | None, view: int = 0) -> Scores:
    """Return the scores of images from their closest training radiographs.

    Args:
        pixels: the closest ones by pixels.
        tokens: those by tokens; None if tokens were not compared, so that no alarm is due to them.
        view: the number of the view in which the images were compared.
    """
    columns = []
    for by in (_of_whole, _of_patch):
        for nearest, ease in ((pixels, EASE["pixel"]), (tokens, EASE["latent"])):
            columns.append(_not_compared(pixels) if nearest is None else by(nearest, ease))
    values, rows, tiles = (np.stack(found, axis=1) for found in zip(*columns, strict=True))
    return Scores(values, rows, tiles, np.full(values.shape, view))


def _of_whole(nearest: Nearest, ease: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ratio = (nearest.whole + ease) / (nearest.whole_mean + ease)
    return ratio, nearest.whole_row, np.full(len(ratio), -1)


def _of_patch(nearest: Nearest, ease: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ratio = (nearest.tile + ease) / (nearest.tile_mean + ease)
    least = ratio.argmin(axis=1)
    every = np.arange(len(ratio))
    return ratio[every, least], nearest.tile_row[every, least], least


def _not_compared(like: Nearest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(like.whole)
    return np.full(n, np.inf), np.zeros(n, np.int64), np.full(n, -1)


def least_of(views: Sequence[Scores]) -> Scores:
    """Return each lens's least score of images in several views; of equals, the first view's."""
    chosen = np.stack([view.values for view in views]).argmin(axis=0)[None]
    return Scores(
        *(
            np.take_along_axis(np.stack([getattr(view, name) for view in views]), chosen, axis=0)[0]
            for name in ("values", "rows", "tiles", "views")
        )
    )


@dataclass(frozen=True)
class Limits:
    """The limits below which a score is an alarm.

    Attributes:
        lenses: (4,) the limit of each lens alone.
        held_out: for each lens the held-out images' scores, sorted, and the sums of their weights.
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
    """Return the weight of each image, (n,): all patients weigh the same, and all add up to 1."""
    codes = np.unique(patients, return_inverse=True)[1]
    counts = np.bincount(codes)
    return 1 / counts[codes] / len(counts)


def limit_of(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Return the largest of the values such that those below it weigh at most `share`."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    # A sum of fractions may miss a whole number by its rounding.
    beyond = int(np.searchsorted(sums, share * (1 + 1e-9), side="right"))
    return float(values[order][min(beyond, len(values) - 1)])


def limits_of(held_out: Scores, patients: np.ndarray, false_alarms: float) -> Limits | None:
    """Return the limits that a new patient falls below with a probability of at most a share.

    The new patient's place among all n + 1 is random, so that k held-out patients below a limit
    leave it a probability of (k + 1) / (n + 1) (conformal prediction; Vovk et al., 2005).

    Args:
        held_out: scores of held-out radiographs.
        patients: (n,) the patient of each.
        false_alarms: the share.

    Returns:
        The limits; None with fewer than 1 / `false_alarms` patients, of whom none could raise a
        false alarm.
    """
    n = len(np.unique(patients))
    if n * false_alarms < 1:
        return None
    below = ((n + 1) * false_alarms - 1) / n
    weights = weights_of(patients)
    columns = list(held_out.values.T)
    lenses = np.array([limit_of(column, weights, below) for column in columns])
    in_order = []
    for column in columns:
        order = np.argsort(column, kind="stable")
        in_order.append((column[order], np.cumsum(weights[order])))
    alone = Limits(lenses, tuple(in_order), 0.0)
    least = alone.shares(held_out.values).min(axis=1)
    return Limits(lenses, tuple(in_order), limit_of(least, weights, below))
