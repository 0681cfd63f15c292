"""Images of a pool, gathered in a nameless file, to be read in another order than the shards'.

A curated set is in the order of its draw, which has nothing to do with that of the shards. Held in
memory, 75,000 images of 512 pixels would take 11 GB. In the nameless file they take disk: the
operating system frees it as soon as the process ends, however it ends.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, find_in_shards


@contextmanager
def gathered(
    shards: Sequence[Path], expected: Mapping[str, bytes], folder: Path
) -> Iterator["Gathered"]:
    """Copy images of a pool to a nameless file, and yield what reads them.

    Args:
        shards: the pool's images.
        expected: the sha256 of each image's file, by prompt id. See `digests_of`.
        folder: an existing folder, on whose disk there is room for these images.

    Raises:
        InputError: an image is missing, or has changed since its digest was taken.
    """
    with tempfile.TemporaryFile(dir=folder) as stream:
        place: dict[str, tuple[int, int, ImageItem]] = {}
        end = 0
        for item in find_in_shards(shards, set(expected)):
            data = item.data or b""
            if hashlib.sha256(data).digest() == expected[item.id]:
                place[item.id] = (end, len(data), replace(item, data=None))
                end += stream.write(data)
        if changed := len(expected) - len(place):
            raise InputError(
                f"{changed} image(s) of the pool changed while the set was made",
                ", ".join(map(str, shards[:3])) + (", ..." if len(shards) > 3 else ""),
                "nothing was written; run again when no other job writes to the pool",
            )
        stream.flush()
        yield Gathered(stream.fileno(), place)


class Gathered:
    """Reads gathered images by prompt id."""

    def __init__(self, descriptor: int, place: Mapping[str, tuple[int, int, ImageItem]]) -> None:
        self._descriptor = descriptor
        self._place = place

    def __getitem__(self, name: str) -> ImageItem:
        """Return an image as it was in the shard, with the bytes of its file."""
        start, length, item = self._place[name]
        data = os.pread(self._descriptor, length, start)
        if len(data) < length:
            raise OSError(f"{len(data)} of {length} bytes of an image could be read again")
        return replace(item, data=data)


def digests_of(shards: Sequence[Path], ids: set[str]) -> dict[str, bytes]:
    """Return the sha256 of the files of some images, by prompt id.

    Raises:
        InputError: see `read_shards`.
    """
    return {
        item.id: hashlib.sha256(item.data or b"").digest() for item in find_in_shards(shards, ids)
    }
