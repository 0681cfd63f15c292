"""Embed a collection of images by several encoders in one pass.

The images are the radiographs of a manifest (of some splits, or those that a prompt set describes)
or those of image shards. The script also reads the encoders' weights. It writes `OUT/{encoder}.h5`,
see `cache.py`. An image that cannot be read ends the job with an error that names it. Finished
batches are kept under `--progress`, which is removed at the end; a killed job continues there if
images, weights and settings are the same.

The same images, weights, settings, batch size and threads give the same bytes on a CPU.
"""

import argparse
import hashlib
import importlib.metadata
import itertools
import json
import logging
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from workflow_scripts.common.access import require_access, unreadable
from workflow_scripts.common.ahead import ahead
from workflow_scripts.common.as_published import PROTOCOLS, deviations
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.images import (
    ImageItem,
    count_shards,
    decode_image,
    is_constant,
    read_shard_ids,
    read_shards,
)
from workflow_scripts.common.levels import said_of_bits
from workflow_scripts.common.manifest import SPLITS, read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import slurm_job
from workflow_scripts.common.speed import (
    COMPUTING,
    Speed,
    add_speed_flag,
    speed_of,
    switches_said,
)
from workflow_scripts.common.speed_record import speed_record
from workflow_scripts.features.cache import Features, write_features
from workflow_scripts.features.encoders import (
    PURPOSES,
    Encoder,
    check_encoder,
    check_encoder_speed,
    load_encoder,
    weights_sha256,
)

log = logging.getLogger(__name__)

_LIBRARIES: Final = ("torch", "transformers", "numpy", "pillow", "h5py")
_BATCHES_AHEAD: Final = 4
"""Batches that are decoded ahead of the one that is computed."""


@dataclass(frozen=True)
class Collection:
    """Images to embed, in a fixed order.

    Attributes:
        ids: the images' unique ids.
        captions: the caption of each radiograph, or None if it has none; None for shards, whose
            captions are read with the images.
        stamps: path, size and time of each image's file, which show a change of the file.
        read: returns the items from the n-th on.
        generated: whether the items come from shards, so that they have `source_image_id`.
    """

    ids: list[str]
    captions: list[str | None] | None
    stamps: list[str]
    read: Callable[[int], Iterator[ImageItem]]
    generated: bool


@dataclass
class Block:
    """Features, digests and sources of the consecutive images [start, stop).

    Attributes:
        start, stop: positions in the collection.
        image_sha256: of each image's encoded bytes, uint8 (n, 32).
        pixels_sha256: of each image's pixels, uint8 (n, 32). It is that of the encoded bytes for
            radiographs, whose copies are not counted, and where no encoder reads images.
        constant: whether all pixels of each image have one value, bool (n,).
        caption_sha256: of each caption (zeros where there is none), uint8 (n, 32).
        sources: each item's `source_image_id`, "" where there is none.
        rows: by encoder, the positions that have features, int64.
        features: by encoder, float32 (len(rows), d).
    """

    start: int
    stop: int
    image_sha256: NDArray[np.uint8]
    pixels_sha256: NDArray[np.uint8]
    constant: NDArray[np.bool_]
    caption_sha256: NDArray[np.uint8]
    sources: list[str]
    rows: dict[str, NDArray[np.int64]]
    features: dict[str, NDArray[np.float32]]


@dataclass
class _Prepared:
    """One image, prepared for each encoder; without a caption, for those of images alone."""

    item: ImageItem
    image_sha256: bytes
    pixels_sha256: bytes
    constant: bool
    inputs: dict[str, torch.Tensor]


