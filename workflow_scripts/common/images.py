"""Images between stages: decoding, and Parquet shards that `datasets` reads as an image column.

A shard has the columns `prompt_id`, `image{bytes, path}`, `caption` (what the image was made from;
for a control, the caption of the radiograph shown) and `source_image_id` (the radiograph that a
control shows; null for generated images). Its metadata list the jobs that made it.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.levels import eight_bits, require_one_picture, stored_as, upright

SHARD_SCHEMA: Final = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field(
            "image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
        ),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("source_image_id", pa.string()),
    ],
    metadata={
        "huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        "prompt_id": {"dtype": "string", "_type": "Value"},
                        "image": {"_type": "Image"},
                        "caption": {"dtype": "string", "_type": "Value"},
                        "source_image_id": {"dtype": "string", "_type": "Value"},
                    }
                }
            }
        )
    },
)

_JOBS: Final = "jobs"
"""The metadata key under which a shard lists the jobs that made it."""

ROWS_PER_GROUP: Final = 64
"""Rows of one Parquet row group: the unit of lazy reading (some 15 MB of 512-pixel PNGs)."""


@dataclass(frozen=True)
class ImageItem:
    """One image of a collection: its id and either its encoded bytes or its file.

    `caption` and `source_image_id` are those of the shard row; None for a plain file.
    """

    id: str
    path: str
    data: bytes | None = None
    caption: str | None = None
    source_image_id: str | None = None

    def open(self) -> Image.Image:
        """Decode to 8-bit RGB. See `decode_image`."""
        return decode_image(self.data if self.data is not None else Path(self.path), self.name)

    @property
    def name(self) -> str:
        """How errors name the image."""
        return self.path if self.path == self.id else f"{self.path} ({self.id})"


def decode_image(
    source: bytes | Path, name: str, *, keep_gray: bool = False, at_least: int | None = None
) -> Image.Image:
    """Decode an image to 8-bit RGB in its Exif orientation. See `levels.eight_bits`.

    Args:
        source: the file, or its bytes.
        name: what an error calls it.
        keep_gray: return a grayscale image with its one channel (mode L), a third of the bytes.
        at_least: lets a JPEG be decoded at a half, a quarter or an eighth of its size, as long as
            both sides keep this many pixels. It halves the time for a film of 2544 x 3056.

    Raises:
        InputError: the file is missing, truncated or not an image, holds several pictures, or does
            not say which values are black and white; the message names the file.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            require_one_picture(image, name)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            stored = stored_as(image)
            image.load()
            decoded = upright(eight_bits(image, stored, name), image)
        return decoded if keep_gray else decoded.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable(
            "cannot decode an image", error, name, "restore the file from its source"
        ) from None


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` (bilinear, antialiased) and crop the centre."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def gray_if_colourless(image: Image.Image) -> Image.Image:
    """Return one channel of an RGB image if its three are equal, else the image unchanged."""
    red, green, blue = image.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else image


def is_constant(image: Image.Image) -> bool:
    """Return whether every channel of an image is constant, so that it shows nothing."""
    extremes = np.asarray(image.getextrema()).reshape(-1, 2)
    return bool((extremes[:, 0] == extremes[:, 1]).all())


def png_bytes(image: Image.Image) -> bytes:
    """Encode as PNG; the same pixels always give the same bytes for one Pillow version."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def write_shard(
    items: Iterable[ImageItem],
    path: str | Path,
    jobs: Sequence[Mapping[str, str | None]] = (),
    make_parents: bool = True,
) -> int:
    """Write one shard from items that carry `data` and `caption`; return the number of rows.

    Args:
        items: the rows.
        path: the file.
        jobs: the jobs that made the images, each with its device and the `records.slurm_job`.
        make_parents: see `whole_file`.
    """
    count = 0
    with (
        whole_file(path, make_parents=make_parents) as temporary,
        pq.ParquetWriter(temporary, SHARD_SCHEMA, compression="none") as writer,
    ):
        group: list[ImageItem] = []
        for item in items:
            group.append(item)
            if len(group) == ROWS_PER_GROUP:
                writer.write_table(_table(group))
                count += len(group)
                group = []
        if group or not count:
            writer.write_table(_table(group))
            count += len(group)
        writer.add_key_value_metadata({_JOBS: json.dumps(list(map(dict, jobs)), sort_keys=True)})
    return count


def shard_jobs(path: str | Path) -> list[dict[str, str | None]]:
    """Return the jobs that made a shard, see `write_shard`; an empty list if it names none.

    Raises:
        InputError: see `read_shards`.
    """
    with _open_shard(path) as file:
        found = (file.metadata.metadata or {}).get(_JOBS.encode())
    return json.loads(found) if found else []


def read_shards(paths: Sequence[str | Path]) -> Iterator[ImageItem]:
    """Iterate lazily over the rows of shards, in the order of `paths` and of the rows.

    Raises:
        InputError: a shard is missing, truncated or has another schema.
    """
    for path in paths:
        with _open_shard(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
                yield from _items(path, batch)


def find_in_shards(paths: Sequence[str | Path], ids: set[str]) -> Iterator[ImageItem]:
    """Iterate over the rows of some prompt ids; only row groups that hold any of them are read.

    Raises:
        InputError: see `read_shards`.
    """
    for path in paths:
        with _open_shard(path) as file:
            for group in range(file.num_row_groups):
                names = file.read_row_group(group, columns=["prompt_id"]).column("prompt_id")
                if ids.isdisjoint(names.to_pylist()):
                    continue
                for item in _items(path, file.read_row_group(group)):
                    if item.id in ids:
                        yield item


def _items(path: str | Path, rows: pa.Table | pa.RecordBatch) -> Iterator[ImageItem]:
    for row in rows.to_pylist():
        yield ImageItem(
            row["prompt_id"],
            f"{path}:{row['image']['path']}",
            row["image"]["bytes"],
            row["caption"],
            row["source_image_id"],
        )


def count_shards(paths: Sequence[str | Path]) -> int:
    """Return the number of rows in all shards, from their footers."""
    total = 0
    for path in paths:
        with _open_shard(path) as file:
            total += file.metadata.num_rows
    return total


def read_shard_ids(paths: Sequence[str | Path]) -> list[str]:
    """Return the prompt ids of all shards, in order, without reading image bytes."""
    ids: list[str] = []
    for path in paths:
        with _open_shard(path) as file:
            ids += file.read(columns=["prompt_id"]).column("prompt_id").to_pylist()
    return ids


def shards_sha256(paths: Sequence[str | Path]) -> str:
    """Return the hex digest of shards' images: their ids and bytes, in order.

    Feature files keep it to identify the images that they were computed from
    (`collection_sha256`).

    Raises:
        InputError: see `read_shards`.
    """
    digest = hashlib.sha256()
    for item in read_shards(paths):
        digest.update(item.id.encode() + b"\0" + hashlib.sha256(item.data or b"").digest())
    return digest.hexdigest()


def _open_shard(path: str | Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(
            "cannot read an image shard", error, path, "delete it and rerun the generate stage"
        ) from None
    missing = [name for name in SHARD_SCHEMA.names if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"an image shard lacks the column(s) {', '.join(missing)}", path)
    return file


def _table(items: list[ImageItem]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "prompt_id": item.id,
                "image": {"bytes": item.data, "path": Path(item.path).name},
                "caption": item.caption,
                "source_image_id": item.source_image_id,
            }
            for item in items
        ],
        schema=SHARD_SCHEMA,
    )
