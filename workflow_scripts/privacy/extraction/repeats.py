"""Which captions give the same image again and again, as an attacker without radiographs sees it.

A model that has memorised a radiograph returns it whatever the seed (Carlini et al., 2023). The
images of a caption are clustered by tiled distance: no two images of a cluster are farther apart
than its width. The width is divided by the typical distance of images of different captions. A
caption repeats an image if this ratio is lower than for almost all groups of radiographs of as many
different patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from workflow_scripts.fidelity.arrays import CPU
from workflow_scripts.privacy.extraction.alarms import EASE, limit_of
from workflow_scripts.privacy.extraction.tiles import Tiles, tiled_distances

GROUPS: Final = 1000
"""Number of groups of held-out radiographs."""

_COMPARED: Final = 256
"""Images of different captions whose distances say how far apart a model's images are."""


@dataclass(frozen=True)
class Repeats:
    """The groups of images of a collection, and how narrow their clusters are.

    Attributes:
        middle: (g,) the row of each group's image that is closest to the others, on average.
        width: (g,) float64, the width of its narrowest cluster over the distance of images of
            different groups; nan where the group has too few images.
        size: (g,) images of each group.
    """

    middle: np.ndarray
    width: np.ndarray
    size: np.ndarray


def repeats_of(pixels: Tiles, groups: Sequence[np.ndarray], repeats: int) -> Repeats:
    """Return the middle and the narrowest cluster of each group of images.

    Args:
        pixels: the pixels of all images.
        groups: the rows of each group, one or more.
        repeats: images of a cluster.
    """
    middle, width = np.zeros(len(groups), np.int64), np.full(len(groups), np.nan)
    for number, rows in enumerate(groups):
        points = pixels.on(CPU, rows)
        far = tiled_distances(points, points).numpy()
        np.fill_diagonal(far, 0)
        middle[number] = rows[int(far.mean(axis=1).round(12).argmin())]
        if len(rows) >= repeats:
            width[number] = _narrowest(far, repeats)
    chosen = middle[np.unique(np.linspace(0, len(middle) - 1, _COMPARED).astype(int))]
    points = pixels.on(CPU, chosen)
    apart = tiled_distances(points, points).numpy()[np.triu_indices(len(chosen), 1)]
    typical = float(np.median(apart)) if len(apart) else float("nan")
    ratio = (width + EASE["pixel"]) / (typical + EASE["pixel"])
    return Repeats(middle, ratio, np.array([len(rows) for rows in groups]))


def _narrowest(far: np.ndarray, repeats: int) -> float:
    """Return the width of the narrowest cluster of `repeats` images, by complete linkage."""
    steps = linkage(squareform(far, checks=False), "complete")
    return float(steps[steps[:, 3] >= repeats, 2].min())


def widths_by_chance(
    pixels: Tiles, patients: np.ndarray, size: int, repeats: int, seed: int
) -> np.ndarray | None:
    """Return the widths of groups of held-out radiographs of different patients, (GROUPS,).

    Args:
        pixels: the pixels of held-out radiographs.
        patients: the patient of each.
        size: images of a group.
        repeats: images of a cluster.
        seed: seed of the groups.

    Returns:
        The widths; None where there are fewer patients than `size`.
    """
    names, codes = np.unique(patients, return_inverse=True)
    if len(names) < size:
        return None
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    film = order[np.unique(codes[order], return_index=True)[1]]
    groups = [film[rng.choice(len(film), size, replace=False)] for _ in range(GROUPS)]
    return repeats_of(pixels, groups, repeats).width


def repeated(captions: Repeats, chance: dict[int, np.ndarray | None], share: float) -> np.ndarray:
    """Return which groups repeat an image, bool (g,).

    Args:
        captions: the groups of images of a model's captions.
        chance: for each size of a group, see `widths_by_chance`.
        share: the share of groups by chance that may be as narrow.
    """
    flags = np.zeros(len(captions.width), bool)
    for size, widths in chance.items():
        if widths is not None:
            limit = limit_of(widths, np.full(len(widths), 1 / len(widths)), share)
            flags |= (captions.size == size) & (captions.width < limit)
    return flags