def manifest_collection(
    manifest: Path, splits: Sequence[str] = (), prompts: Path | None = None
) -> Collection:
    """Return the radiographs of splits, or those that a prompt set describes, in manifest order.

    Raises:
        InputError: the manifest lacks an image that a prompt names, there are no images, or image
            files are missing.
    """
    frame = read_manifest(manifest)
    if prompts is not None:
        wanted = set(read_prompts(prompts)["image_id"])
        unknown = sorted(wanted - set(frame["image_id"]))
        if unknown:
            raise InputError(
                f"{len(unknown)} prompt(s) name an image that is not in {manifest}: {unknown[0]}",
                prompts,
                "rerun the cohort stage",
            )
        frame = frame[frame["image_id"].isin(wanted)]
    else:
        frame = frame[frame["split"].isin(splits)]
    if frame.empty:
        what = f"of split {' or '.join(splits)}" if prompts is None else "that the prompts point to"
        raise InputError(f"no image {what}", manifest, "check the cohort's attrition table")
    captions = frame["caption"].tolist()
    rows = zip(frame["image_id"].tolist(), frame["path"].tolist(), captions, strict=True)
    items = [ImageItem(image_id, path, caption=caption) for image_id, path, caption in rows]
    missing = [item for item in items if not Path(item.path).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} image file(s) missing, first of {missing[0].id}",
            missing[0].path,
            "restore it, or take it out of the data source and rerun the cohort stage",
        )
    return Collection(
        [item.id for item in items],
        captions,
        [_stamp(Path(item.path)) for item in items],
        lambda start: iter(items[start:]),
        generated=False,
    )


def shard_collection(shards: Sequence[Path]) -> Collection:
    """Return the images of shards, in order.

    Raises:
        InputError: a shard cannot be read, an id is repeated, or there are no images.
    """
    ids = read_shard_ids(shards)
    if not ids:
        raise InputError("no image in the shards", str(shards[0]), "rerun the generate stage")
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(
            f"{len(repeated)} prompt_id(s) stand twice in the shards, first {repeated[0]}",
            f"{shards[0]} to {shards[-1]}",
            "rerun the generate stage",
        )
    stamps = [_stamp(Path(path)) for path in shards for _ in range(count_shards([path]))]
    return Collection(
        ids,
        None,
        stamps,
        lambda start: itertools.islice(read_shards(shards), start, None),
        generated=True,
    )


def compute_exactly() -> None:
    """Compute in full float32 precision and deterministically, also on a GPU."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


def embed(
    collection: Collection,
    encoders: Sequence[Encoder],
    batch_size: int,
    attempt: Attempt,
    key: dict[str, Any],
    threads: int = 1,
    save_every_s: float = 60.0,
) -> list[Block]:
    """Embed a collection in one pass, continuing after the blocks of earlier attempts.

    Args:
        collection: the images.
        encoders: the encoders; an image is decoded once for all of them.
        batch_size: images per forward pass; batches always start at multiples of it, so that a
            continued run computes the same batches.
        attempt: the attempt at this job, which keeps the finished blocks.
        key: what the blocks depend on besides the images; blocks with another key are discarded.
        threads: threads that read, decode and prepare images while the encoders compute.
        save_every_s: seconds of work that a block holds.

    Returns:
        Blocks that cover the collection, in order.

    Raises:
        InputError: an image cannot be decoded or a caption cannot be encoded (the message names it,
            and the batches before it are kept), or another attempt took over.
    """
    name = _digest_of_key(key)
    blocks = _finished_blocks(
        attempt, name, [encoder.name for encoder in encoders], collection, batch_size
    )
    done = blocks[-1].stop if blocks else 0
    total = len(collection.ids)
    report = Progress("embed", total, "images", done=done)
    pending: list[Block] = []
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        if pending:
            blocks.append(_joined(pending))
            _save_block(attempt, name, blocks[-1], collection)
            pending.clear()
        saved = time.monotonic()

    try:
        for start, batch in _batches(collection, encoders, batch_size, done, threads):
            pending.append(_compute(start, batch, encoders))
            report.update(len(batch))
            if time.monotonic() - saved >= save_every_s:
                save()
    finally:
        save()
    if (blocks[-1].stop if blocks else 0) != total:
        raise InputError(
            f"{total} images were listed and {blocks[-1].stop if blocks else 0} read",
            "the image shards",
            "they changed during the job: rerun it",
        )
    return blocks


def collection_sha256(ids: Sequence[str], blocks: Sequence[Block]) -> str:
    """Return the digest of a collection: its ids and images' bytes, in order."""
    digest = hashlib.sha256()
    for block in blocks:
        names = ids[block.start : block.stop]
        for name, image in zip(names, block.image_sha256, strict=True):
            digest.update(name.encode() + b"\0" + image.tobytes())
    return digest.hexdigest()


