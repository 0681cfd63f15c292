"""Feature files read for a comparison: of the right images and encoder, of one origin and order.

Every attribute of a file is compared with what the reader expects or with the other files of the
comparison, but those that say where and by which job it was computed. Other versions of the
libraries are named in the log: a new one need not move anything, and files of several years may
stand in one table.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.errors import InputError
from workflow_scripts.features.cache import COUNTS, Features, read_features

log = logging.getLogger(__name__)

REAL: Final = "real"
"""The collection of radiographs."""

_ORIGIN: Final = ("encoder", "weights_sha256", "preprocessing")


def read_encoder(
    folder: Path, encoder: str, protocol: str, collection: str, purpose: str
) -> Features:
    """Read one encoder's file of a collection's folder.

    Args:
        folder: holds `{encoder}.h5`.
        encoder: its name.
        protocol: under which it was made.
        collection: whose images: `real`, or a model's key.
        purpose: what the images were prepared for (`fidelity` or `privacy`).

    Raises:
        InputError: it is missing, damaged, changed, or of another encoder, protocol, collection or
            purpose.
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
    """Read one encoder's files of radiographs and of a model's images.

    Raises:
        InputError: see `read_encoder`; or the two come from other weights or preprocessing, and
            distances between them would mean nothing.
    """
    real = read_encoder(real_folder, encoder, protocol, REAL, purpose)
    generated = read_encoder(generated_folder, encoder, protocol, model, purpose)
    require_comparable(real, generated, f"{encoder}.h5 of {real_folder} and {generated_folder}")
    return real, generated


def require_comparable(real: Features, generated: Features, where: str) -> None:
    """Refuse two collections' features of one encoder that do not come from the same network.

    Raises:
        InputError: other weights, preprocessing or dimensions; each is named with both values.
    """
    differing = [key for key in _ORIGIN if real.attrs[key] != generated.attrs[key]]
    if real.features.shape[1] != generated.features.shape[1]:
        differing.append("number of dimensions")
    if differing:
        told = "; ".join(
            f"{key} {real.attrs[key]!r} and {generated.attrs[key]!r}"
            for key in differing
            if key in _ORIGIN
        )
        raise InputError(
            f"features of another {', '.join(differing)} are not comparable: {told}",
            where,
            "rerun the features stage for both with the same weights",
        )
    one, other = (json.loads(features.attrs["versions"]) for features in (real, generated))
    for library in sorted(one.keys() | other.keys()):
        if one.get(library) != other.get(library):
            log.warning(
                "%s: made with %s %s and %s", where, library, one.get(library), other.get(library)
            )


def require_same_images(first: Features, second: Features, where: Path) -> None:
    """Refuse features of two encoders that are not of the same images.

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
    known: Iterable[str], wanted: Sequence[str], where: str | Path, table: str
) -> np.ndarray:
    """Return the row numbers of `wanted` among the unique ids `known`.

    Raises:
        InputError: an id is not there; the message names it, `table` and `where`.
    """
    position = {name: row for row, name in enumerate(known)}
    rows = np.array([position.get(name, -1) for name in wanted], dtype=np.int64)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise InputError(
            f"{len(missing)} id(s) are not in the {table}, first {wanted[missing[0]]!r}",
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
    features: Features, prompts: pd.DataFrame, known: pd.DataFrame, where: Path
) -> Features:
    """Return the features of the images of some prompts, in their order in the file.

    Args:
        features: of a generated collection.
        prompts: whose images are kept; one without an image is left out.
        known: the whole prompt set.
        where: the features' folder, for errors.

    Raises:
        InputError: an image of no prompt of the set.
    """
    rows_of(known["prompt_id"], features.ids, where, "prompt set")
    wanted = set(prompts["prompt_id"])
    rows = [row for row, name in enumerate(features.ids) if name in wanted]
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


def origin(features: Features) -> dict[str, Any]:
    """Return what identifies a feature file and counts its copies, for a record's provenance."""
    said = {key: features.attrs[key] for key in (*_ORIGIN, "collection", "collection_sha256")}
    return said | {key: features.attrs[key] for key in COUNTS if key in features.attrs}


def digest_of(ids: Sequence[str]) -> str:
    """Return the hex sha256 of ids in their order: who was compared, without naming anybody."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
