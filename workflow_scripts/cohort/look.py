"""A look at some of a cohort's films, before any GPU does: can they be read, and as what?

A data set whose levels never reach the upper half was scaled wrongly on its way (12 bits taken for
16, say). A film in which the mediastinum is darker than the lungs is shown inverted, as DICOM's
MONOCHROME1 is where the inversion that it asks for was not applied. Networks see both so.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image

from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import decode_image, is_constant

log = logging.getLogger(__name__)

MOST: Final = 500
"""How many films are looked at: one of 2544 x 3056 pixels takes 0.13 s of a core."""
PERCENTILES: Final = (0.1, 1, 50, 99, 99.9)
DARKER: Final = 20
"""By how many of 255 levels the mediastinum of an inverted film is darker than its lungs."""
_SIDE: Final = 64
_MIDDLE: Final = (0.30, 0.70, 0.45, 0.55)
_LUNGS: Final = ((0.25, 0.60, 0.18, 0.34), (0.25, 0.60, 0.66, 0.82))
"""Top, bottom, left and right of places in a frontal film, in shares of its height and width."""
_NAMED: Final = 20


@dataclass(frozen=True)
class Film:
    """What was seen of one film.

    Attributes:
        levels: how many pixels have each of 256 levels, as shares, float64 (256,).
        inverted: see `looks_inverted`.
        fault: why it cannot be used, or None.
    """

    levels: np.ndarray
    inverted: bool
    fault: InputError | None = None


def look_at_films(
    manifest: pd.DataFrame, attrition: Attrition, where: str | Path, threads: int = 2
) -> None:
    """Decode up to `MOST` films of a manifest, evenly spaced; note what they look like.

    The attrition takes the counts, the log the names of films that look inverted.

    Args:
        manifest: `image_id` and `path`.
        attrition: gets one row, which removes nothing.
        where: the table that lists the films, for errors.
        threads: films decoded at the same time.

    Raises:
        InputError: films that cannot be decoded, or that show nothing; the first ten are named.
    """
    rows = np.unique(np.linspace(0, len(manifest) - 1, min(MOST, len(manifest))).round())
    chosen = manifest.iloc[rows.astype(int)]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        films = list(pool.map(_look, chosen["path"]))
    _refuse([film.fault for film in films if film.fault is not None], len(films), where)
    levels = percentiles(np.mean([film.levels for film in films], axis=0))
    said = ", ".join(f"{p:g}%: {level}" for p, level in zip(PERCENTILES, levels, strict=True))
    inverted = chosen["image_id"][[film.inverted for film in films]].tolist()
    attrition.add(
        "looked_at",
        "images",
        0,
        len(manifest),
        f"of {len(films)} films decoded {len(inverted)} look inverted (the middle more than "
        f"{DARKER} of 255 levels darker than the lung fields); percentiles of their levels: {said}",
    )
    if levels[-1] < 128:
        log.warning(
            "the films are dark: 99.9%% of their pixels are at most %d of 255 (percentiles: %s). "
            "Were films of 10 to 14 bits scaled as if they had 16? Networks see them so",
            *(levels[-1], said),
        )
    if inverted:
        log.warning(
            "%d of %d films look inverted (MONOCHROME1 without its inversion?), of which every "
            "network sees the negative: %s",
            *(len(inverted), len(films), ", ".join(inverted[:_NAMED])),
        )


def percentiles(shares: np.ndarray) -> list[int]:
    """Return the levels at `PERCENTILES` of a distribution over 256 levels, shares (256,)."""
    reached = np.cumsum(shares) / shares.sum()
    # Sums of shares are a rounding away from what they are: 0.999 of 1,000 pixels is reached.
    wanted = np.array(PERCENTILES) / 100 - 1e-9
    return [int(level) for level in np.searchsorted(reached, wanted)]


def looks_inverted(film: Image.Image) -> bool:
    """Return whether a frontal film looks like its negative.

    Its middle, where the mediastinum and the spine are, is darker than the lung fields: the median
    of a strip is more than `DARKER` levels below the mean of the medians left and right of it. Of
    532 public frontal films (PA, AP, supine, paediatric) that names 1, of their negatives 514.

    Args:
        film: 8-bit gray (L).
    """
    small = np.asarray(film.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)

    def median(place: tuple[float, float, float, float]) -> float:
        top, bottom, left, right = (int(_SIDE * share) for share in place)
        return float(np.median(small[top:bottom, left:right]))

    lungs = [median(place) for place in _LUNGS]
    return median(_MIDDLE) < sum(lungs) / len(lungs) - DARKER


def _look(path: str) -> Film:
    try:
        film = decode_image(Path(path), path, keep_gray=True).convert("L")
    except InputError as error:
        return Film(np.zeros(256), False, error)
    if is_constant(film):
        fault = InputError("all pixels of an image have one value: it shows nothing", path)
        return Film(np.zeros(256), False, fault)
    levels = np.bincount(np.asarray(film).ravel(), minlength=256)
    return Film(levels / levels.sum(), looks_inverted(film))


def _refuse(faults: Sequence[InputError], looked_at: int, where: str | Path) -> None:
    if not faults:
        return
    shown = "\n    ".join(f"{fault.where}: {fault.what}" for fault in faults[:10])
    remedies = {fault.remedy for fault in faults if fault.remedy}
    raise InputError(
        f"{len(faults)} of {looked_at} films that were looked at cannot be used:\n    {shown}"
        + ("\n    ..." if len(faults) > 10 else ""),
        where,
        "; ".join(sorted(remedies)) or "restore them, or take them out of the table",
    )
