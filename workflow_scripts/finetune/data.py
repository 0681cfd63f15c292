"""The data of fine-tuning: captioned training radiographs at the training size."""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import secrets
import shutil
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workflow_scripts.common.access import require_access, unreadable
from workflow_scripts.common.ahead import ahead
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.images import centre_square, decode_image
from workflow_scripts.common.levels import said_of_bits
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.progress import Progress

log = logging.getLogger(__name__)

ENCODED_IN_MEMORY = 2 << 30
"""If all encoded training images together take at most so many bytes, they are kept in memory."""

ENCODED_TOGETHER: Final = 8
"""Images encoded at a time. The size of a batch can change the last bits of each image, so it is
the same on all hardware: models that share a cache agree."""

BLOCK: Final = 1024
"""Images of one file of the cache; a multiple of `ENCODED_TOGETHER`."""

OPEN_BLOCKS: Final = 256
"""Files of the cache that a process keeps open; MIMIC-CXR has 232."""

_BATCHES_AHEAD: Final = 2
_LIBRARIES: Final = ("torch", "diffusers", "numpy", "pillow")
_DAMAGE: Final = (OSError, KeyError, ValueError, TypeError, RuntimeError, UnicodeDecodeError)
"""What h5py raises, depending on which byte of a file is wrong."""
_REST_S: Final = 3600
"""Age in seconds of an unfinished file that a killed job left: writing one takes seconds."""


def read_training_rows(manifest: Path) -> pd.DataFrame:
    """Return `image_id, path, caption` of all captioned images of the train split, in order.

    Raises:
        InputError: there is no such image, or an image file is missing.
    """
    frame = read_manifest(manifest)
    rows = frame[(frame["split"] == "train") & frame["caption"].notna()]
    if rows.empty:
        raise InputError(
            "no captioned image in the train split", manifest, "check the cohort's captions"
        )
    for path in rows["path"]:
        if not Path(path).is_file():
            raise InputError(
                "a training image is missing", path, "restore it, or rerun the cohort stage"
            )
    return rows[["image_id", "path", "caption"]].reset_index(drop=True)


def patients_of_rows(manifest: Path, rows: pd.DataFrame) -> np.ndarray:
    """Return the patient of each row of `read_training_rows`, text (n,).

    Raises:
        InputError: the manifest cannot be read.
    """
    frame = read_manifest(manifest).set_index("image_id")
    return frame.loc[rows["image_id"], "patient_id"].to_numpy(str)


def load_pixels(path: str, size: int) -> np.ndarray:
    """Decode an image to uint8 (size, size, 3). See `centre_square`; never flipped."""
    return np.asarray(centre_square(decode_image(Path(path), path), size))


