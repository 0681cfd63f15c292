"""Write the files of a curated set, after a search for what must not be published."""

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.images import ImageItem, find_in_shards
from workflow_scripts.common.manifest import FINDINGS, TEMPLATE, read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.curate.lenses import LENS_SCHEMA, LENSES
from workflow_scripts.curate.plant import square_gray
from workflow_scripts.curate.search import check_images, check_texts, cohort_texts
from workflow_scripts.curate.set_files import set_files
from workflow_scripts.curate.settings import CurateSettings
from workflow_scripts.privacy.private_table import read_private_table, write_private_table

ROWS_PER_GROUP: Final = 32
"""Rows of a row group of a Parquet file: what a viewer reads at once."""

SCORES: Final = (*LENSES, "density")
"""The scores of each image, in the columns `score_{name}`."""

CHOSEN_SCHEMA: Final = pa.schema(
    [pa.field("file", pa.string()), pa.field("prompt_id", pa.string())]
)
"""The table of which pool image each file of the set is; for its owner alone."""


def set_schema(prompts: bool) -> pa.Schema:
    """Return the columns of a curated set, with the metadata by which `datasets` shows images.

    Args:
        prompts: whether the set has a column of prompts.
    """
    fields = [
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *(pa.field(name, pa.int8()) for name in FINDINGS),
        *([pa.field("prompt", pa.string())] if prompts else []),
        *(pa.field(f"score_{name}", pa.float64()) for name in SCORES),
    ]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for field in fields[1:]:
        kind = str(field.type).replace("double", "float64")
        features[field.name] = {"dtype": kind, "_type": "Value"}
    metadata = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": metadata})


def write_set(args: argparse.Namespace, policy: CurateSettings, chosen: pd.DataFrame) -> None:
    """Search what is to be published, and write the set and the table of its images.

    Args:
        args: of the command line.
        policy: whether prompts go with the images.
        chosen: the rows of the pool (`FilteredPool.pool`) that are in the set, in its order.

    Raises:
        InputError: the set would hold captions, ids or real images of the cohort; nothing is
            written.
    """
    file_of = {name: f"{args.model}-{k:06d}.png" for k, name in enumerate(chosen["id"])}
    images = {item.id: item for item in find_in_shards(args.shards, set(file_of))}
    _check_texts(args, policy, chosen, list(file_of.values()))
    _check_images(args, chosen, images, file_of)
    prompts = policy.published_prompts != "withheld"
    labels = read_prompts(args.prompts).set_index("prompt_id").loc[chosen["id"], list(FINDINGS)]
    names = set_files(policy.images)
    parts = np.array_split(np.arange(len(chosen)), len(names))
    with ExitStack() as whole:  # all files, or none
        for file, part in zip(names, parts, strict=True):
            rows = [
                {
                    "image": {"bytes": images[name].data, "path": file_of[name]},
                    **{f: None if pd.isna(v) else int(v) for f, v in labels.iloc[k].items()},
                    **({"prompt": chosen["caption"].iloc[k]} if prompts else {}),
                    **{f"score_{s}": float(chosen[s].iloc[k]) for s in SCORES},
                }
                for k, name in zip(part, chosen["id"].iloc[part], strict=True)
            ]
            path = whole.enter_context(whole_file(args.output / "dataset" / "data" / file))
            table = pa.Table.from_pylist(rows, set_schema(prompts))
            pq.write_table(table, path, compression="zstd", row_group_size=ROWS_PER_GROUP)
    table = pd.DataFrame({"file": list(file_of.values()), "prompt_id": list(file_of)}, dtype=object)
    write_private_table(table, CHOSEN_SCHEMA, args.output / "chosen.parquet")


def _check_texts(
    args: argparse.Namespace, policy: CurateSettings, chosen: pd.DataFrame, files: list[str]
) -> None:
    """Check that prompts and file names hold no id, and no caption that may not be published."""
    templates = (chosen["caption_source"] == TEMPLATE).all()
    if policy.published_prompts == "templates" and not templates:
        raise InputError(
            "prompts are to be published, and the pool's are captions of patients",
            args.prompts,
            "set curate.pool: stress, or curate.published_prompts: withheld or captions",
        )
    ids, passages = cohort_texts(args.searched_manifests, args.searched_prompts)
    texts = [("a file name", " ".join([args.model, *files]))]
    if policy.published_prompts != "withheld":
        texts += [("the column of prompts", text) for text in chosen["caption"]]
    # The policy may allow captions, for credentialed users. It never allows ids.
    check_texts(texts, ids, [] if policy.published_prompts == "captions" else passages)


def _check_images(
    args: argparse.Namespace,
    chosen: pd.DataFrame,
    images: dict[str, ImageItem],
    file_of: dict[str, str],
) -> None:
    """Check that no image of the set is a real radiograph or a planted leak."""
    lenses = read_private_table(args.lenses, LENS_SCHEMA)
    real = set(lenses.loc[lenses["group"] != "pool", "digest"])
    manifest = read_manifest(args.manifest, ["image_id", "path"])
    film_of = dict(zip(manifest["image_id"], manifest["path"], strict=True))
    meter = Progress("comparing with closest radiographs", len(chosen), "images")

    def compared() -> Iterator[tuple[str, Image.Image, list[Image.Image]]]:
        closest = (chosen[name] for name in ("id", "nearest_image_id", "latent_image_id"))
        for name, *films in zip(*closest, strict=True):
            image = images[name].open()
            side = min(image.size)
            yield file_of[name], image, [square_gray(film_of[f], side) for f in sorted(set(films))]
            meter.update()

    check_images(compared(), real)
