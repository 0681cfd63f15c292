"""The files of a curated set: how many there are, their names, and one digest of them all."""

import hashlib
from collections.abc import Sequence
from typing import Final

IMAGES_PER_FILE: Final = 2000
"""Images of one Parquet file: some 300 MB at 512 pixels, a size that hubs and readers like."""


def set_parts(images: int) -> list[str]:
    """Return the parts that a set of so many images has, such as `00000-of-00001`."""
    count = -(-images // IMAGES_PER_FILE)
    return [f"{k:05d}-of-{count:05d}" for k in range(count)]


def set_files(images: int) -> list[str]:
    """Return the names of the parts' files, which lie below `data/`."""
    return [f"train-{part}.parquet" for part in set_parts(images)]


def set_sha256(files: Sequence[str]) -> str:
    """Return one digest of a set.

    Args:
        files: the sha256 of each file, in the order of the names; of a single file it is the
            digest of the set.
    """
    if len(files) == 1:
        return files[0]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()
