"""Collections of images: a model's images of the test prompts, or the test radiographs."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, find_in_shards
from workflow_scripts.common.manifest import read_manifest, read_prompts, scored_prompts
from workflow_scripts.downstream.data import check_complete, manifest_rows
from workflow_scripts.faithfulness.seen import REAL


def collection_of(args: argparse.Namespace) -> tuple[pd.DataFrame, Iterator[ImageItem]]:
    """Return the rows of a collection (`id`, `image_id`, `patient_id`), and its images.

    For a generated image, `image_id` and `patient_id` are those of its prompt's radiograph.

    Args:
        args: `collection`, `manifest`, `prompts`, `shards` and `protocol`.

    Raises:
        InputError: see `check_complete` and `manifest_rows`; or the test split is empty.
    """
    if args.collection == REAL:
        return test_radiographs(args.manifest)
    manifest = read_manifest(args.manifest)
    every = read_prompts(args.prompts)
    check_complete(args.shards, every)
    prompts = scored_prompts(every, args.protocol)
    rows = prompts[["prompt_id", "image_id"]].rename(columns={"prompt_id": "id"})
    radiographs = manifest_rows(manifest, rows["image_id"].tolist(), str(args.prompts))
    rows = rows.reset_index(drop=True).assign(patient_id=radiographs["patient_id"])
    return rows, find_in_shards(args.shards, set(rows["id"]))


def test_radiographs(manifest: Path) -> tuple[pd.DataFrame, Iterator[ImageItem]]:
    """Return the radiographs of the test split, as `collection_of` does.

    Raises:
        InputError: the test split is empty.
    """
    every = read_manifest(manifest)
    test = every[every["split"] == "test"].reset_index(drop=True)
    if test.empty:
        raise InputError("the manifest has no image in the test split", manifest)
    items = (ImageItem(i, p) for i, p in zip(test["image_id"], test["path"], strict=True))
    return test[["image_id", "patient_id"]].assign(id=test["image_id"]), items