def count_copies(blocks: Sequence[Block]) -> dict[str, int]:
    """Count the images of a generated collection that are not independent samples.

    Returns:
        `repeated_images`: generated images with the same pixels as an earlier one.
        `constant_images`: images whose pixels all have one value, which only a control may have.
    """
    pixels = np.concatenate([block.pixels_sha256 for block in blocks])
    sources = itertools.chain.from_iterable(block.sources for block in blocks)
    made = [digest.tobytes() for digest, source in zip(pixels, sources, strict=True) if not source]
    return {
        "repeated_images": len(made) - len(set(made)),
        "constant_images": int(sum(block.constant.sum() for block in blocks)),
    }


def extract(
    collection: Collection,
    weights: dict[str, Path],
    out: Path,
    progress: Path,
    name: str,
    purpose: str,
    protocol: str,
    batch_size: int,
    gpus: int = 0,
    threads: int = 1,
    save_every_s: float = 60.0,
    speeds: Mapping[str, Speed] | None = None,
) -> None:
    """Embed a collection and write one cache file per encoder under `out`.

    Args:
        collection: the images.
        weights: file or folder of weights, by encoder name.
        out: folder of the cache files, `{encoder}.h5`.
        progress: folder of the finished batches; removed at the end.
        name: the collection's name in the cache (`real`, or a model's key).
        purpose: `fidelity` or `privacy`.
        protocol: `sound` or `as_published`.
        batch_size: images per forward pass.
        gpus: number of GPUs; 0 computes on the CPU.
        threads: threads of torch and of decoding.
        save_every_s: seconds between two savings of progress.
        speeds: by encoder name, switches of speed, which change rounding alone.

    Raises:
        InputError: see `embed` and `encoders`.
    """
    device = pick_device(gpus)
    torch.set_num_threads(threads)
    compute_exactly()
    for encoder_name, path in weights.items():  # check all of them before loading the first
        check_encoder(encoder_name, path)
    speeds = speeds or {}
    for encoder_name, speed in speeds.items():
        check_encoder_speed(encoder_name, speed, device.type)
    switches = deviations(protocol)
    encoders = [
        load_encoder(encoder_name, path, device, switches, purpose, speeds.get(encoder_name))
        for encoder_name, path in weights.items()
    ]
    digests = {
        encoder_name: weights_sha256(encoder_name, path) for encoder_name, path in weights.items()
    }
    versions = {library: importlib.metadata.version(library) for library in _LIBRARIES}
    key = {
        "encoders": {e.name: [digests[e.name], e.preprocessing, e.dimension] for e in encoders},
        "batch_size": batch_size,
        "threads": threads,
        "device": device_name(device),
        "versions": versions,
        # Blocks of one file come from one way to compute.
        "speeds": {encoder_name: speed.chosen for encoder_name, speed in speeds.items()},
        **said_of_bits(),
    }
    attempt = Attempt(progress)
    blocks = embed(collection, encoders, batch_size, attempt, key, threads, save_every_s)
    attempt.check()  # before anything is written: a newer attempt may be writing the same files
    collection_digest = collection_sha256(collection.ids, blocks)
    sources = list(itertools.chain.from_iterable(block.sources for block in blocks))
    for encoder in encoders:
        rows = np.concatenate([block.rows[encoder.name] for block in blocks])
        if not len(rows):
            raise InputError(
                f"no image has a caption, and {encoder.name} reads captions",
                f"collection {name}",
                f"leave out --encoder {encoder.name} for it",
            )
        attrs = {
            "encoder": encoder.name,
            "weights_sha256": digests[encoder.name],
            "preprocessing": _preprocessing(encoder),
            "collection": name,
            "collection_sha256": collection_digest,
            "purpose": purpose,
            "protocol": protocol,
            "device": device_name(device),
            # HDF5 has no null.
            **{key: value or "" for key, value in slurm_job().items()},
            **speed_record(speeds.get(encoder.name, Speed())),
            "versions": json.dumps(versions, sort_keys=True),
            **(count_copies(blocks) if collection.generated else {}),
        }
        if encoder.reads == "caption":
            captions = np.concatenate([block.caption_sha256 for block in blocks])[rows]
            attrs["captions_sha256"] = hashlib.sha256(captions.tobytes()).hexdigest()
        content = Features(
            np.concatenate([block.features[encoder.name] for block in blocks]),
            [collection.ids[i] for i in rows],
            [sources[i] for i in rows] if collection.generated else None,
            attrs,
            dict(encoder.extras),
        )
        write_features(out / f"{encoder.name}.h5", content)
        log.info("%s: %d x %d", out / f"{encoder.name}.h5", *content.features.shape)
    attempt.end()


