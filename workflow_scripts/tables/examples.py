"""Example images for the report: the same captions across models, the real image beside them."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import (
    decode_image,
    find_in_shards,
    gray_if_colourless,
    read_shard_ids,
)
from workflow_scripts.common.manifest import (
    FINDINGS,
    read_manifest,
    read_prompts,
    scored_prompts,
)
from workflow_scripts.tables.models import ModelEntry

CAPTIONS: Final = 6
_SIDE: Final = 320
_QUALITY: Final = 82

_SHOWN_FIRST: Final = (
    "No Finding",
    "Cardiomegaly",
    "Pleural Effusion",
    "Support Devices",
    "Edema",
    "Pneumothorax",
)
"""Well-known findings; one caption of each is shown first, if there is one."""


@dataclass(frozen=True)
class Shown:
    """An image with its label and caption.

    Attributes:
        label: the model's name, or `Real`.
        uri: the image as a data URI; None if there is none.
        caption: its caption. A control may show another radiograph with a caption of its own.
    """

    label: str
    uri: str | None
    caption: str


@dataclass(frozen=True)
class Example:
    """One caption and its images.

    Attributes:
        caption: the prompt.
        findings: findings labelled positive on the real image.
        images: the real image, then each model's.
    """

    caption: str
    findings: tuple[str, ...]
    images: tuple[Shown, ...]


@dataclass(frozen=True)
class Gallery:
    """The examples, and the names of models that have no image of their captions."""

    examples: tuple[Example, ...]
    left_out: tuple[str, ...]


def parse_images(pairs: Sequence[str], flag: str = "--images") -> dict[str, list[Path]]:
    """Parse `MODEL=FILE` arguments; a model's files keep their order.

    Raises:
        InputError: an argument without `=`.
    """
    files: dict[str, list[Path]] = {}
    for pair in pairs:
        model, equals, path = pair.partition("=")
        if not equals or not model or not path:
            raise InputError(f"MODEL=FILE was expected, not {pair!r}", flag)
        files.setdefault(model, []).append(Path(path))
    return files


def gallery(
    files: dict[str, list[Path]],
    models: Sequence[ModelEntry],
    prompts: str | Path,
    manifest: str | Path,
) -> Gallery:
    """Choose captions that the models share and return their images as small data URIs.

    Args:
        files: image shards per model; they need not be all of a model's.
        models: in the order of the columns.
        prompts: the test prompt set.
        manifest: where the real images are.

    Raises:
        InputError: an unknown model, or an image that cannot be decoded.
    """
    unknown = sorted(set(files) - {model.key for model in models})
    if unknown:
        raise InputError(f"images of unknown model(s): {', '.join(unknown)}", "--images")
    with_images = [model for model in models if model.key in files]
    ids = {model.key: set(read_shard_ids(files[model.key])) for model in with_images}
    table = scored_prompts(read_prompts(prompts), "sound")
    chosen = choose(table, with_images, ids)
    columns = [model for model in with_images if ids[model.key] & set(chosen)]
    left_out = tuple(model.name for model in with_images if model not in columns)
    real = read_manifest(manifest, ["image_id", "path"]).set_index("image_id")["path"].to_dict()
    thumbnails = {
        model.key: dict(_thumbnails(files[model.key], ids[model.key] & set(chosen)))
        for model in columns
    }
    rows = {row["prompt_id"]: row for row in table.to_dict("records")}
    examples = []
    for prompt_id in chosen:
        row = rows[prompt_id]
        path = real.get(row["image_id"])
        first = thumbnail(decode_image(Path(path), path)) if path is not None else None
        images = [Shown("Real", first, row["caption"])]
        for model in columns:
            uri, caption = thumbnails[model.key].get(prompt_id, (None, row["caption"]))
            images.append(Shown(model.name, uri, caption))
        positive = tuple(name for name in FINDINGS if row[name] is not pd.NA and row[name] == 1)
        examples.append(Example(row["caption"], positive, tuple(images)))
    return Gallery(tuple(examples), left_out)


def choose(
    prompts: pd.DataFrame, models: Sequence[ModelEntry], ids: dict[str, set[str]]
) -> list[str]:
    """Choose prompt ids: one for each well-known finding, those with the plainest captions first.

    Only prompts that all models have are chosen; controls may lack them, since some show other
    captions by design.
    """
    competing = [model for model in models if not model.is_control] or list(models)
    if not competing:
        return []
    shared = set.intersection(*(ids[model.key] for model in competing)) & set(prompts["prompt_id"])
    pool = prompts[prompts["prompt_id"].isin(shared)].copy()
    pool["positives"] = (pool[list(FINDINGS)] == 1).sum(axis=1)
    pool["length"] = pool["caption"].str.len()
    pool = pool.sort_values(["positives", "length", "prompt_id"], kind="stable")
    chosen: list[str] = []
    for finding in _SHOWN_FIRST:
        having = pool[(pool[finding] == 1) & ~pool["prompt_id"].isin(chosen)]
        chosen += having["prompt_id"].head(1).tolist()
    chosen += [prompt for prompt in pool["prompt_id"] if prompt not in chosen]
    return chosen[:CAPTIONS]


def thumbnail(image: Image.Image) -> str:
    """Return a JPEG of at most 320 pixels a side as a data URI; gray images become gray."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    small = gray_if_colourless(small)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _thumbnails(
    paths: Sequence[Path], prompt_ids: set[str]
) -> Iterator[tuple[str, tuple[str, str]]]:
    for item in find_in_shards(paths, prompt_ids):
        yield item.id, (thumbnail(item.open()), item.caption or "")
