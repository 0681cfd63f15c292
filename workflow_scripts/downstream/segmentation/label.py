"""Segment a collection of images with CXAS: the task's radiographs or a model's images.

The masks are pseudo-masks: they stand in for masks drawn by a radiologist.

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
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workflow_scripts.common.ahead import ahead
from workflow_scripts.common.devices import device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import ImageItem, find_in_shards
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.downstream.data import check_complete, manifest_rows
from workflow_scripts.downstream.segmentation.cxas import (
    Cxas,
    check_classes,
    draw_masks,
    load_cxas,
    prepare,
)
from workflow_scripts.downstream.segmentation.masks import Mask, encode_mask, write_masks
from workflow_scripts.downstream.segmentation.settings import DrawSettings, LabellerSettings

log = logging.getLogger(__name__)

REAL: Final = "real"
_BATCHES_AHEAD: Final = 2  # decoded while the network computes one batch
_Decoded = tuple[ImageItem, tuple[int, int], Tensor]


def main(argv: list[str] | None = None) -> None:
    """Run the script; see `--help`."""
    args, labeller, draw = _arguments(argv)
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    torch.backends.cudnn.deterministic = True
    network = load_cxas(labeller.weights).to(device)
    check_classes(network, labeller.classes, labeller.weights)
    prompts = drawn_prompts(read_prompts(args.prompts), draw.images, draw.draw_seed)
    if args.model == REAL:
        rows = real_rows(read_manifest(args.manifest), prompts, str(args.prompts))
        items = [ImageItem(i, p) for i, p in zip(rows["image_id"], rows["path"], strict=True)]
        total, stream = len(items), iter(items)
    else:
        check_complete(args.shards, read_prompts(args.prompts))
        prompt_ids = set(prompts["prompt_id"])
        total, stream = len(prompt_ids), find_in_shards(args.shards, prompt_ids)
    masks, empty, share = [], 0, 0.0
    meter = Progress(f"masks of {args.model}", total, "images")
    for batch in _drawn(network, stream, labeller, args.threads, device):
        for item, image_size, mask in batch:
            masks.append(Mask(item.id, encode_mask(mask), image_size))
            empty += not mask.any()
            share += float(mask.mean())
        meter.update(len(batch))
    drawn_by = {
        "weights_sha256": sha256_of(labeller.weights),
        "classes": list(labeller.classes),
        "size": labeller.size,
    }
    drawn = {
        "images": len(prompts),
        "asked_for": draw.images,
        "seed": draw.draw_seed,
        "prompts_sha256": hashlib.sha256("\n".join(prompts["prompt_id"]).encode()).hexdigest(),
    }
    run = {
        "model": args.model,
        "labeller": drawn_by,
        "draw": drawn,
        "n": len(masks),
        "n_empty": empty,
        "mean_share": share / len(masks),
        "provenance": provenance({**drawn_by, **drawn}, device_name(device)),
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
    network: Cxas,
    items: Iterator[ImageItem],
    labeller: LabellerSettings,
    threads: int,
    device: torch.device,
) -> Iterator[list[tuple[ImageItem, tuple[int, int], np.ndarray]]]:
    """Yield batches of (image, its size, its mask); threads decode images ahead."""

    def decode(item: ImageItem) -> _Decoded:
        image = item.open()
        light = ImageItem(item.id, item.path)
        return light, image.size, prepare(image, labeller.size)

    batches = iter(lambda: list(itertools.islice(items, labeller.batch_size)), [])
    with ThreadPoolExecutor(max(1, threads)) as pool:

        def begin(
            batch: list[ImageItem],
        ) -> list[Future[tuple[ImageItem, tuple[int, int], Tensor]]]:
            return [pool.submit(decode, item) for item in batch]

        for begun in ahead(batches, begin, _BATCHES_AHEAD):
            done = [future.result() for future in begun]
            prepared = torch.stack([tensor for _, _, tensor in done]).to(device)
            masks = draw_masks(network, prepared, labeller.classes)
            yield [(item, size, m) for (item, size, _), m in zip(done, masks, strict=True)]


def _arguments(
    argv: list[str] | None,
) -> tuple[argparse.Namespace, LabellerSettings, DrawSettings]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="key of the model; `real` for radiographs")
    add("--manifest", type=Path, required=True)
    add("--prompts", type=Path, required=True, help="the augment prompt set")
    add("--shards", type=Path, nargs="*", default=[], help="the model's images")
    add_flags(parser, LabellerSettings)
    add_flags(parser, DrawSettings)
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, help="the masks, Parquet")
    args = parser.parse_args(argv)
    if (args.model == REAL) != (not args.shards):
        parser.error("give --shards with the key of a model, and not with `real`")
    read = partial(settings_of_flags, flags=args, parser=parser)
    return args, read(LabellerSettings), read(DrawSettings)


if __name__ == "__main__":
    run_script(main)