def _preprocessing(encoder: Encoder) -> str:
    """Return an encoder's preprocessing in words, with the number of bits used of 16 if set."""
    settings = said_of_bits() if encoder.reads == "image" else {}
    return "; ".join(
        [encoder.preprocessing, *(f"{name} {bits}" for name, bits in settings.items())]
    )


def _batches(
    collection: Collection,
    encoders: Sequence[Encoder],
    batch_size: int,
    start: int,
    threads: int,
) -> Iterator[tuple[int, list[_Prepared]]]:
    """Yield (position, prepared batch) in order, decoding ahead in threads.

    An image that cannot be prepared raises only after every full batch before it was yielded.
    """
    items = collection.read(start)
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode") as pool:

        def begin(item: ImageItem) -> Future[_Prepared]:
            return pool.submit(_prepare, item, encoders, collection.generated)

        try:
            prepared = ahead(items, begin, _BATCHES_AHEAD * batch_size)
            while batch := [future.result() for future in itertools.islice(prepared, batch_size)]:
                yield start, batch
                start += len(batch)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare(item: ImageItem, encoders: Sequence[Encoder], generated: bool) -> _Prepared:
    """Read an image, decode it once, and prepare it for each encoder."""
    try:
        data = item.data if item.data is not None else Path(item.path).read_bytes()
    except OSError as error:
        raise unreadable(
            "cannot read an image", error, item.name, "restore the file from its source"
        ) from None
    inputs: dict[str, torch.Tensor] = {}
    constant, shown = False, data
    if any(encoder.reads == "image" for encoder in encoders):
        image = decode_image(data, item.name, keep_gray=True)
        constant = is_constant(image)
        if generated:
            shown = f"{image.size}".encode() + image.tobytes()
        if constant and not item.source_image_id:
            raise InputError(
                "all pixels of an image have one value: it shows nothing",
                item.name,
                "a generated image: look at the model's checkpoint and precision, then rerun the "
                "generate stage; a radiograph: restore it, or take it out of the data source",
            )
        for encoder in encoders:
            if encoder.reads == "image":
                inputs[encoder.name] = encoder.prepare(image)
    for encoder in encoders:
        if encoder.reads == "caption" and item.caption is not None:
            try:
                inputs[encoder.name] = encoder.prepare(item.caption)
            except InputError as error:
                raise InputError(error.what, f"{item.id}: {error.where}", error.remedy) from None
    light = ImageItem(item.id, item.path, None, item.caption, item.source_image_id)
    digests = hashlib.sha256(data).digest(), hashlib.sha256(shown).digest()
    return _Prepared(light, *digests, constant, inputs)


