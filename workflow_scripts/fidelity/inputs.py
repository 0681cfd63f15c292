"""Reading the feature files of a model that is scored, and checking that they may be compared.

Every attribute of a file is compared with what the reader expects or with the comparison's other
files, except those that say where and by which job it was computed. Different library versions only
give a warning in the log: a new version need not change anything, and one table may combine files
of several years.
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError
from workflow_scripts.features.cache import COUNTS, Features, read_features

log = logging.getLogger(__name__)

REAL: Final = "real"
"""The name of the collection of radiographs."""

_ORIGIN: Final = ("encoder", "weights_sha256", "preprocessing")


@dataclass(frozen=True)
class ScoredModel:
    """A model, and the files that its scores read.

    Attributes:
        key: the model's key in the config.
        protocol: `sound` or `as_published`.
        manifest: the cohort's manifest.
        prompts: the prompt set that its images were made from.
        real: the folder of the radiographs' features.
        generated: the folder of the features of its images.
    """

    key: str
    protocol: str
    manifest: Path
    prompts: Path
    real: Path
    generated: Path


def model_arguments(description: str, prompt_set: str, real: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that the scores of one model share.

    Args:
        description: what the script does.
        prompt_set: the name of the prompt set.
        real: the radiographs that the images are compared with, for the help.
    """
    parser = argparse.ArgumentParser(description=description)
    add: Callable[..., Any] = parser.add_argument
    add("--model", required=True, help="the model's key in the config")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help=f"the prompt set `{prompt_set}`")
    add("--real", required=True, type=Path, help=f"folder of {real}' features")
    add("--generated", required=True, type=Path, help="folder of the model's features")
    add("--threads", type=int, default=1)
    add("--output", required=True, type=Path)
    return parser


def model_of(args: argparse.Namespace) -> ScoredModel:
    """Return the model that the arguments of `model_arguments` name."""
    files = (args.manifest, args.prompts, args.real, args.generated)
    return ScoredModel(args.model, args.protocol, *files)


def read_encoder(
    folder: Path, encoder: str, protocol: str, collection: str, purpose: str
) -> Features:
    """Read one encoder's feature file of a collection.

    Args:
        folder: the folder with `{encoder}.h5`.
        encoder: the encoder's name.
        protocol: the protocol that the features must have been computed under.
        collection: the collection: `real`, or a model's key.
        purpose: the stage that the images were prepared for (`fidelity` or `privacy`).

    Raises:
        InputError: the file is missing, damaged, changed, or belongs to another encoder, protocol,
            collection or purpose.
    """
    expect = {
        "encoder": encoder,
        "protocol": protocol,
        "collection": collection,
        "purpose": purpose,
    }
    return read_features(folder / f"{encoder}.h5", expect)


def read_comparable(
    real_folder: Path,
    generated_folder: Path,
    encoder: str,
    protocol: str,
    model: str,
    purpose: str,
) -> tuple[Features, Features]:
    """Read one encoder's features of the radiographs and of a model's images.

    Raises:
        InputError: see `read_encoder`; or the two differ in weights or preprocessing, so that
            distances between them would be meaningless.
    """
    real = read_encoder(real_folder, encoder, protocol, REAL, purpose)
    generated = read_encoder(generated_folder, encoder, protocol, model, purpose)
    require_comparable(real, generated, f"{encoder}.h5 of {real_folder} and {generated_folder}")
    return real, generated


def require_comparable(real: Features, generated: Features, where: str) -> None:
    """Refuse features of two collections that were not computed by the same network.

    Raises:
        InputError: weights, preprocessing or dimensions differ; the message gives both values.
    """
    differing = [key for key in _ORIGIN if real.attrs[key] != generated.attrs[key]]
    if real.features.shape[1] != generated.features.shape[1]:
        differing.append("number of dimensions")
    if differing:
        differences = "; ".join(
            f"{key} {real.attrs[key]!r} and {generated.attrs[key]!r}"
            for key in differing
            if key in _ORIGIN
        )
        raise InputError(
            f"features of another {', '.join(differing)} are not comparable: {differences}",
            where,
            "rerun the features stage for both with the same weights",
        )
    versions, other_versions = (
        json.loads(features.attrs["versions"]) for features in (real, generated)
    )
    for library in sorted(versions.keys() | other_versions.keys()):
        if versions.get(library) != other_versions.get(library):
            log.warning(
                "%s: made with %s %s and %s",
                where,
                library,
                versions.get(library),
                other_versions.get(library),
            )


