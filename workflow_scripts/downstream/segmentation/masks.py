"""The file of masks of a collection of images, and masks cropped and scaled like the images.

There is one Parquet file per collection, with a row per image, which only its owner may read: the
image's id, its mask as a 1-bit PNG and the image's size. The mask may have another size and aspect,
because the pseudo-labeller sees a square. How the masks were made (weights, classes, the draw of
images) is stored in the file's metadata.
"""

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.images import png_bytes
from workflow_scripts.common.levels import upright
from workflow_scripts.common.squares import central_square

SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("mask", pa.binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)

_RUN: Final = b"run"
_REMEDY: Final = "delete it and rerun the rule downstream_masks"


@dataclass(frozen=True)
class Mask:
    """One image's mask.

    Attributes:
        id: image_id of a radiograph, prompt_id of a synthetic image.
        png: 1-bit PNG.
        image_size: width and height of the image, pixels.
    """

    id: str
    png: bytes
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Masks:
    """The masks of a collection.

    Attributes:
        by_id: the masks by image, in the order of the file.
        run: how they were made, JSON types; `draw` gives the prompts, `labeller` the network.
    """

    by_id: dict[str, Mask]
    run: dict[str, Any]

    def squares(self, ids: Sequence[str], size: int, threads: int, where: str) -> np.ndarray:
        """Return the masks of some images, cropped and scaled for training, bool (n, size, size).

        Raises:
            InputError: an image has no mask, or a mask is damaged.
        """
        missing = [name for name in ids if name not in self.by_id]
        if missing:
            raise InputError(
                f"{len(missing)} image(s) without a mask, first {missing[0]!r}", where, _REMEDY
            )

        def one(name: str) -> np.ndarray:
            mask = self.by_id[name]
            return mask_square(open_mask(mask.png, f"{where} ({name})"), mask.image_size, size)

        with ThreadPoolExecutor(max(1, threads)) as pool:
            squares = np.empty((len(ids), size, size), bool)
            for row, drawn in enumerate(pool.map(one, ids)):
                squares[row] = drawn
        return squares


def encode_mask(mask: np.ndarray) -> bytes:
    """Encode a mask, bool (h, w), as a 1-bit PNG."""
    return png_bytes(Image.fromarray(mask).convert("1"))


def open_mask(source: bytes | Path, name: str) -> Image.Image:
    """Decode a mask to 8-bit gray: 255 where it is not zero, else 0, in its Exif orientation.

    Raises:
        InputError: the file is missing or not an image; the message has `name`.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            values = np.asarray(upright(image, image))
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable("cannot decode a mask", error, name) from None
    drawn: np.ndarray = values.astype(bool)
    if drawn.ndim == 3:  # an alpha channel is not part of the drawing
        colours = drawn.shape[2] - (drawn.shape[2] in (2, 4))
        drawn = np.any(drawn[:, :, :colours], axis=2)
    return Image.fromarray((drawn * 255).astype(np.uint8))


def mask_square(mask: Image.Image, image_size: tuple[int, int], size: int) -> np.ndarray:
    """Crop and scale a mask as `squares.square` crops and scales its image.

    Args:
        mask: gray, 0 or 255, of any size and aspect; it covers the whole image.
        image_size: width and height of the image, pixels.
        size: side of the square, pixels.

    Returns:
        bool (size, size): a pixel belongs to the mask if at least half of its area does.
    """
    scale = mask.width / image_size[0], mask.height / image_size[1]
    edges = central_square(*image_size)
    limits = (mask.width, mask.height) * 2
    cut = [min(edges[i] * scale[i % 2], limits[i]) for i in range(4)]
    box = (cut[0], cut[1], cut[2], cut[3])
    return np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR, box=box)) >= 128


def write_masks(path: str | Path, masks: Iterable[Mask], run: dict[str, Any]) -> None:
    """Write a collection's masks, whole or not at all, with owner-only permissions."""
    rows = [
        {"id": mask.id, "mask": mask.png, "width": mask.image_size[0], "height": mask.image_size[1]}
        for mask in masks
    ]
    metadata = {_RUN: json.dumps(run, sort_keys=True)}
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata))
    with whole_file(path, owner_only=True) as temporary:
        pq.write_table(table, temporary, compression="none")


def read_masks(path: str | Path) -> Masks:
    """Read a collection's masks.

    Raises:
        InputError: the file is missing, damaged, or not a file of masks.
    """
    try:
        table = pq.read_table(path)
        run = json.loads((table.schema.metadata or {})[_RUN])
        if not table.schema.remove_metadata().equals(SCHEMA):
            raise KeyError(", ".join(SCHEMA.names))
        rows = table.to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise unreadable("cannot read masks", error, path, _REMEDY) from None
    masks = [Mask(row["id"], row["mask"], (row["width"], row["height"])) for row in rows]
    return Masks({mask.id: mask for mask in masks}, run)


def exact_squares(
    folder: Path, images: Sequence[Mask], size: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read masks that were drawn by hand, cropped and scaled like the predicted ones.

    Args:
        folder: holds `{image_id}.png` of some or all of the images; the mask is where it is not 0.
        images: the images to read masks for; only their ids and sizes are used.
        size: side of the squares, pixels.
        threads: masks decoded at a time.

    Returns:
        Whether each image has a mask, bool (n,), and the masks, bool (m, size, size).

    Raises:
        InputError: no image has a mask, or a mask is damaged or differs in size from its image.
    """
    paths = [folder / f"{image.id}.png" for image in images]
    has_mask = np.array([path.is_file() for path in paths], bool)
    if not has_mask.any():
        raise InputError(
            f"no mask for any of the {len(images)} test images",
            folder,
            "name the files {image_id}.png, or set downstream.segmentation.exact_masks to null",
        )

    def one(row: int) -> np.ndarray:
        mask = open_mask(paths[row], str(paths[row]))
        if mask.size != images[row].image_size:
            raise InputError(
                f"the mask has {mask.width} x {mask.height} pixels, but its radiograph has "
                f"{images[row].image_size[0]} x {images[row].image_size[1]}",
                paths[row],
                "draw the mask on the radiograph in its original size",
            )
        return mask_square(mask, images[row].image_size, size)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        return has_mask, np.stack(list(pool.map(one, np.flatnonzero(has_mask).tolist())))
