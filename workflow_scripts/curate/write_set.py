"""Write the files of a curated set, after a search for what must not be published.

The images pass one by one through the search, and row group by row group into the files. So memory
does not grow with the set. On disk the set takes its size twice while it is written.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.images import find_in_shards
from workflow_scripts.common.manifest import FINDINGS, TEMPLATE, read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.curate.gathered import Gathered, gathered
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
    _check_texts(args, policy, chosen, list(file_of.values()))
    searched = _check_images(args, chosen, file_of)
    labels = read_prompts(args.prompts).set_index("prompt_id").loc[chosen["id"], list(FINDINGS)]
    rows = chosen.assign(file=list(file_of.values())).reset_index(drop=True)
    rows = rows.join(labels.reset_index(drop=True))
    names = set_files(policy.images)
    parts = np.array_split(np.arange(len(chosen)), len(names))
    data = args.output / "dataset" / "data"
    with ExitStack() as whole:  # all files, or none
        paths = [whole.enter_context(whole_file(data / name)) for name in names]
        images = whole.enter_context(gathered(args.shards, searched, data))
        meter = Progress("writing the set", len(chosen), "images")
        for path, part in zip(paths, parts, strict=True):
            _write_file(path, rows.iloc[part], images, policy, meter)
    table = pd.DataFrame({"file": list(file_of.values()), "prompt_id": list(file_of)}, dtype=object)
    write_private_table(table, CHOSEN_SCHEMA, args.output / "chosen.parquet")


def _write_file(
    path: Path, rows: pd.DataFrame, images: Gathered, policy: CurateSettings, meter: Progress
) -> None:
    """Write one file of the set, which holds no more than one row group in memory.

    Args:
        path: the file.
        rows: its rows of the pool, with `file` and the labels.
        images: the pool's images.
        policy: whether prompts go with the images.
        meter: counts the images.
    """
    prompts = policy.published_prompts != "withheld"
    schema = set_schema(prompts)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, max(len(rows), 1), ROWS_PER_GROUP):
            group = [
                {
                    "image": {"bytes": images[row["id"]].data, "path": row["file"]},
                    **{f: None if pd.isna(row[f]) else int(row[f]) for f in FINDINGS},
                    **({"prompt": row["caption"]} if prompts else {}),
                    **{f"score_{s}": float(row[s]) for s in SCORES},
                }
                for row in rows.iloc[start : start + ROWS_PER_GROUP].to_dict("records")
            ]
            writer.write_table(pa.Table.from_pylist(group, schema))
            meter.update(len(group))


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
    args: argparse.Namespace, chosen: pd.DataFrame, file_of: dict[str, str]
) -> dict[str, bytes]:
    """Check that no image of the set is a real radiograph or a planted leak.

    Returns:
        The sha256 of each image's file, by prompt id: no other images than those that were
        searched may be written.
    """
    lenses = read_private_table(args.lenses, LENS_SCHEMA)
    real = set(lenses.loc[lenses["group"] != "pool", "digest"])
    manifest = read_manifest(args.manifest, ["image_id", "path"])
    film_of = dict(zip(manifest["image_id"], manifest["path"], strict=True))
    closest = {
        name: sorted(set(films))
        for name, *films in zip(
            *(chosen[key] for key in ("id", "nearest_image_id", "latent_image_id")), strict=True
        )
    }
    meter = Progress("comparing with closest radiographs", len(chosen), "images")
    searched: dict[str, bytes] = {}

    def compared() -> Iterator[tuple[str, Image.Image, list[Image.Image]]]:
        for item in find_in_shards(args.shards, set(file_of)):
            image = item.open()
            searched[item.id] = hashlib.sha256(item.data or b"").digest()
            films = [square_gray(film_of[name], min(image.size)) for name in closest[item.id]]
            yield file_of[item.id], image, films
            meter.update()

    check_images(compared(), real)
    if missing := len(file_of) - len(searched):
        raise InputError(
            f"{missing} image(s) of the set are not in the pool",
            args.lenses,
            "rerun the curate stage from curate_plant on",
        )
    return searched
