"""Make one shard of a control: images of known quality and origin.

    python -m workflow_scripts.generate.make_control --kind held_out_real --manifest M \\
        --prompts P.parquet --prompt-set test --seed 42 --shard 0 --shards 4 --output FILE

- `training_copies`: the prompt's own radiograph, byte for byte. It is the ceiling of every privacy
  risk.
- `flipped_copies`, `brightened_copies`: the prompt's own radiograph, mirrored or slightly brighter.
  They show what each privacy lens misses.
- `held_out_real`: radiographs of patients outside the reference, matched on findings, byte for byte
  and with their own captions. They show what real images score. This is no bound, because a model
  answers the reference's own captions and may come closer to it.
- `recoded_copies`: the prompt's own radiograph at another size, gray window or JPEG quality. They
  show the effect of preprocessing alone.
- `blurred_real`: the images of held_out_real, blurred. They lose texture and keep topology.
- `warped_real`: the same images, smoothly deformed. They lose topology and keep texture.
- `noise`: uniform noise.

Images are assigned to prompts over the whole set, so the result does not depend on the shards.
"""

import argparse
import hashlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter, ImageOps
from scipy import ndimage

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.images import (
    ImageItem,
    centre_square,
    decode_image,
    gray_if_colourless,
    png_bytes,
    write_shard,
)
from workflow_scripts.common.manifest import (
    COHORT_PROMPT_SETS,
    FINDINGS,
    read_manifest,
    read_prompts,
)
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import slurm_job
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.generate.controls import ControlSettings
from workflow_scripts.generate.sharding import shard_rows

log = logging.getLogger(__name__)

WARP_NODES: Final = 5
"""Nodes a side of the grid of displacements from which a warp is interpolated."""


def held_out_pool(manifest: pd.DataFrame, prompts: pd.DataFrame, prompt_set: str) -> np.ndarray:
    """Return the manifest rows with a caption whose patients are not in the reference.

    The reference is the test split for `test`, and the train split for `privacy`. For `augment` it
    is the test split (on which the downstream networks are scored) and the patients of the set's
    own radiographs.

    Raises:
        InputError: there is no such row.
    """
    patients = manifest["patient_id"]
    reference: set[str] = set()
    if prompt_set in ("test", "augment"):
        reference |= set(patients[manifest["split"] == "test"])
    if prompt_set == "privacy":
        reference |= set(patients[manifest["split"] == "train"])
    if prompt_set == "augment":
        reference |= set(patients[manifest["image_id"].isin(prompts["image_id"])])
    rows = np.flatnonzero(manifest["caption"].notna() & ~patients.isin(reference))
    if not len(rows):
        raise InputError(
            f"no captioned image of a patient outside the reference of the {prompt_set} set",
            "held_out_real",
            "enlarge the cohort, or leave the control out of run_models",
        )
    return rows


def positive_masks(frame: pd.DataFrame) -> np.ndarray:
    """Return each row's set of positive findings as a bit mask, uint16 (n,)."""
    masks = np.zeros(len(frame), np.uint16)
    for bit, name in enumerate(FINDINGS):
        positive = frame[name].eq(1).fillna(False).to_numpy(dtype=bool)
        masks |= positive.astype(np.uint16) << np.uint16(bit)
    return masks


def draw_matched(
    wanted: np.ndarray, captions: list[str], pool: np.ndarray, seed: int
) -> np.ndarray:
    """Draw an image of the pool for each prompt, with the same or the most similar findings.

    Images are drawn without replacement until the pool is empty, and then again from the full pool.
    A caption never gets the same image twice. In each round prompts with exact matches come first.
    The others get the image that differs in the fewest findings. The order of prompts is random.

    Args:
        wanted: uint16 (n,), the prompts' positive findings as bit masks.
        captions: (n,), the prompts' captions, which identify replicates.
        pool: uint16 (m,), the pool's positive findings as bit masks.
        seed: seed of the draw.

    Returns:
        int64 (n,), indices into `pool`.

    Raises:
        InputError: a caption has more replicates than the pool has images.
    """
    rng = np.random.default_rng(seed)
    chosen = np.full(len(wanted), -1, np.int64)
    given: dict[str, set[int]] = {caption: set() for caption in captions}
    left = rng.permutation(len(wanted))
    while len(left):
        stock = _Stock(pool, rng.permutation(len(pool)))
        placed = 0
        for exact in (True, False):
            waiting = []
            for i in left:
                image = stock.take(int(wanted[i]), given[captions[i]], exact)
                if image is None:
                    waiting.append(i)
                    continue
                chosen[i] = image
                given[captions[i]].add(image)
                placed += 1
            left = np.array(waiting, np.int64)
        if not placed:
            raise InputError(
                f"a caption has more replicates than the pool has images ({len(pool)})",
                "held_out_real",
                "enlarge the cohort, or use fewer seeds",
            )
    return chosen


