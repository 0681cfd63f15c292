"""What the attack compares of images: small pixels, and RAD-DINO's pooled patch tokens.

Both are in 4 x 4 tiles of the central square. Blocks of images are kept in a folder, under a name
that depends on their files, the weights and the code. So a killed job continues after them, and
images that did not change are not looked at again. The folder holds small radiographs, and only its
owner may read it.
"""

import hashlib
import itertools
import json
import logging
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from workflow_scripts.common.access import require_access
from workflow_scripts.common.code import own_digests
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.images import ImageItem, centre_square
from workflow_scripts.common.progress import Progress
from workflow_scripts.features.extract import Collection
from workflow_scripts.privacy.extraction.tiles import Tiles

log = logging.getLogger(__name__)

TILES: Final = 4
"""Tiles along a side, as Carlini et al. (2023) cut images."""

SIDE: Final = 64
"""Side of the small images in pixels; a tile has 16 x 16."""

BLOCK: Final = 1024
"""Images of one kept file."""

_BATCH: Final = 32


@dataclass(frozen=True)
class Seen:
    """The pixels and tokens of n images.

    Attributes:
        ids: the images' ids.
        pixels: uint8 (n, 16, 256), the grey values of each tile.
        tokens: float16 (n, 16, d), the mean patch token of each tile.
        sha256: identifies images, weights and code.
    """

    ids: list[str]
    pixels: np.ndarray
    tokens: np.ndarray
    sha256: str


def look(
    collection: Collection, encoder: Any, weights_sha256: str, folder: Path, label: str,
    threads: int = 1,
) -> Seen:  # fmt: skip
    """Return a collection's pixels and tokens, continuing after the blocks of earlier attempts.

    Args:
        collection: the images.
        encoder: RAD-DINO, see `features.encoders.rad_dino`.
        weights_sha256: the digest of its weights.
        folder: where the blocks are kept; blocks of other images or weights are removed.
        label: the collection's name, for the progress.
        threads: threads that decode.

    Raises:
        InputError: an image cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made_by = [weights_sha256, encoder.preprocessing, own_digests("privacy.extraction.look")]
    starts = range(0, len(collection.ids), BLOCK)
    names = []
    for start in starts:
        block = slice(start, start + BLOCK)
        said = json.dumps([made_by, collection.ids[block], collection.stamps[block]])
        names.append(f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.npz")
    for path in folder.iterdir():
        if path.suffix == ".npz" and path.name not in names:
            path.unlink()
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        if (kept := _kept(folder / name)) is not None:
            found[name] = kept
    done = sum(len(pixels) for pixels, _ in found.values())
    progress = Progress(f"looking at {label}", len(collection.ids), "images", done)
    with ThreadPoolExecutor(threads) as pool:
        for start, name in zip(starts, names, strict=True):
            if name in found:
                continue
            count = min(BLOCK, len(collection.ids) - start)
            items = itertools.islice(collection.read(start), count)
            found[name] = _look_at(items, encoder, pool, progress)
            with whole_file(folder / name, owner_only=True) as path, path.open("wb") as stream:
                np.savez(stream, pixels=found[name][0], tokens=found[name][1])
    parts = [found[name] for name in names]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return Seen(
        list(collection.ids),
        np.concatenate([pixels for pixels, _ in parts]),
        np.concatenate([tokens for _, tokens in parts]),
        digest,
    )


def _kept(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["pixels"], arrays["tokens"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        require_access(error, path)
        log.info("%s: damaged, computed anew", path)
        return None


def _look_at(
    items: Any, encoder: Any, pool: ThreadPoolExecutor, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    pixels: list[np.ndarray] = []
    tokens: list[np.ndarray] = []

    def prepared(item: ImageItem) -> tuple[np.ndarray, torch.Tensor]:
        image = item.open()
        small = np.asarray(centre_square(image, SIDE).convert("L"), np.uint8)
        return in_tiles(small), encoder.prepare(image)

    while batch := list(itertools.islice(items, _BATCH)):
        ready = list(pool.map(prepared, batch))
        pixels += [small for small, _ in ready]
        tokens.append(pooled_tokens(encoder, [image for _, image in ready]))
        progress.update(len(batch))
    return np.stack(pixels), np.concatenate(tokens)


def in_tiles(image: np.ndarray) -> np.ndarray:
    """Cut an image (SIDE, SIDE) into its tiles, (TILES**2, (SIDE / TILES)**2), row by row."""
    side = SIDE // TILES
    return image.reshape(TILES, side, TILES, side).swapaxes(1, 2).reshape(TILES**2, side**2)


@torch.inference_mode()
def pooled_tokens(encoder: Any, batch: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the mean of RAD-DINO's patch tokens in each tile, float16 (n, TILES**2, d)."""
    images = torch.stack(list(batch)).to(encoder.device)
    states = encoder.network(pixel_values=images).last_hidden_state[:, 1:].float()
    patch = int(encoder.network.config.patch_size)
    rows, columns = images.shape[2] // patch, images.shape[3] // patch
    grid = states.transpose(1, 2).reshape(len(batch), -1, rows, columns)
    pooled = torch.nn.functional.adaptive_avg_pool2d(grid, TILES)
    return pooled.flatten(2).transpose(1, 2).half().cpu().numpy()


def pixel_tiles(seen: Seen) -> Tiles:
    """Return the pixels of images, from -0.5 to 0.5."""
    return Tiles(seen.pixels, 127.5, 255.0)


def token_scale(training: Seen, most: int = 8192) -> tuple[np.ndarray, np.ndarray]:
    """Return each token dimension's mean and standard deviation over training images, by tile.

    Args:
        training: the training images.
        most: the most images to read; they are evenly spread.
    """
    step = max(1, len(training.tokens) // most)
    values = training.tokens[::step].astype(np.float32)
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread > 0, spread, 1).astype(np.float32)


def token_tiles(seen: Seen, scale: tuple[np.ndarray, np.ndarray]) -> Tiles:
    """Return the tokens of images, in standard deviations over training images."""
    return Tiles(seen.tokens, *scale)
