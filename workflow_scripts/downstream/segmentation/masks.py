"""The file of masks of one collection of images, and masks brought to the form that images have.

One Parquet file per collection, a row per image, readable by its owner alone: the image's id, its
mask as a 1-bit PNG and the size of the image that the mask belongs to. The mask itself may have
another size and aspect, since the pseudo-labeller sees a square. What made the masks (weights,
classes, which images were drawn) travels in the file's metadata.
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
        shown: width and height of the image, pixels.
    """

    id: str
    png: bytes
    shown: tuple[int, int]


@dataclass(frozen=True)
class Masks:
    """The masks of a collection.

    Attributes:
        by_id: in the order of the file.
        run: what made them, JSON types; `draw` says which prompts, `labeller` which network.
    """

    by_id: dict[str, Mask]
    run: dict[str, Any]

    def squares(self, ids: Sequence[str], size: int, threads: int, where: str) -> np.ndarray:
        """Return the masks of these images as they are trained on, bool (n, size, size).

        Raises:
            InputError: an image without a mask, or a damaged mask.
        """
        missing = [name for name in ids if name not in self.by_id]
        if missing:
            raise InputError(
                f"{len(missing)} image(s) without a mask, first {missing[0]!r}", where, _REMEDY
            )

        def one(name: str) -> np.ndarray:
            mask = self.by_id[name]
            return mask_square(open_mask(mask.png, f"{where} ({name})"), mask.shown, size)

        with ThreadPoolExecutor(max(1, threads)) as pool:
            squares = np.empty((len(ids), size, size), bool)
            for row, drawn in enumerate(pool.map(one, ids)):
                squares[row] = drawn
        return squares


def encode_mask(mask: np.ndarray) -> bytes:
    """Encode a mask, bool (h, w), as a 1-bit PNG."""
    return png_bytes(Image.fromarray(mask).convert("1"))


def open_mask(source: bytes | Path, name: str) -> Image.Image:
    """Decode a mask to 8-bit gray: 255 where it is not zero, else 0; turned as images are.

    Raises:
        InputError: the file is missing or no image; `name` is in the message.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            values = np.asarray(upright(image, image))
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable("cannot decode a mask", error, name) from None
    drawn: np.ndarray = values.astype(bool)
    if drawn.ndim == 3:  # an alpha channel says nothing of what is drawn
        colours = drawn.shape[2] - (drawn.shape[2] in (2, 4))
        drawn = np.any(drawn[:, :, :colours], axis=2)
    return Image.fromarray((drawn * 255).astype(np.uint8))


def mask_square(mask: Image.Image, shown: tuple[int, int], size: int) -> np.ndarray:
    """Cut and scale a mask as `pixels.square` does the image that it belongs to.

    Args:
        mask: gray, 0 or 255, of any size and aspect.
        shown: width and height of the image that the mask covers as a whole.
        size: side of the square, pixels.

    Returns:
        bool (size, size): a pixel belongs to the mask where at least half of it does.
    """
    scale = mask.width / shown[0], mask.height / shown[1]
    edges = central_square(*shown)
    limits = (mask.width, mask.height) * 2
    cut = [min(edges[i] * scale[i % 2], limits[i]) for i in range(4)]
    box = (cut[0], cut[1], cut[2], cut[3])
    return np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR, box=box)) >= 128


def write_masks(path: str | Path, masks: Iterable[Mask], run: dict[str, Any]) -> None:
    """Write a collection's masks, whole or not at all, with owner-only permissions."""
    rows = [
        {"id": mask.id, "mask": mask.png, "width": mask.shown[0], "height": mask.shown[1]}
        for mask in masks
    ]
    metadata = {_RUN: json.dumps(run, sort_keys=True)}
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata))
    with whole_file(path, owner_only=True) as temporary:
        pq.write_table(table, temporary, compression="none")


def read_masks(path: str | Path) -> Masks:
    """Read a collection's masks.

    Raises:
        InputError: the file is missing, damaged, or no file of masks.
    """
    try:
        table = pq.read_table(path)
        run = json.loads((table.schema.metadata or {})[_RUN])
        if not table.schema.remove_metadata().equals(SCHEMA):
            raise KeyError(", ".join(SCHEMA.names))
        rows = table.to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise unreadable("cannot read masks", error, path, _REMEDY) from None
    found = [Mask(row["id"], row["mask"], (row["width"], row["height"])) for row in rows]
    return Masks({mask.id: mask for mask in found}, run)


def exact_squares(
    folder: Path, images: Sequence[Mask], size: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read masks that were drawn by hand, as they are compared with.

    Args:
        folder: holds `{image_id}.png` of some or all of the images; what is not zero is drawn.
        images: whose masks are wanted; of their own masks only id and size of the image count.
        size: side of the squares, pixels.
        threads: how many are decoded at a time.

    Returns:
        Which images have one, bool (n,), and the masks of those, bool (m, size, size).

    Raises:
        InputError: none of the images has one, or one is damaged or not of its image's size.
    """
    paths = [folder / f"{image.id}.png" for image in images]
    found = np.array([path.is_file() for path in paths], bool)
    if not found.any():
        raise InputError(
            f"no mask of any of the {len(images)} test images",
            folder,
            "name the files {image_id}.png, or set downstream.segmentation.exact_masks to null",
        )

    def one(row: int) -> np.ndarray:
        mask = open_mask(paths[row], str(paths[row]))
        if mask.size != images[row].shown:
            raise InputError(
                f"a mask of {mask.width} x {mask.height} pixels, its radiograph has "
                f"{images[row].shown[0]} x {images[row].shown[1]}",
                paths[row],
                "draw the mask on the radiograph as it is",
            )
        return mask_square(mask, images[row].shown, size)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        return found, np.stack(list(pool.map(one, np.flatnonzero(found).tolist())))
