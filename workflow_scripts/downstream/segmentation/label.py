"""Segment a collection by CXAS (pseudo-masks): the radiographs of the task, or a model's images.

python -m workflow_scripts.downstream.segmentation.label --model real
    --manifest results/cohort/manifest.parquet --prompts results/cohort/prompts/augment.parquet
    --weights weights/cxas/UNet_ResNet50_default.pth --classes 31 32 --size 512 --batch-size 16
    --images 3000 --draw-seed 42 --output results/downstream/segmentation/masks/real.parquet

`--images` of the augment prompts are drawn, the same for all models. The collection `real` holds
the radiographs of these prompts and of the test split. A model's collection holds its images of
these prompts, from --shards.
"""

import argparse
import hashlib
import itertools
import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import ImageItem, find_in_shards
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.downstream.data import check_complete, manifest_rows
from workflow_scripts.downstream.segmentation.cxas import (
    Cxas,
    check_classes,
    draw_masks,
    load_cxas,
    prepare,
)
from workflow_scripts.downstream.segmentation.masks import Mask, encode_mask, write_masks

log = logging.getLogger(__name__)

REAL: Final = "real"
_BATCHES_AHEAD: Final = 2  # decoded while one is computed


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    torch.backends.cudnn.deterministic = True
    network = load_cxas(args.weights).to(device)
    check_classes(network, args.classes, args.weights)
    prompts = drawn_prompts(read_prompts(args.prompts), args.images, args.draw_seed)
    if args.model == REAL:
        rows = real_rows(read_manifest(args.manifest), prompts, str(args.prompts))
        items = [ImageItem(i, p) for i, p in zip(rows["image_id"], rows["path"], strict=True)]
        total, stream = len(items), iter(items)
    else:
        check_complete(args.shards, read_prompts(args.prompts))
        wanted = set(prompts["prompt_id"])
        total, stream = len(wanted), find_in_shards(args.shards, wanted)
    masks, empty, share = [], 0, 0.0
    meter = Progress(f"masks of {args.model}", total, "images")
    for batch in _drawn(network, stream, args, device):
        for item, shown, mask in batch:
            masks.append(Mask(item.id, encode_mask(mask), shown))
            empty += not mask.any()
            share += float(mask.mean())
        meter.update(len(batch))
    labeller = {
        "weights_sha256": sha256_of(args.weights),
        "classes": args.classes,
        "size": args.size,
    }
    draw = {
        "images": len(prompts),
        "asked_for": args.images,
        "seed": args.draw_seed,
        "prompts_sha256": hashlib.sha256("\n".join(prompts["prompt_id"]).encode()).hexdigest(),
    }
    run = {
        "model": args.model,
        "labeller": labeller,
        "draw": draw,
        "n": len(masks),
        "n_empty": empty,
        "mean_share": share / len(masks),
        "provenance": provenance({**labeller, **draw}, device_name(device)),
    }
    write_masks(args.output, masks, run)
    log.info("%d masks, %d of them empty", len(masks), empty)


def drawn_prompts(prompts: pd.DataFrame, images: int, seed: int) -> pd.DataFrame:
    """Draw `images` prompts of a set, in its order; all of them if it has no more."""
    if images >= len(prompts):
        return prompts
    chosen = np.random.default_rng(seed).choice(len(prompts), images, replace=False)
    return prompts.iloc[np.sort(chosen)]


def real_rows(manifest: pd.DataFrame, prompts: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the manifest's rows of the prompts' radiographs, then those of the test split.

    Raises:
        InputError: a prompt's radiograph is in the test split or not in the manifest, or the test
            split is empty.
    """
    trained = manifest_rows(manifest, prompts["image_id"].drop_duplicates().tolist(), where)
    test = manifest[manifest["split"] == "test"]
    if test.empty:
        raise InputError("the manifest has no image in the test split", "the manifest")
    if (trained["split"] == "test").any():
        raise InputError(
            "prompts point to radiographs of the test split", where, "rerun the cohort stage"
        )
    return pd.concat([trained, test], ignore_index=True)


def _drawn(
    network: Cxas, items: Iterator[ImageItem], args: argparse.Namespace, device: torch.device
) -> Iterator[list[tuple[ImageItem, tuple[int, int], np.ndarray]]]:
    """Yield batches of (image, its size, its mask); threads decode images ahead."""

    def decode(item: ImageItem) -> tuple[ImageItem, tuple[int, int], Tensor]:
        image = item.open()
        light = ImageItem(item.id, item.path)
        return light, image.size, prepare(image, args.size)

    waiting: deque[list[Future[tuple[ImageItem, tuple[int, int], Tensor]]]] = deque()
    with ThreadPoolExecutor(max(1, args.threads)) as pool:
        while True:
            while len(waiting) <= _BATCHES_AHEAD:
                batch = list(itertools.islice(items, args.batch_size))
                if not batch:
                    break
                waiting.append([pool.submit(decode, item) for item in batch])
            if not waiting:
                return
            done = [future.result() for future in waiting.popleft()]
            prepared = torch.stack([tensor for _, _, tensor in done]).to(device)
            masks = draw_masks(network, prepared, args.classes)
            yield [(item, shown, m) for (item, shown, _), m in zip(done, masks, strict=True)]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="key of the model; `real` for radiographs")
    add("--manifest", type=Path, required=True)
    add("--prompts", type=Path, required=True, help="the augment prompt set")
    add("--shards", type=Path, nargs="*", default=[], help="the model's images")
    add("--weights", type=Path, required=True, help="CXAS's published network")
    add("--classes", type=int, nargs="+", required=True, help="whose union is the foreground")
    add("--size", type=int, required=True, help="side of the network's input, pixels")
    add("--batch-size", type=int, required=True)
    add("--images", type=int, required=True, help="how many prompts are drawn")
    add("--draw-seed", type=int, required=True)
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, help="the masks, Parquet")
    args = parser.parse_args(argv)
    if (args.model == REAL) != (not args.shards):
        parser.error("--shards belongs to a model, and to it alone")
    if args.images < 2 or args.size < 32 or args.batch_size < 1:
        parser.error("--images is 2 or more, --size 32 or more, --batch-size 1 or more")
    return args


if __name__ == "__main__":
    run_script(main)