class _Stock:
    """The images of a pool that are not yet drawn, by their positive findings."""

    def __init__(self, pool: np.ndarray, order: np.ndarray):
        self.masks, group = np.unique(pool, return_inverse=True)
        self.images: list[list[int]] = [[] for _ in self.masks]
        for i in order:
            self.images[group[i]].append(int(i))
        self.counts = np.array([len(images) for images in self.images])
        self.group_of = {int(mask): i for i, mask in enumerate(self.masks)}

    def take(self, mask: int, used: set[int], exact: bool) -> int | None:
        """Take an image with these findings (or the most similar) that is not in `used`."""
        if exact:
            groups = [self.group_of[mask]] if mask in self.group_of else []
        else:
            distance = np.bitwise_count(self.masks ^ np.uint16(mask)).astype(np.int64)
            distance[self.counts == 0] = 99
            nearest = int(distance.argmin())
            groups = [nearest]
            if used and not self._has_unused(nearest, used):
                groups = [int(i) for i in np.argsort(distance, kind="stable")]
        for group in groups:
            images = self.images[group]
            for position in range(len(images) - 1, -1, -1):
                if images[position] not in used:
                    self.counts[group] -= 1
                    return images.pop(position)
        return None

    def _has_unused(self, group: int, used: set[int]) -> bool:
        return any(image not in used for image in self.images[group])


def assign_held_out(
    manifest: pd.DataFrame, prompts: pd.DataFrame, prompt_set: str, seed: int
) -> np.ndarray:
    """Return the manifest row of the radiograph that is assigned to each prompt, int64 (n,).

    Raises:
        InputError: see `held_out_pool` and `draw_matched`.
    """
    rows = held_out_pool(manifest, prompts, prompt_set)
    pool, wanted = positive_masks(manifest.iloc[rows]), positive_masks(prompts)
    drawn = draw_matched(wanted, prompts["caption"].tolist(), pool, seed)
    repeats = len(drawn) - len(np.unique(drawn))
    log.info(
        "held-out images: %d prompts from %d images, %d with exactly the same findings, %d reused",
        len(drawn),
        len(rows),
        int((pool[drawn] == wanted).sum()),
        repeats,
    )
    if repeats and prompt_set == "augment":
        log.warning("the pool is smaller than the set: %d of its images repeat", repeats)
    return rows[drawn]


def make_control(
    settings: ControlSettings,
    manifest: Path,
    prompts: Path,
    prompt_set: str,
    output: Path,
    shard: int = 0,
    shards: int = 1,
) -> None:
    """Write one shard of a control.

    Args:
        settings: the kind of control, and the seed of the draw and of the noise.
        manifest: the cohort's manifest.
        prompts: the prompt set.
        prompt_set: its name, which decides on the reference.
        output: the Parquet shard to write.
        shard: number of the shard, from 0.
        shards: number of shards.

    Raises:
        InputError: the pool is empty, a prompt's radiograph is not in the manifest, or an image
            file is missing or broken.
    """
    kind = settings.kind
    frame = read_prompts(prompts)
    rows = shard_rows(len(frame), shard, shards)
    if kind == "noise":
        write_shard(
            _noise(frame.iloc[rows.start : rows.stop], settings.seed, settings.size),
            output,
            [{"device": "cpu", **slurm_job()}],
        )
        return
    cohort = read_manifest(manifest)
    if kind.endswith("_copies"):
        sources = pd.Index(cohort["image_id"]).get_indexer(frame["image_id"])
        if (sources < 0).any():
            lost = frame["image_id"].iloc[int((sources < 0).argmax())]
            raise InputError(f"the prompts' image {lost!r} is not in the manifest", prompts)
    else:
        sources = assign_held_out(cohort, frame, prompt_set, settings.seed)
    shown = cohort.iloc[sources[rows.start : rows.stop]]
    ids = frame["prompt_id"].iloc[rows.start : rows.stop].tolist()
    write_shard(
        _real(ids, shown, settings),
        output,
        [{"device": "cpu", **slurm_job()}],
    )