def _compute(start: int, batch: Sequence[_Prepared], encoders: Sequence[Encoder]) -> Block:
    rows, features = {}, {}
    for encoder in encoders:
        chosen = [i for i, prepared in enumerate(batch) if encoder.name in prepared.inputs]
        rows[encoder.name] = np.array(chosen, np.int64) + start
        features[encoder.name] = (
            encoder.encode([batch[i].inputs[encoder.name] for i in chosen])
            if chosen
            else np.empty((0, encoder.dimension), np.float32)
        )
    captions = [
        hashlib.sha256(p.item.caption.encode()).digest()
        if p.item.caption is not None
        else bytes(32)
        for p in batch
    ]
    return Block(
        start,
        start + len(batch),
        _digests(p.image_sha256 for p in batch),
        _digests(p.pixels_sha256 for p in batch),
        np.array([p.constant for p in batch]),
        _digests(captions),
        [prepared.item.source_image_id or "" for prepared in batch],
        rows,
        features,
    )


def _digests(digests: Any) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _joined(blocks: Sequence[Block]) -> Block:
    names = blocks[0].rows
    return Block(
        blocks[0].start,
        blocks[-1].stop,
        np.concatenate([block.image_sha256 for block in blocks]),
        np.concatenate([block.pixels_sha256 for block in blocks]),
        np.concatenate([block.constant for block in blocks]),
        np.concatenate([block.caption_sha256 for block in blocks]),
        list(itertools.chain.from_iterable(block.sources for block in blocks)),
        {name: np.concatenate([block.rows[name] for block in blocks]) for name in names},
        {name: np.concatenate([block.features[name] for block in blocks]) for name in names},
    )


def _save_block(attempt: Attempt, name: str, block: Block, collection: Collection) -> None:
    arrays: dict[str, Any] = {
        "image_sha256": block.image_sha256,
        "pixels_sha256": block.pixels_sha256,
        "constant": block.constant,
        "caption_sha256": block.caption_sha256,
        "sources": np.array(block.sources, dtype=np.str_),
        "members": np.array(_members(collection, block.start, block.stop)),
    }
    for encoder, rows in block.rows.items():
        arrays[f"rows_{encoder}"], arrays[f"features_{encoder}"] = rows, block.features[encoder]
    with attempt.writing() as folder:
        path = folder / f"block-{name}-{block.start:09d}-{block.stop:09d}.npz"
        with whole_file(path, make_parents=False) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)


def _digest_of_key(key: dict[str, Any]) -> str:
    """Return a digest of the key and the code, which blocks depend on besides the images."""
    modules = [f"features.encoders.{name}" for name in key.get("encoders", ())]
    made_by = own_digests("features.extract", *modules)
    text = json.dumps({**key, "code": made_by}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finished_blocks(
    attempt: Attempt, name: str, encoders: list[str], collection: Collection, batch_size: int
) -> list[Block]:
    """Return earlier attempts' blocks as far as they are contiguous and valid; drop the others."""
    attempt.inherit()
    blocks: list[Block] = []
    total = len(collection.ids)
    for path in sorted(attempt.folder.iterdir()):
        try:
            _, key_digest, *span = path.stem.split("-")
            start, stop = map(int, span)
            joins = start == (blocks[-1].stop if blocks else 0) and stop <= total
            if key_digest == name and joins and (stop % batch_size == 0 or stop == total):
                block = _load_block(path, start, stop, encoders, collection)
                if block is not None:
                    blocks.append(block)
                    continue
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            require_access(error, path)
        log.info(
            "%s: damaged, or of other settings, weights, code or images: computed anew",
            path,
        )
        path.unlink()
    return blocks


def _load_block(
    path: Path, start: int, stop: int, names: Sequence[str], collection: Collection
) -> Block | None:
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["members"]) != _members(collection, start, stop):
            return None
        return Block(
            start,
            stop,
            arrays["image_sha256"],
            arrays["pixels_sha256"],
            arrays["constant"],
            arrays["caption_sha256"],
            arrays["sources"].tolist(),
            {name: arrays[f"rows_{name}"] for name in names},
            {name: arrays[f"features_{name}"] for name in names},
        )


