"""Images of report generation: decoded in threads ahead of use, not all at once.

70,000 squares of 518 pixels would take 19 GB in each process. So the next few batches are decoded
while the network computes; the order of the rows is known (`seeded_order.epoch_batches`). Images
that fit into a memory budget are decoded only once.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.seeded_order import epoch_batches
from workflow_scripts.features.encoders.transform import ImageTransform


class Squares:
    """Images as the vision tower takes them: 8-bit luminance, resized and cropped.

    Args:
        items: the images.
        transform: the tower's preprocessing.
        memory: bytes of decoded images to keep; further images are decoded again when needed.
    """

    def __init__(self, items: Sequence[ImageItem], transform: ImageTransform, memory: int = 0):
        self.items, self.transform = items, transform
        self._kept: dict[int, np.ndarray] = {}
        self._left = memory

    def __len__(self) -> int:
        return len(self.items)

    def __call__(self, row: int) -> np.ndarray:
        """Return one image, uint8 (side, side).

        Raises:
            InputError: it cannot be decoded; the message names it.
        """
        if row in self._kept:
            return self._kept[row]
        square = self.transform.fit(self.items[row].open().convert("L"))
        if self._left >= square.nbytes:
            self._kept[row] = square
            self._left -= square.nbytes
        return square


class Ahead:
    """A reader of rows in a known order, which decodes the next rows while the caller computes.

    Args:
        squares: the images.
        order: gives the rows of an epoch in the order in which they will be read.
        epochs: number of epochs.
        threads: images decoded at a time.
        ahead: decoded images to hold ready.
    """

    def __init__(
        self,
        squares: Squares,
        order: Callable[[int], np.ndarray],
        *,
        epochs: int,
        threads: int,
        ahead: int,
    ):
        self.squares, self.order, self.epochs = squares, order, epochs
        self.ahead = max(1, ahead)
        self._pool = ThreadPoolExecutor(max(1, threads))
        self._coming: Iterator[tuple[int, int]] = iter(())
        self._waiting: deque[tuple[tuple[int, int], Future[np.ndarray]]] = deque()

    def read(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Return the images of some rows, uint8 (n, side, side).

        Rows out of order (in a run that continues within an epoch) start a new queue. Rows that are
        not in this process's order are decoded directly.

        Raises:
            ValueError: the first row is next in the order, but a later one is not.
        """
        if len(self._waiting) == 0 or self._waiting[0][0] != (epoch, int(rows[0])):
            places = np.flatnonzero(self.order(epoch) == rows[0])
            if len(places) == 0:
                return np.stack([self.squares(int(row)) for row in rows])
            self._begin(int(places[0]), epoch)
        images = []
        for row in rows:
            self._fill(1)
            place, future = self._waiting.popleft() if self._waiting else (None, None)
            if future is None or place != (epoch, int(row)):
                raise ValueError(f"row {row} of epoch {epoch} is not the next row in the order")
            images.append(future.result())
        self._fill(self.ahead)
        return np.stack(images)

    def close(self) -> None:
        """Stop decoding."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def _begin(self, start: int, epoch: int) -> None:
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        rest = ((epoch, int(r)) for r in self.order(epoch)[start:])
        later = ((e, int(r)) for e in range(epoch + 1, self.epochs) for r in self.order(e))
        self._coming = itertools.chain(rest, later)

    def _fill(self, number: int) -> None:
        while len(self._waiting) < number:
            place = next(self._coming, None)
            if place is None:
                return
            self._waiting.append((place, self._pool.submit(self.squares, place[1])))


def training_order(
    n: int, batch_size: int, seed: int, process: int, processes: int
) -> Callable[[int], np.ndarray]:
    """Return the order of the rows that `training.train` reads in one process, by epoch."""

    def order(epoch: int) -> np.ndarray:
        batches = epoch_batches(n, batch_size, seed, epoch)
        return np.concatenate([batch[process::processes] for batch in batches])

    return order


def tower_input(squares: np.ndarray, transform: ImageTransform, device: torch.device) -> Tensor:
    """Scale and normalise squares uint8 (n, h, w) to float32 (n, 3, h, w) on a device."""
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in (transform.mean, transform.std)
    )
    gray = torch.from_numpy(squares).to(device, non_blocking=True).unsqueeze(1)
    return (gray.float() * transform.scale - mean) / std