class TrainingImages:
    """Batches of encoded images; each image is encoded once, before training, where possible.

    Without `cache` the encoded images are kept in memory if all fit in `ENCODED_IN_MEMORY`.
    Otherwise images are decoded ahead and encoded each time they are shown. With `cache` they are
    kept in files as float32: for the 4 latent channels of Stable Diffusion at 512 pixels, mean and
    log-variance take 2 x 4 x 64 x 64 x 4 B = 131 kB an image, 31 GB for the 237,388 of MIMIC-CXR.
    (They are not stored as float16, which would round a mean by up to 0.05%; nobody has shown that
    to be harmless.) If all of them fit in memory, they are read into it.

    All models that encode in the same way (same `key`) share a cache, also at the same time: a
    block of images is written whole or not at all, and always with the same bytes.

    Args:
        paths: the image files; indices count in their order.
        size: side in pixels.
        encode: pixels float (n, 3, size, size) in [-1, 1] to encoded images (`Family`).
        encoded_shape: the shape of one encoded image.
        threads: number of threads that decode.
        chunk: images encoded at a time when all are encoded first.
        cache: folder of encoded images, which several models may share.
        key: what the encoded images depend on besides their number, size and chunk: weights,
            precision, device, image files (`digest_of_files`).
        process: number of this process, from 0; each process encodes its share of the blocks.
        processes: how many there are.
        agree: waits for all processes and returns whether the value is True in all of them.
        out_of_time: called before each block is encoded; encoding stops if it returns True.

    Attributes:
        complete: False if time ran out, in this process or another, before all blocks were encoded.
            Then there are no batches, and the next run with the same arguments continues.
        encoded: number of blocks that this process encoded.

    Raises:
        InputError: an image is damaged; blocks were made from something else; the disk is full.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: int,
        encode: Callable[[Tensor], Tensor],
        encoded_shape: Sequence[int],
        threads: int,
        chunk: int = ENCODED_TOGETHER,
        cache: Path | None = None,
        key: Mapping[str, str] | None = None,
        process: int = 0,
        processes: int = 1,
        agree: Callable[[bool], bool] = bool,
        out_of_time: Callable[[], bool] = lambda: False,
    ):
        self.complete, self.encoded = True, 0
        self._paths, self._size, self._encode, self._chunk = paths, size, encode, chunk
        self._decoders = ThreadPoolExecutor(max(1, threads))
        self._reader = ThreadPoolExecutor(1)
        self._encoded: Tensor | None = None
        self._blocks: _Blocks | None = None
        fits = 4 * len(paths) * int(np.prod(encoded_shape)) <= ENCODED_IN_MEMORY
        if cache is not None:
            made_from = {**(key or {}), "size": str(size), "chunk": str(chunk)}
            self._blocks = _Blocks(cache, made_from, len(paths), tuple(encoded_shape))
            filled = self._fill(self._blocks, process, processes, out_of_time)
            self.complete = agree(filled)
            if fits and self.complete:
                self._encoded = self._blocks.read(np.arange(len(paths)))
        elif fits:
            self._encoded = self._encode_all()

    @property
    def all_encoded(self) -> bool:
        """Whether all images lie encoded in memory or the cache: then no step encodes."""
        return self.complete and (self._encoded is not None or self._blocks is not None)

    def batches(self, wanted: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Iterate over encoded batches (n, *encoded_shape); the next two are prepared ahead.

        Raises:
            InputError: an image or a block of the cache is damaged or gone.
        """
        if self._encoded is not None:
            for indices in wanted:
                yield self._encoded[torch.from_numpy(indices)]
        elif self._blocks is not None:
            read = self._blocks.read

            def begin(indices: np.ndarray) -> Future[Tensor]:
                return self._reader.submit(read, indices)

            for future in ahead(wanted, begin, _BATCHES_AHEAD):
                yield future.result()
        else:
            for pixels in self._decoded(wanted):
                yield self._encoded_of(pixels)

    def close(self) -> None:
        """Stop the threads and close the files."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=True, cancel_futures=True)
        if self._blocks is not None:
            self._blocks.close()

    def _encode_all(self) -> Tensor:
        # Always in the same chunks, so that a resumed run encodes to the same bits.
        progress = Progress("encoding training images", len(self._paths), "images")
        encoded = []
        for pixels in self._decoded(_chunks(range(len(self._paths)), self._chunk)):
            encoded.append(self._encoded_of(pixels).cpu())
            progress.update(len(pixels))
        return torch.cat(encoded)

    def _fill(
        self, blocks: "_Blocks", process: int, processes: int, out_of_time: Callable[[], bool]
    ) -> bool:
        """Encode this process's missing and damaged blocks; return whether all are encoded."""
        assigned = list(range(process, blocks.count, processes))
        missing, damaged = blocks.check(assigned)
        left = sorted(missing | damaged)
        if not left:
            return True
        blocks.require_space(len(missing))
        # Another model's job may be filling the same folder. The two start at different places, so
        # they rarely meet, and each leaves out what the other has written.
        start = secrets.randbelow(len(left))
        left = left[start:] + left[:start]
        total = sum(len(blocks.rows(block)) for block in assigned)
        kept = total - sum(len(blocks.rows(block)) for block in left)
        progress = Progress("encoding training images", total, "images", done=kept)
        started: deque[int] = deque()
        stopped = False

        def to_encode() -> Iterator[np.ndarray]:
            nonlocal stopped
            for block in left:
                if stopped := out_of_time():
                    return
                if block in missing and blocks.path(block).exists():
                    progress.update(len(blocks.rows(block)), "encoded by another job")
                    continue
                started.append(block)
                # Chunks do not span blocks, so the bits of a block do not depend on which others
                # exist.
                yield from _chunks(blocks.rows(block), self._chunk)

        encoded: list[Tensor] = []
        for pixels in self._decoded(to_encode()):
            encoded.append(self._encoded_of(pixels).cpu())
            progress.update(len(pixels))
            if sum(map(len, encoded)) == len(blocks.rows(started[0])):
                blocks.write(started.popleft(), torch.cat(encoded).numpy())
                self.encoded += 1
                encoded = []
        return not stopped

    def _encoded_of(self, pixels: Tensor) -> Tensor:
        # The layout is the same wherever the images are read from: a network's convolutions choose
        # their algorithm by the layout, and an autoencoder may return channels last.
        return self._encode(pixels).float().contiguous()

    def _decoded(self, batches: Iterable[np.ndarray]) -> Iterator[Tensor]:
        def submit(indices: np.ndarray) -> list[Future[np.ndarray]]:
            return [
                self._decoders.submit(load_pixels, self._paths[index], self._size)
                for index in indices.tolist()
            ]

        for futures in ahead(batches, submit, _BATCHES_AHEAD):
            pixels = np.stack([future.result() for future in futures])
            yield torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def digest_of_files(paths: Sequence[str]) -> str:
    """Return a hex digest of image files, in order: names, sizes in bytes and times of change.

    The content is not read, since MIMIC-CXR-JPG has half a terabyte. The number of bits that are
    used is part of the digest if the config states it.
    """
    digest = hashlib.sha256(json.dumps(bits).encode() if (bits := said_of_bits()) else b"")
    for path in paths:
        status = Path(path).stat()
        digest.update(json.dumps([str(path), status.st_size, status.st_mtime_ns]).encode())
    return digest.hexdigest()


