"""What fine-tuning shows the network: captioned training radiographs at the training size."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import decode_image
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.progress import Progress

ENCODED_IN_MEMORY = 2 << 30
"""Bytes up to which the encoded images of the whole training set are kept in memory."""


def read_training_rows(manifest: Path) -> pd.DataFrame:
    """Return `image_id, path, caption` of all captioned images of the train split, in order.

    Raises:
        InputError: there is none, or an image file is missing.
    """
    frame = read_manifest(manifest)
    rows = frame[(frame["split"] == "train") & frame["caption"].notna()]
    if rows.empty:
        raise InputError(
            "no captioned image in the train split", manifest, "check the cohort's captions"
        )
    for path in rows["path"]:
        if not Path(path).is_file():
            raise InputError("a training image is missing", path, "restore it, or rerun cohort")
    return rows[["image_id", "path", "caption"]].reset_index(drop=True)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` (bilinear, antialiased) and crop the centre."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def load_pixels(path: str, size: int) -> np.ndarray:
    """Decode an image to uint8 (size, size, 3). See `centre_square`; never flipped."""
    return np.asarray(centre_square(decode_image(Path(path), path), size))


class TrainingImages:
    """Batches of encoded images: from memory where the whole set fits, else decoded ahead.

    Args:
        paths: the image files, in the order that indices mean.
        size: side in pixels.
        encode: pixels float (n, 3, size, size) in [-1, 1] to encoded images (`Family`).
        encoded_shape: of one encoded image, to know whether all fit in memory.
        threads: for decoding.
        chunk: images encoded at a time when all are encoded first.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: int,
        encode: Callable[[Tensor], Tensor],
        encoded_shape: Sequence[int],
        threads: int,
        chunk: int,
    ):
        self._paths, self._size, self._encode, self._chunk = paths, size, encode, chunk
        self._pool = ThreadPoolExecutor(max(1, threads))
        self._encoded: Tensor | None = None
        if 4 * len(paths) * int(np.prod(encoded_shape)) <= ENCODED_IN_MEMORY:
            self._encoded = self._encode_all()

    def batches(self, wanted: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Iterate over encoded batches; the files of the next two are decoded meanwhile."""
        if self._encoded is not None:
            for indices in wanted:
                yield self._encoded[torch.from_numpy(indices)]
            return
        for pixels in self._decoded(wanted):
            yield self._encode(pixels)

    def close(self) -> None:
        """Stop the decoding threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _encode_all(self) -> Tensor:
        # Always in the same chunks, so that a resumed run encodes to the same bits.
        progress = Progress("encoding training images", len(self._paths), "images")
        chunks = np.split(
            np.arange(len(self._paths)), range(self._chunk, len(self._paths), self._chunk)
        )
        encoded = []
        for pixels in self._decoded(chunks):
            encoded.append(self._encode(pixels).cpu())
            progress.update(len(pixels))
        return torch.cat(encoded)

    def _decoded(self, wanted: Iterable[np.ndarray]) -> Iterator[Tensor]:
        waiting: deque[list[Future[np.ndarray]]] = deque()
        ahead = iter(wanted)
        while True:
            while len(waiting) < 3 and (indices := next(ahead, None)) is not None:
                waiting.append([self._submit(int(index)) for index in indices])
            if not waiting:
                return
            pixels = np.stack([future.result() for future in waiting.popleft()])
            yield torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1

    def _submit(self, index: int) -> Future[np.ndarray]:
        return self._pool.submit(load_pixels, self._paths[index], self._size)
