"""Checks of a cohort's films before any GPU work: can they be read, and do they look right?

Gray levels that never reach the upper half mean that films were scaled wrongly (12 bits taken for
16, for example). A film whose mediastinum is darker than the lungs is inverted, as DICOM's
MONOCHROME1 is without its inversion. Networks would take such films as they are.

The check downsizes every film, or `MOST` random ones. Random films give a bound for all: if none of
500 looks inverted, fewer than 0.6% of all films do, with 95% confidence.
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
"""Number of random films; a film of 2544 x 3056 pixels takes 0.1 s of CPU."""
DRAW_SEED: Final = 42
SIDE: Final = 64
"""Side of the downsized films, pixels."""
PERCENTILES: Final = (0.1, 1, 50, 99, 99.9)
DARKER: Final = 20
"""A film looks inverted if its mediastinum is darker than its lungs by more than this, of 255."""
_MIDDLE: Final = (0.30, 0.70, 0.45, 0.55)
_LUNGS: Final = ((0.25, 0.60, 0.18, 0.34), (0.25, 0.60, 0.66, 0.82))
"""Top, bottom, left and right of regions of a frontal film, as shares of its height and width."""
_NAMED: Final = 20
_CHUNK: Final = 256
_DECODED: Final = 4 * SIDE
"""Smallest side in pixels to which a JPEG may be decoded for speed, if every film is checked."""


@dataclass(frozen=True)
class Film:
    """The check's data of one film.

    Attributes:
        small: the film squashed to `SIDE` pixels a side, uint8 (SIDE, SIDE).
        levels: the share of pixels at each of 256 gray levels, float64 (256,).
        fault: why the film cannot be used, or None.
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
    """Decode all films of a manifest, or up to `MOST` of them, and check their gray levels.

    The counts go to the attrition table, the names of films that look inverted to the log.

    Args:
        manifest: `image_id` and `path`.
        attrition: gets one row, which removes nothing.
        where: the table that lists the films, for errors.
        threads: films decoded at the same time.
        every: check every film instead of a draw.

    Returns:
        All films, downsized, uint8 (n, SIDE, SIDE) if `every`; else None.

    Raises:
        InputError: films cannot be decoded or show nothing; the message names the first ten.
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
    inverted = chosen["image_id"][[looks_inverted(film) for film in small]].tolist()
    _report(percentiles(shares), inverted, count, total, attrition)
    return small if every else None


def _report(
    levels: list[int], inverted: Sequence[str], count: int, total: int, attrition: Attrition
) -> None:
    """Append what the films look like, and warn of dark or inverted ones.

    Args:
        levels: their gray levels at `PERCENTILES`.
        inverted: ids of the films that look inverted.
        count: number of films that were checked.
        total: number of all films.
        attrition: gets one row, which removes nothing.
    """
    level_summary = ", ".join(
        f"{p:g}%: {level}" for p, level in zip(PERCENTILES, levels, strict=True)
    )
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
        f"{level_summary}",
    )
    if levels[-1] < 128:
        log.warning(
            "the films are dark: 99.9%% of their pixels are at most %d of 255 (percentiles: %s). "
            "Were films of 10 to 14 bits scaled as if they had 16? Networks see them so",
            *(levels[-1], level_summary),
        )
    if inverted:
        log.warning(
            "%d of %d films look inverted (MONOCHROME1 without its inversion?), of which every "
            "network sees the negative: %s",
            *(len(inverted), count, ", ".join(inverted[:_NAMED])),
        )


def highest_share(count: int, drawn: int) -> float:
    """Return the upper 95% confidence bound of a property's share in a population, in [0, 1].

    It is the one-sided bound of Clopper and Pearson (1934). It is conservative for a small
    population.

    Args:
        count: number of members of a random draw that have the property.
        drawn: number of members of the draw.
    """
    from scipy.stats import beta

    return 1.0 if count == drawn else float(beta.ppf(0.95, count + 1, drawn - count))


def percentiles(shares: np.ndarray) -> list[int]:
    """Return the gray levels at `PERCENTILES` of a distribution, given as shares (256,)."""
    reached = np.cumsum(shares) / shares.sum()
    # Sums of shares have rounding errors: 999 of 1,000 pixels must count as 0.999.
    targets = np.array(PERCENTILES) / 100 - 1e-9
    return [int(level) for level in np.searchsorted(reached, targets)]


def looks_inverted(small: np.ndarray) -> bool:
    """Return whether a frontal film looks inverted.

    It does if the middle, with mediastinum and spine, is darker than the lung fields: the median of
    a central strip is more than `DARKER` levels below the mean of the medians on its left and
    right. Among 532 public frontal films (PA, AP, supine, paediatric) 1 looks inverted, and among
    their negatives 514 do.

    Args:
        small: uint8 (`SIDE`, `SIDE`), the downsized film.
    """

    def median(place: tuple[float, float, float, float]) -> float:
        top, bottom, left, right = (int(SIDE * share) for share in place)
        return float(np.median(small[top:bottom, left:right]))

    lungs = [median(place) for place in _LUNGS]
    return median(_MIDDLE) < sum(lungs) / len(lungs) - DARKER


def downsized(film: Image.Image) -> np.ndarray:
    """Return a film, 8-bit gray (L), as uint8 (`SIDE`, `SIDE`)."""
    return np.asarray(film.resize((SIDE, SIDE), Image.Resampling.BOX))


def _seen(paths: Sequence[str], threads: int, every: bool) -> Iterator[Film]:
    """Decode films in threads, a chunk at a time, which bounds the memory."""
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
    return Film(downsized(film), levels / levels.sum())


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
