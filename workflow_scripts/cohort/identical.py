"""Duplicate radiographs: the same file, or the same pixels, under several ids.

A copy of a training image under a test patient's id invalidates the test split, and the ids do not
show it. Copies are counted and listed. Too many of them across splits stop the cohort.

Files are compared by size, then by 4 KiB from their middle, then as a whole, so hardly any file of
an archive of JPEGs is read. Comparing pixels decodes every image, and also finds a copy that was
saved again without loss. Neither finds a copy that was scaled or recompressed; see `similar.py`.
"""

import hashlib
import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pandas as pd
from PIL import Image

from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.common.csv_cells import safe_frame
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import sha256_of, whole_file
from workflow_scripts.common.images import gray_if_colourless
from workflow_scripts.common.progress import Progress

log = logging.getLogger(__name__)

COMPARED: Final = ("files", "pixels")
REFUSE_ABOVE: Final = 0.001
"""Largest share of test images that may also be in another split. It allows three of MIMIC-CXR's
3,403, which are too few to change a score, and none in a small test split."""

LISTED: Final = ("group", "image_id", "patient_id", "study_id", "split", "path")
_MIDDLE: Final = 4096
_THREADS: Final = 8
_CHUNK: Final = 64
_LOGGED: Final = 100


def identical_images(manifest: pd.DataFrame, compare: str) -> pd.DataFrame:
    """Return the images that equal another one.

    Args:
        manifest: the cohort's manifest.
        compare: `files` or `pixels`. A file that cannot be decoded is compared as a file; the
            stages that read it report the fault.

    Returns:
        The columns `LISTED`, sorted by group. Groups have at least two images and are numbered from
        1 in the manifest's order.

    Raises:
        InputError: `compare` is neither.
    """
    if compare not in COMPARED:
        raise InputError(
            f"unknown comparison {compare!r}", "--compare", f"one of {', '.join(COMPARED)}"
        )
    paths = manifest["path"]
    if compare == "pixels":
        keys = _keys(paths, _pixels, "comparing pixels")
    else:
        keys = _keys(paths, _size, "comparing sizes")
        for look in (_middle, sha256_of):
            alike = keys[keys.duplicated(keep=False)]
            deeper = _keys(paths[alike.index], look, "comparing files of one size")
            keys = pd.Series(zip(alike, deeper, strict=True), index=alike.index, dtype=object)
    alike = keys[keys.duplicated(keep=False)]
    numbers = pd.Series(pd.factorize(alike)[0] + 1, index=alike.index, dtype="int64")
    copies = manifest.loc[alike.index].assign(group=numbers)
    return copies[list(LISTED)].sort_values("group", kind="stable", ignore_index=True)


def check_identical(
    manifest: pd.DataFrame,
    compare: str,
    refuse_above: float,
    attrition: Attrition,
    table: str | Path | None = None,
) -> None:
    """Count and list the images that equal another one.

    Args:
        manifest: the cohort's manifest.
        compare: see `identical_images`.
        refuse_above: the allowed share of test images that are also in another split, in [0, 1].
        attrition: gets the counts.
        table: CSV file to write, which only its owner may read, because it names patients.

    Raises:
        InputError: the share of such test images is above `refuse_above`.
    """
    copies = identical_images(manifest, compare)
    across = _across(copies)
    tested = int((manifest["split"] == "test").sum())
    same = {"files": "the same file as", "pixels": "the same pixels as"}[compare]
    attrition.add(
        "identical_images",
        "images",
        0,
        len(manifest),
        f"{len(copies)} images have {same} another ({copies['group'].nunique()} groups), of "
        f"{copies['patient_id'].nunique()} patients; {len(across)} of {tested} test images have "
        "one in another split (identical_images.csv)",
    )
    list_copies(copies, [f"identical: {pair}" for pair in across], table)
    if len(across) > refuse_above * tested:
        shown = "\n    ".join(across[:5]) + ("\n    ..." if len(across) > 5 else "")
        raise InputError(
            f"{len(across)} of {tested} test images have {same} an image of another split:\n"
            f"    {shown}",
            "the cohort's images",
            "keep one row of each, or put their patients into one split (they may be one person); "
            "cohort.identical_images.refuse_above is the allowed share, now "
            f"{refuse_above:g}",
        )


def list_copies(copies: pd.DataFrame, pairs: Sequence[str], table: str | Path | None) -> None:
    """Write the table of copies, which names patients, for its owner only; log the first pairs."""
    if table is not None:
        with whole_file(table, owner_only=True) as temporary:
            safe_frame(copies).to_csv(temporary, index=False, lineterminator="\n")
    for pair in pairs[:_LOGGED]:
        log.warning("%s", pair)


def _across(copies: pd.DataFrame) -> list[str]:
    """Describe each test image that is also in another split, with the first such image there."""
    pairs = []
    for _, group in copies.groupby("group"):
        others = group[group["split"] != "test"]
        if len(others):
            other = others.iloc[0]
            pairs += [
                f"{row.image_id} ({row.patient_id}, test) and "
                f"{other['image_id']} ({other['patient_id']}, {other['split']})"
                for row in group[group["split"] == "test"].itertuples()
            ]
    return pairs


def _keys(paths: pd.Series, look: Callable[[str], Hashable], label: str) -> pd.Series:
    """Return the result of `look` for each file, computed in threads."""
    names = paths.tolist()
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    progress = Progress(label, len(names), "files")
    keys: list[Hashable] = []

    def see(chunk: Sequence[str]) -> list[Hashable]:
        return [look(name) for name in chunk]

    with ThreadPoolExecutor(_THREADS) as pool:
        for seen in pool.map(see, chunks):
            keys += seen
            progress.update(len(seen))
    return pd.Series(keys, index=paths.index, dtype=object)


def _size(path: str) -> int:
    return Path(path).stat().st_size


def _middle(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        stream.seek(max(0, (Path(path).stat().st_size - _MIDDLE) // 2))
        return stream.read(_MIDDLE)


def _pixels(path: str) -> str:
    try:
        with Image.open(path) as image:
            image.load()
            plain = image.convert("RGB") if image.mode == "P" else image
            plain = gray_if_colourless(plain) if plain.mode == "RGB" else plain
            digest = hashlib.sha256(f"{plain.mode} {plain.size}".encode())
            digest.update(plain.tobytes())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return f"file {sha256_of(path)}"
    return digest.hexdigest()
