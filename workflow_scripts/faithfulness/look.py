"""Run all networks on a collection of images: judges, CXAS's masks of organs, and texture.

    python -m workflow_scripts.faithfulness.look --collection sd_v1_4 --protocol sound \\
        --manifest results/cohort/manifest.parquet --prompts results/cohort/prompts/test.parquet \\
        --shards results/generate/sd_v1_4/test/part-*.parquet \\
        --cxas weights/cxas/UNet_ResNet50_default.pth --cxas-size 512 --batch-size 16 \\
        --classifier results/downstream/classification/real_only/real/network-*.safetensors \\
        --texture-images 1000 --output results/faithfulness/seen/sd_v1_4.parquet

`--collection real`, without shards, takes all radiographs of the test split. Each image is decoded
once and passes through all networks. Scoring reads the output and needs no network.
"""

import argparse
import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.common.devices import device_name
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.common.squares import middle
from workflow_scripts.downstream.segmentation.cxas import prepare
from workflow_scripts.faithfulness.anatomy import measure
from workflow_scripts.faithfulness.classes import CLASSES, RIBS
from workflow_scripts.faithfulness.collection import collection_of
from workflow_scripts.faithfulness.judges import Judge
from workflow_scripts.faithfulness.networks import add_network_flags, load_networks
from workflow_scripts.faithfulness.organs import (
    Labeller,
    draw_and_find,
)
from workflow_scripts.faithfulness.seen import (
    ANATOMY,
    REAL,
    pack_organs,
    pack_structures,
    probability_column,
    write_seen,
)
from workflow_scripts.faithfulness.ssim import multiscale_ssim
from workflow_scripts.faithfulness.texture import (
    LEARNED_SIDE,
    at_common_resolution,
    log_power_spectrum,
    noise_variance,
    signal_dependence,
)

log = logging.getLogger(__name__)

_TEXTURE: Final = ("spectrum", "noise", "signal_dependence")


def main(argv: list[str] | None = None) -> None:
    """Look at one collection from the command line."""
    args = _arguments(argv)
    networks = load_networks(args)
    rows, items = collection_of(args)
    owners = rows["patient_id"].to_numpy(str)
    drawn = drawn_pairs(owners, args.texture_images, draw_seed(rows["id"]))
    textured = {rows["id"].iloc[row] for pair in drawn for row in pair}
    meter = Progress(f"looking at {args.collection}", len(rows), "images")
    columns: dict[str, list[Any]] = {}
    gray_of: dict[str, np.ndarray] = {}
    for batch in _batches(items, args, networks.judges, textured):
        seen = look_at(batch, networks.judges, networks.labeller)
        for name, values in seen.items():
            columns.setdefault(name, []).extend(values)
        gray_of |= {item.id: gray for item, _, _, gray in batch if gray is not None}
        meter.update(len(batch))
    if sorted(columns["id"]) != sorted(rows["id"]):
        raise InputError("images are missing", f"the images of {args.collection}")
    ordered = rows.set_index("id").loc[columns["id"]]
    columns["image_id"] = ordered["image_id"].tolist()
    columns["patient_id"] = ordered["patient_id"].tolist()
    names = rows["id"].tolist()
    pairs = [(names[i], names[j]) for i, j in drawn]
    settings = {
        **networks.settings,
        "texture_images": args.texture_images,
        "learned_side": LEARNED_SIDE,
    }
    run = {
        "collection": args.collection,
        "settings": settings,
        "pairs": [[a, b, multiscale_ssim(gray_of[a], gray_of[b])] for a, b in pairs],
        "provenance": provenance(settings, device_name(networks.device)),
    }
    write_seen(args.output, columns, run)
    log.info("%d images, texture of %d", len(rows), len(textured))