def require_same_images(first: Features, second: Features, where: Path) -> None:
    """Refuse features of two encoders that were computed from different images.

    Raises:
        InputError: the digests of the two collections differ.
    """
    key = "collection_sha256"
    if first.attrs[key] != second.attrs[key]:
        raise InputError(
            f"{first.attrs['encoder']} and {second.attrs['encoder']} are of other images: "
            f"{key} {first.attrs[key]!r} and {second.attrs[key]!r}",
            where,
            "rerun the features stage for this collection",
        )


def rows_of(
    table_ids: Iterable[str], ids: Sequence[str], where: str | Path, table: str
) -> np.ndarray:
    """Return the row numbers of some ids in a table, whose own ids are unique.

    Raises:
        InputError: an id is missing; the message names it, `table` and `where`.
    """
    position = {name: row for row, name in enumerate(table_ids)}
    rows = np.array([position.get(name, -1) for name in ids], dtype=np.int64)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise InputError(
            f"{len(missing)} id(s) are not in the {table}, first {ids[missing[0]]!r}",
            where,
            "the two come from different runs: rerun the stages from cohort on",
        )
    return rows


def rows_in_order_of(leader: Features, other: Features, where: Path) -> np.ndarray:
    """Return the rows of `other` in the order of the ids of `leader`.

    Raises:
        InputError: the two hold different images.
    """
    require_same_images(leader, other, where)
    if len(leader.ids) != len(other.ids):
        raise InputError(
            f"{other.attrs['encoder']} has {len(other.ids)} images, "
            f"{leader.attrs['encoder']} {len(leader.ids)}",
            where,
            "rerun the features stage for this collection",
        )
    return rows_of(other.ids, leader.ids, where, f"features of {other.attrs['encoder']}")


def of_prompts(
    features: Features, prompts: pd.DataFrame, every_prompt: pd.DataFrame, where: Path
) -> Features:
    """Return the features of some prompts' images, in their order in the file.

    Args:
        features: features of a generated collection.
        prompts: the prompts whose images are kept; prompts without an image are ignored.
        every_prompt: the whole prompt set.
        where: the features' folder, for errors.

    Raises:
        InputError: an image belongs to no prompt of the set.
    """
    rows_of(every_prompt["prompt_id"], features.ids, where, "prompt set")
    chosen = set(prompts["prompt_id"])
    rows = [row for row, name in enumerate(features.ids) if name in chosen]
    if len(rows) == len(features.ids):
        return features
    sources = features.source_ids
    return replace(
        features,
        features=features.features[rows],
        ids=[features.ids[row] for row in rows],
        source_ids=None if sources is None else [sources[row] for row in rows],
        extras={name: values[rows] for name, values in features.extras.items()},
    )


def patients_of_prompts(
    features: Features, prompts: pd.DataFrame, manifest: pd.DataFrame, where: Path
) -> np.ndarray:
    """Return the patient of each generated image's prompt, (n,), in the order of the features.

    This also holds for a control, because the radiograph that it shows was chosen for the prompt.

    Args:
        features: features of a generated collection.
        prompts: the prompt set.
        manifest: `image_id` and `patient_id`, at least.
        where: the folder of the features, for errors.

    Raises:
        InputError: an image belongs to no prompt, or the manifest lacks a prompt's radiograph.
    """
    rows = rows_of(prompts["prompt_id"], features.ids, where, "prompt set")
    radiographs = list(prompts["image_id"].iloc[rows])
    rows = rows_of(manifest["image_id"], radiographs, where, "manifest")
    return manifest["patient_id"].iloc[rows].to_numpy(str)


def origin(features: Features) -> dict[str, Any]:
    """Return what identifies a feature file for a record's provenance, with its image counts."""
    identity = {key: features.attrs[key] for key in (*_ORIGIN, "collection", "collection_sha256")}
    return identity | {key: features.attrs[key] for key in COUNTS if key in features.attrs}


def digest_of(ids: Sequence[str]) -> str:
    """Return the hex sha256 of ids in their order: it identifies them without naming patients."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