class _Blocks:
    """The files `block-00000.h5` ... of one set of encoded images, `BLOCK` images each.

    A file has the dataset `encoded`, float32 (n, *shape), one checksummed chunk per image, and as
    attributes `made_from`, its first and last image, and the libraries' versions.

    Args:
        cache: the parent of the set's folder, which is named by a digest of `made_from`.
        made_from: what the encoded images depend on.
        images: number of images.
        shape: the shape of one encoded image.
    """

    def __init__(
        self, cache: Path, made_from: Mapping[str, str], images: int, shape: tuple[int, ...]
    ):
        self._made_from = {**made_from, "images": str(images), "shape": str(list(shape))}
        text = json.dumps(self._made_from, sort_keys=True)
        self.folder = cache / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._images, self._shape = images, shape
        self._versions = json.dumps({name: importlib.metadata.version(name) for name in _LIBRARIES})
        self._open: OrderedDict[int, h5py.File] = OrderedDict()

    @property
    def count(self) -> int:
        """The number of blocks."""
        return -(-self._images // BLOCK)

    def rows(self, block: int) -> range:
        """Return the images of a block."""
        return range(block * BLOCK, min((block + 1) * BLOCK, self._images))

    def path(self, block: int) -> Path:
        """Return the file of a block."""
        return self.folder / f"block-{block:05d}.h5"

    def check(self, blocks: Sequence[int]) -> tuple[set[int], set[int]]:
        """Read blocks completely; return the missing ones and the damaged ones.

        Raises:
            InputError: a block was made from something else, or gives no access.
        """
        present = [block for block in blocks if self.path(block).exists()]
        total = sum(len(self.rows(block)) for block in present)
        progress = Progress("checking encoded images", total, "images")
        damaged = set()
        for block in present:
            try:
                with self._file(block) as file:
                    for chunk in _chunks(range(len(self.rows(block))), 64):
                        file["encoded"][chunk[0] : chunk[-1] + 1]
            except _DAMAGE as error:
                require_access(error, self.path(block))
                log.warning("%s is damaged and will be written again: %s", self.path(block), error)
                damaged.add(block)
            progress.update(len(self.rows(block)))
        return set(blocks) - set(present), damaged

    def require_space(self, blocks: int) -> None:
        """Check that the disk has room for a number of further blocks.

        Raises:
            InputError: it has not.
        """
        needed = 4 * int(np.prod(self._shape)) * min(blocks * BLOCK, self._images)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise InputError(
                f"{needed / 1e9:.1f} GB of encoded images do not fit in the {free / 1e9:.1f} GB "
                "that are free",
                self.folder,
                "free some space, or put the cache on another disk",
            )

    def write(self, block: int, encoded: np.ndarray) -> None:
        """Write a block, whole or not at all; all processes and jobs write the same bytes."""
        for rest in self.folder.glob(".block-*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # another job has just finished it
                if time.time() - rest.stat().st_mtime > _REST_S:
                    rest.unlink()
        # `whole_file` takes one writer per name, and another job may be writing the same block.
        unfinished = self.folder / f"block-{block:05d}.{uuid.uuid4().hex}.h5"
        with (
            whole_file(unfinished) as temporary,
            h5py.File(temporary, "w", libver=("v110", "v110"), locking=False) as file,
        ):
            file.create_dataset(
                "encoded",
                data=np.ascontiguousarray(encoded, np.float32),
                chunks=(1, *self._shape),
                fletcher32=True,
            )
            for name, value in sorted(self._attributes(block).items()):
                # Strings of fixed length: HDF5 keeps no checksums of those of variable length.
                file.attrs[name] = np.bytes_(value.encode())
        unfinished.replace(self.path(block))

    def read(self, indices: np.ndarray) -> Tensor:
        """Read images by index (n,) into (n, *shape), one thread at a time.

        Raises:
            InputError: a block is gone or damaged, or was made from something else.
        """
        encoded = np.empty((len(indices), *self._shape), np.float32)
        for row in np.argsort(indices, kind="stable"):
            block, place = divmod(int(indices[row]), BLOCK)
            try:
                encoded[row] = self._opened(block)["encoded"][place]
            except _DAMAGE as error:
                raise unreadable(
                    "cannot read encoded images",
                    error,
                    self.path(block),
                    "delete the file and run again; it is then written again",
                ) from None
        return torch.from_numpy(encoded)

    def close(self) -> None:
        """Close the files that are open."""
        while self._open:
            self._open.popitem()[1].close()

    def _opened(self, block: int) -> h5py.File:
        if block not in self._open:
            while len(self._open) >= OPEN_BLOCKS:
                self._open.popitem(last=False)[1].close()
            self._open[block] = self._file(block)
        self._open.move_to_end(block)
        return self._open[block]

    def _file(self, block: int) -> h5py.File:
        """Open a block and check its attributes and shape; raise one of `_DAMAGE` or InputError."""
        # An image is one chunk and is read once, so a cache of chunks would only take memory.
        file = h5py.File(self.path(block), "r", locking=False, rdcc_nbytes=0)
        try:
            stored = {name: bytes(value).decode() for name, value in file.attrs.items()}
            expected = self._attributes(block)
            for name in sorted(expected.keys() | stored.keys()):
                if stored.get(name) != expected.get(name):
                    raise InputError(
                        f"encoded images were made with {name} {stored.get(name)}, not "
                        f"{expected.get(name)}",
                        self.path(block),
                        f"delete the folder {self.folder}; they are then encoded again",
                    )
            dataset = file["encoded"]
            if dataset.shape != (len(self.rows(block)), *self._shape) or dataset.dtype != "<f4":
                raise ValueError(f"it holds {dataset.dtype} {dataset.shape}")
        except BaseException:
            file.close()
            raise
        return file

    def _attributes(self, block: int) -> dict[str, str]:
        rows = self.rows(block)
        place = {"first": str(rows[0]), "last": str(rows[-1]), "versions": self._versions}
        return {**self._made_from, **place}


def _chunks(rows: range, size: int) -> Iterator[np.ndarray]:
    for first in range(rows.start, rows.stop, size):
        yield np.arange(first, min(first + size, rows.stop))
