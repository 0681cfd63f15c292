"""A look at a cohort's films, before any GPU does: can they be read, and as what?

A data set whose levels never reach the upper half was scaled wrongly on its way (12 bits taken for
16, say). A film in which the mediastinum is darker than the lungs is shown inverted, as DICOM's
MONOCHROME1 is where the inversion that it asks for was not applied. Networks see both so.

Either every film is looked at, in small, or `MOST` that are drawn at random, and then what they say
of all has a bound: if none of 500 looks inverted, fewer than 0.6% do, with 95% confidence.
"""

import logging
from collections.abc import Iterator, Sequence
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
from workflow_scripts.common.progress import Progress

log = logging.getLogger(__name__)

MOST: Final = 500
"""How many films are looked at where not all are; one of 2544 x 3056 pixels takes 0.1 s of CPU."""
DRAW_SEED: Final = 42
SIDE: Final = 64
"""Of the small films that are looked at."""
PERCENTILES: Final = (0.1, 1, 50, 99, 99.9)
DARKER: Final = 20
"""By how many of 255 levels the mediastinum of an inverted film is darker than its lungs."""
_MIDDLE: Final = (0.30, 0.70, 0.45, 0.55)
_LUNGS: Final = ((0.25, 0.60, 0.18, 0.34), (0.25, 0.60, 0.66, 0.82))
"""Top, bottom, left and right of places in a frontal film, in shares of its height and width."""
_NAMED: Final = 20
_CHUNK: Final = 256
_DECODED: Final = 4 * SIDE
"""Where every film is looked at, a JPEG is decoded to no more pixels a side than it takes."""


@dataclass(frozen=True)
class Film:
    """What was seen of one film.

    Attributes:
        small: its gray levels at `SIDE` pixels a side, the sides squashed, uint8 (SIDE, SIDE).
        levels: how many pixels have each of 256 levels, as shares, float64 (256,).
        fault: why it cannot be used, or None.
    """

    small: np.ndarray
    levels: np.ndarray
    fault: InputError | None = None


def look_at_films(
    manifest: pd.DataFrame,
    attrition: Attrition,
    where: str | Path,
    threads: int = 2,
    every: bool = False,
) -> np.ndarray | None:
    """Decode the films of a manifest, or up to `MOST` of them; note what they look like.

    The attrition takes the counts, the log the names of films that look inverted.

    Args:
        manifest: `image_id` and `path`.
        attrition: gets one row, which removes nothing.
        where: the table that lists the films, for errors.
        threads: films decoded at the same time.
        every: look at every film, not at a draw.

    Returns:
        Where every film was looked at, all of them in small, uint8 (n, SIDE, SIDE); else None.

    Raises:
        InputError: films that cannot be decoded, or that show nothing; the first ten are named.
    """
    total = len(manifest)
    count = total if every else min(MOST, total)
    drawn = np.sort(np.random.default_rng(DRAW_SEED).choice(total, count, replace=False))
    chosen = manifest.iloc[drawn]
    small = np.empty((count, SIDE, SIDE), np.uint8)
    shares, faults = np.zeros(256), []
    for row, film in enumerate(_seen(chosen["path"].tolist(), threads, every)):
        small[row] = film.small
        shares += film.levels
        if film.fault is not None:
            faults.append(film.fault)
    _refuse(faults, count, where)
    levels = percentiles(shares)
    said = ", ".join(f"{p:g}%: {level}" for p, level in zip(PERCENTILES, levels, strict=True))
    inverted = chosen["image_id"][[_is_inverted(film) for film in small]].tolist()
    bound = (
        f"; drawn at random, so that with 95% confidence at most "
        f"{highest_share(len(inverted), count):.2%} of all do"
        if count < total
        else ""
    )
    attrition.add(
        "looked_at",
        "images",
        0,
        total,
        f"of {count} films decoded {len(inverted)} look inverted (the middle more than "
        f"{DARKER} of 255 levels darker than the lung fields{bound}); percentiles of their levels: "
        f"{said}",
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
            *(len(inverted), count, ", ".join(inverted[:_NAMED])),
        )
    return small if every else None


def highest_share(found: int, of: int) -> float:
    """Return the share that a population has at most, with 95% confidence.

    Of `of` members drawn at random, `found` have it: the upper bound of Clopper and Pearson (1934),
    one-sided. Of a small population the draw says more than that.
    """
    from scipy.stats import beta

    return 1.0 if found == of else float(beta.ppf(0.95, found + 1, of - found))


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
    return _is_inverted(_in_small(film))


def _is_inverted(small: np.ndarray) -> bool:
    def median(place: tuple[float, float, float, float]) -> float:
        top, bottom, left, right = (int(SIDE * share) for share in place)
        return float(np.median(small[top:bottom, left:right]))

    lungs = [median(place) for place in _LUNGS]
    return median(_MIDDLE) < sum(lungs) / len(lungs) - DARKER


def _in_small(film: Image.Image) -> np.ndarray:
    return np.asarray(film.resize((SIDE, SIDE), Image.Resampling.BOX))


def _seen(paths: Sequence[str], threads: int, every: bool) -> Iterator[Film]:
    """Look at films in threads, a few hundred at a time: what waits is small."""
    progress = Progress("looking at films", len(paths), "films")
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            yield from pool.map(lambda path: _look(path, _DECODED if every else None), chunk)
            progress.update(len(chunk))


def _look(path: str, at_least: int | None = None) -> Film:
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    try:
        film = decode_image(Path(path), path, keep_gray=True, at_least=at_least).convert("L")
    except InputError as error:
        return Film(nothing, np.zeros(256), error)
    if is_constant(film):
        fault = InputError("all pixels of an image have one value: it shows nothing", path)
        return Film(nothing, np.zeros(256), fault)
    levels = np.bincount(np.asarray(film).ravel(), minlength=256)
    return Film(_in_small(film), levels / levels.sum())


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
