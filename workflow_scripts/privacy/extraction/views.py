"""The views of an image that are compared: as it lies, mirrored, moved and resized.

A model may return a training radiograph mirrored (fine-tuning may mirror its images at random),
or moved or cropped by a few percent. So the attacker also compares the mirror image of an image,
and both moved by a few pixels and resized a little. Training radiographs are looked at only as they
lie. Pixels are changed in the small images. Tokens are those of the mirror image, which the network
reads; an image that is moved or resized is compared by pixels alone, because the network would have
to read it once for each view.

The same views are taken of held-out radiographs, on which the limits are set. The least distance of
many views is lower than that of one, for these radiographs, too, so that the share of false alarms
stays the stated one.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from workflow_scripts.common.code import own_digests
from workflow_scripts.common.images import ImageItem
from workflow_scripts.features.extract import Collection
from workflow_scripts.privacy.extraction.look import SIDE, TILES, Seen


@dataclass(frozen=True)
class View:
    """One way to look at an image.

    Attributes:
        mirrored: whether it is mirrored first.
        right, down: pixels of the small image by which it then moves.
        larger: pixels by which each of its edges then moves outwards; negative ones make it
            smaller.
    """

    mirrored: bool = False
    right: int = 0
    down: int = 0
    larger: int = 0

    @property
    def moved(self) -> bool:
        """Whether the image is moved or resized."""
        return bool(self.right or self.down or self.larger)

    @property
    def name(self) -> str:
        """What tables call the view."""
        parts = ["mirrored"] if self.mirrored else []
        ways = (
            (self.right, "right", "left"), (self.down, "down", "up"),
            (self.larger, "larger", "smaller"),
        )  # fmt: skip
        parts += [more if pixels > 0 else less for pixels, more, less in ways if pixels]
        return ", ".join(parts) or "as it lies"


AS_IT_LIES: Final = View()
MIRRORED: Final = View(mirrored=True)


MOVED: Final = 2
"""Pixels of the small image, 3% of its side, by which an image is moved, and its edges if it is
resized. Of 271 public radiographs with noise, the lens of whole pixels finds at 2% false alarms
97%, 94%, 91% and 42% that moved by 2%, 3%, 4% and 5%. With 1 pixel it finds 99%, 79%, 40% and 27%,
with 3 pixels 61%, 84%, 92% and 80%."""


def views_of(name: str) -> tuple[View, ...]:
    """Return the views of a setting of `ExtractionSettings`; the first is the image as it lies."""
    steps = [(0, 0, 0)]
    if name == "mirrored_and_moved":
        sides = (0, -MOVED, MOVED)
        steps += [(right, down, 0) for right in sides for down in sides if right or down]
        steps += [(0, 0, MOVED), (0, 0, -MOVED)]
    turns = (False,) if name == "as_it_lies" else (False, True)
    return tuple(View(mirrored, *step) for mirrored in turns for step in steps)


def viewed_pixels(pixels: np.ndarray, view: View) -> np.ndarray:
    """Return the pixels of images in a view.

    What lies beyond an edge has the edge's values.

    Args:
        pixels: uint8 (n, TILES**2, (SIDE / TILES)**2), see `Seen`.
        view: the view.

    Returns:
        uint8, of the same shape.
    """
    side = SIDE // TILES
    images = pixels.reshape(-1, TILES, TILES, side, side).swapaxes(2, 3).reshape(-1, SIDE, SIDE)
    if view.mirrored:
        images = images[:, :, ::-1]
    for axis, step in ((1, view.down), (2, view.right)):
        if step or view.larger:
            images = _sampled(images, axis, step, view.larger)
    tiles = images.reshape(-1, TILES, side, TILES, side).swapaxes(2, 3)
    return np.ascontiguousarray(tiles.reshape(pixels.shape))


def _sampled(images: np.ndarray, axis: int, step: int, larger: int) -> np.ndarray:
    """Move images (n, SIDE, SIDE) along an axis and resize them about the centre, bilinearly."""
    centre = (SIDE - 1) / 2
    place = (np.arange(SIDE) - step - centre) * SIDE / (SIDE + 2 * larger) + centre
    place = np.clip(place, 0, SIDE - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, SIDE - 1)
    if (place == low).all():
        return images.take(low, axis=axis)
    shape = [1, 1, 1]
    shape[axis] = SIDE
    part = (place - low).astype(np.float32).reshape(shape)
    between = images.take(low, axis=axis) * (1 - part) + images.take(high, axis=axis) * part
    return np.rint(between).astype(np.uint8)


def views_digest(seen: Seen, rows: np.ndarray, views: Sequence[View]) -> str:
    """Return what identifies some images of a collection in some views."""
    ids = [seen.ids[row] for row in rows]
    seen_in = [[view.mirrored, view.right, view.down, view.larger] for view in views]
    said = [seen.sha256, ids, seen_in, own_digests("privacy.extraction.views")]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True)
class MirroredItem(ImageItem):
    """An image that is mirrored when it is opened."""

    def open(self) -> Image.Image:
        """Decode to 8-bit RGB and mirror."""
        return ImageOps.mirror(super().open())


def mirrored_collection(collection: Collection, rows: np.ndarray) -> Collection:
    """Return the mirror images of some images of a collection, which are decoded only if read.

    Args:
        collection: the images.
        rows: rows of those to mirror, in ascending order.
    """

    def read(start: int) -> Iterator[ImageItem]:
        wanted = rows[start:].tolist()
        if not wanted:
            return
        items = collection.read(wanted[0])
        place = wanted[0]
        for row in wanted:
            item = next(itertools.islice(items, row - place, None))
            place = row + 1
            yield MirroredItem(item.id, item.path, item.data, item.caption, item.source_image_id)

    return Collection(
        [collection.ids[row] for row in rows],
        None if collection.captions is None else [collection.captions[row] for row in rows],
        [f"mirrored:{collection.stamps[row]}" for row in rows],
        read,
        collection.generated,
    )