def changed(image: Image.Image, by: ControlSettings, seed: int = 0) -> Image.Image:
    """Return a radiograph as a control shows it.

    Args:
        image: 8-bit RGB.
        by: the kind (`blurred_real`, `warped_real`, `flipped_copies`, `brightened_copies` or
            `recoded_copies`) and the strength of the change. Copies whose shorter side is longer
            than `size` are reduced to it.
        seed: seed of a warp.
    """
    if by.kind == "warped_real":
        return warped(centre_square(image, by.size), by.warp, seed)
    if by.kind == "blurred_real":
        blurred = image.filter(ImageFilter.GaussianBlur(by.blur * min(image.size)))
        return centre_square(blurred, by.size)
    image = gray_if_colourless(image)
    scale = by.size / min(image.size)
    if scale < 1:
        width, height = (max(by.size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if by.kind == "flipped_copies":
        return ImageOps.mirror(image)
    if by.kind == "recoded_copies":
        return recoded(image, by.quality, by.window)
    levels = [min(255, round(level * (1 + by.brighten))) for level in range(256)]
    return image.point(levels * len(image.getbands()))


def warped(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Return an image after a smooth random deformation, with mirrored borders.

    Interpolation by cubic splines removes little texture: a seventh of white noise, and less of a
    radiograph's grain.

    Args:
        image: 8-bit RGB, square.
        strength: standard deviation of the displacements at the nodes, relative to the side.
        seed: seed of the displacements.
    """
    pixels = np.asarray(image.convert("L"), np.float32)
    side = len(pixels)
    nodes = np.random.default_rng(seed).normal(0, strength * side, (2, WARP_NODES, WARP_NODES))
    fine = np.linspace(0, WARP_NODES - 1, side)
    grid = np.stack(np.meshgrid(fine, fine, indexing="ij"))
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij")).astype(float)
    for axis in range(2):
        places[axis] += ndimage.map_coordinates(nodes[axis], grid, order=3, mode="nearest")
    bent = ndimage.map_coordinates(pixels, places, order=3, mode="mirror")
    return Image.fromarray(np.clip(np.rint(bent), 0, 255).astype(np.uint8)).convert("RGB")


def recoded(image: Image.Image, quality: int, window: float) -> Image.Image:
    """Return an image with saturated gray values, after compression as JPEG.

    Args:
        image: 8-bit.
        quality: quality of the JPEG; 100 for no JPEG.
        window: share of pixels at each end of the gray values to saturate.
    """
    if window > 0:
        pixels = np.asarray(image, np.float32)
        low, high = np.quantile(pixels, [window, 1 - window])
        stretched = (pixels - low) / max(high - low, 1.0) * 255
        image = Image.fromarray(np.clip(np.rint(stretched), 0, 255).astype(np.uint8))
    if quality < NO_JPEG:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality)
        image = Image.open(io.BytesIO(buffer.getvalue()))
        image.load()
    return image


NO_JPEG: Final = 100
"""The quality that stands for no JPEG."""


def _real(ids: list[str], shown: pd.DataFrame, settings: ControlSettings) -> Iterator[ImageItem]:
    kind = settings.kind
    progress = Progress(f"control {kind}", len(ids), "images")
    columns = (shown[name].tolist() for name in ("image_id", "path", "caption"))
    for prompt_id, image_id, path, caption in zip(ids, *columns, strict=True):
        file = Path(path)
        try:
            data = file.read_bytes()
        except OSError as error:
            raise unreadable("cannot read an image", error, file) from None
        suffix = file.suffix.lower()
        if kind not in ("held_out_real", "training_copies"):
            image = changed(decode_image(data, path), settings, _seed_of(settings.seed, prompt_id))
            data, suffix = png_bytes(image), ".png"
        yield ImageItem(prompt_id, f"{prompt_id}{suffix}", data, caption or "", image_id)
        progress.update()


def _noise(prompts: pd.DataFrame, seed: int, size: int) -> Iterator[ImageItem]:
    for prompt_id, caption in zip(prompts["prompt_id"], prompts["caption"], strict=True):
        rng = np.random.default_rng(_seed_of(seed, prompt_id))
        pixels = rng.integers(0, 256, (size, size), dtype=np.uint8)
        data = png_bytes(Image.fromarray(pixels))
        yield ImageItem(prompt_id, f"{prompt_id}.png", data, caption)


def _seed_of(seed: int, prompt_id: str) -> int:
    """Return a prompt's own seed, from its id: the seeds of replicates recur in all captions."""
    digest = hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and make a shard."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--prompts", required=True, type=Path)
    parser.add_argument("--prompt-set", required=True, choices=COHORT_PROMPT_SETS)
    add_flags(parser, ControlSettings)
    parser.add_argument("--shard", default=0, type=int)
    parser.add_argument("--shards", default=1, type=int)
    parser.add_argument("--output", required=True, type=Path)
    flags = parser.parse_args(argv)
    make_control(
        settings_of_flags(ControlSettings, flags, parser),
        flags.manifest,
        flags.prompts,
        flags.prompt_set,
        flags.output,
        flags.shard,
        flags.shards,
    )


if __name__ == "__main__":
    run_script(main)