def draw_seed(ids: Iterable[str]) -> int:
    """Return the seed of a collection's draw of pairs, from its ids in any order.

    It does not depend on the seed of the scores' bootstrap. So a change of that seed reruns the
    scores alone.
    """
    return int.from_bytes(hashlib.sha256("\n".join(sorted(ids)).encode()).digest()[:8], "big")


def drawn_pairs(patients: np.ndarray, images: int, seed: int) -> list[tuple[int, int]]:
    """Draw pairs of images of different patients, with each image in one pair at most.

    Args:
        patients: (n,), the patient of each image.
        images: largest number of images in the pairs.
        seed: seed of the draw; the same patients and seed give the same pairs.

    Returns:
        Row numbers.
    """
    order = np.random.default_rng(seed).permutation(len(patients))[:images].tolist()
    pairs = []
    while order:
        first = order.pop()
        other = next((row for row in order if patients[row] != patients[first]), None)
        if other is not None:
            order.remove(other)
            pairs.append((first, other))
    return pairs


_Prepared = tuple[ImageItem, Tensor, list[Any], np.ndarray | None]
"""An image's id, the inputs of CXAS and of each judge, and the pixels for texture if drawn."""


def _batches(
    items: Iterator[ImageItem],
    args: argparse.Namespace,
    judges: Sequence[Judge],
    textured: set[str],
) -> Iterator[list[_Prepared]]:
    def decode(item: ImageItem) -> _Prepared:
        image = item.open()
        # Models learn the central square of a film. Anatomy and texture are measured on it as well.
        square = middle(image)
        gray = at_common_resolution(image) if item.id in textured else None
        inputs = [judge.prepare(image) for judge in judges]
        return ImageItem(item.id, item.path), prepare(square, args.cxas_size), inputs, gray

    with ThreadPoolExecutor(max(1, args.threads)) as pool:
        ahead = None
        while True:
            batch = list(itertools.islice(items, args.batch_size))
            coming = [pool.submit(decode, item) for item in batch]
            if ahead is not None:
                yield [future.result() for future in ahead]
            if not batch:
                return
            ahead = coming


def look_at(
    batch: Sequence[_Prepared], judges: Sequence[Judge], labeller: Labeller
) -> dict[str, list[Any]]:
    """Return the columns of `seen` for a batch of images."""
    masks, present = draw_and_find(
        labeller, torch.stack([tensor for _, tensor, _, _ in batch]), tuple(CLASSES)
    )
    anatomies = [
        measure({name: drawn[k] for name, drawn in masks.items()}) for k in range(len(batch))
    ]
    columns: dict[str, list[Any]] = {"id": [item.id for item, *_ in batch]}
    for name in ANATOMY:
        columns[name] = [getattr(anatomy, name) for anatomy in anatomies]
    columns["ribs"] = present[:, RIBS[0] : RIBS[-1] + 1].sum(1).tolist()
    columns["structures"] = pack_structures(present)
    columns["organs"] = pack_organs(masks)
    for k, judge in enumerate(judges):
        scores = judge.judge([inputs[k] for _, _, inputs, _ in batch])
        columns[probability_column(judge.key)] = list(scores)
    textures = [_texture(gray) for *_, gray in batch]
    for k, name in enumerate(_TEXTURE):
        columns[name] = [None if texture is None else texture[k] for texture in textures]
    return columns


def _texture(gray: np.ndarray | None) -> tuple[np.ndarray, float, float] | None:
    if gray is None:
        return None
    return log_power_spectrum(gray), noise_variance(gray), signal_dependence(gray)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--collection", required=True, help="key of the model; `real` for the test radiographs")
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="the test prompt set")
    add("--shards", nargs="*", default=[], type=Path, help="the model's test images")
    add("--texture-images", required=True, type=int, help="largest number of images for texture")
    add("--output", required=True, type=Path)
    add_network_flags(parser)
    args = parser.parse_args(argv)
    if (args.collection == REAL) != (not args.shards):
        parser.error("--shards belongs to a model, and to it alone")
    return args


if __name__ == "__main__":
    run_script(main)