def _members(collection: Collection, start: int, stop: int) -> str:
    """Return a digest that identifies the images [start, stop) without reading them."""
    captions = collection.captions
    members = [
        [collection.ids[i], collection.stamps[i], captions[i] if captions is not None else None]
        for i in range(start, stop)
    ]
    return hashlib.sha256(json.dumps(members).encode()).hexdigest()


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path}:{status.st_size}:{status.st_mtime_ns}"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow_scripts.features.extract", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--manifest", type=Path, help="manifest.parquet, for radiographs")
    parser.add_argument("--image-split", choices=SPLITS, nargs="+", help="which of its images")
    parser.add_argument("--prompts", type=Path, help="or: the images that these prompts point to")
    parser.add_argument(
        "--shards", type=Path, nargs="+", help="image shards, instead of a manifest"
    )
    parser.add_argument(
        "--encoder",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="encoder and its weights; repeat for more",
    )
    parser.add_argument("--purpose", choices=PURPOSES, required=True)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="sound")
    parser.add_argument("--collection", required=True, help="its name: real, or the model's key")
    parser.add_argument("--out", type=Path, required=True, help="folder for {encoder}.h5")
    parser.add_argument("--progress", type=Path, required=True, help="folder; not an output")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS")
    add_speed_flag(parser, tuple(f"ENCODER.{name}" for name in COMPUTING))
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    if (arguments.manifest is None) == (arguments.shards is None):
        parser.error("give either --manifest or --shards")
    if arguments.manifest is not None and (arguments.image_split is None) == (
        arguments.prompts is None
    ):
        parser.error("with --manifest, give either --image-split or --prompts")
    if arguments.shards is not None and (arguments.image_split or arguments.prompts):
        parser.error("--image-split and --prompts belong to --manifest")
    if arguments.batch_size < 1 or arguments.threads < 1:
        parser.error("--batch-size and --threads are at least 1")
    weights: dict[str, Path] = {}
    for value in arguments.encoder:
        name, _, path = value.partition("=")
        if not path or name in weights:
            parser.error(f"--encoder {value}: NAME=PATH, each name once")
        weights[name] = Path(path)
    arguments.weights = weights
    said = [
        (f"{name}.{switch}", value)
        for name in weights
        for switch, value in switches_said("encoders", name).items()
    ]
    arguments.speeds = speeds_of(arguments.speed or said, list(weights))
    return arguments


def speeds_of(given: Sequence[tuple[str, Any]], encoders: Sequence[str]) -> dict[str, Speed]:
    """Return each encoder's switches of speed.

    Args:
        given: pairs of `ENCODER.SWITCH` and its value.
        encoders: the encoders of this run.

    Raises:
        InputError: an encoder that is not of this run, or an unknown switch or value.
    """
    switches: dict[str, dict[str, Any]] = {}
    for name, value in given:
        encoder, _, switch = name.partition(".")
        if encoder not in encoders:
            raise InputError(
                f"a switch of {encoder!r}, which is not among the encoders",
                "--speed",
                f"use {' or '.join(f'{known}.{switch}' for known in encoders)}",
            )
        switches.setdefault(encoder, {})[switch] = value
    return {
        encoder: speed_of(own, COMPUTING, f"--speed {encoder}") for encoder, own in switches.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    arguments = parse_arguments(argv)
    if arguments.shards is not None:
        collection = shard_collection(arguments.shards)
    else:
        collection = manifest_collection(
            arguments.manifest, arguments.image_split or (), arguments.prompts
        )
    extract(
        collection,
        arguments.weights,
        arguments.out,
        arguments.progress,
        arguments.collection,
        arguments.purpose,
        arguments.protocol,
        arguments.batch_size,
        arguments.gpus,
        arguments.threads,
        arguments.save_every,
        arguments.speeds,
    )


if __name__ == "__main__":
    run_script(main)
