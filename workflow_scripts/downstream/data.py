"""Images and labels of the downstream tasks, decoded once into memory.

Images are kept as 8-bit luminance, (n, size, size), since a radiograph has no colour: 40,000 of
them at 224 pixels take 2 GB. Networks that take three channels repeat it.
"""

import hashlib
import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, find_in_shards, read_shard_ids
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.squares import decode_square


@dataclass(frozen=True)
class Collection:
    """Decoded images with their labels, row by row.

    Attributes:
        ids: image_id of real images, prompt_id of synthetic ones.
        patients: (n,) the patient that an image shows; for a generated image, its prompt's.
        pixels: uint8, (n, size, size), luminance.
        labels: float32, (n, 14), in the order of FINDINGS; see `labels_of`.
    """

    ids: list[str]
    patients: np.ndarray
    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def labels_of(findings: pd.DataFrame) -> np.ndarray:
    """Return 0/1 labels, float32 (n, 14): 1 is positive; 0, -1 and null are not.

    Uncertain and unmentioned findings count as absent in both protocols, as in the official
    release and the paper's Table 4 (CheXpert's "U-zeros").
    """
    return findings[list(FINDINGS)].eq(1).fillna(False).to_numpy(dtype=np.float32)


def real_collection(rows: pd.DataFrame, size: int, squash: bool, threads: int) -> Collection:
    """Decode the radiographs of some rows of the manifest.

    Args:
        rows: rows of the manifest.
        size: side of the square, pixels.
        squash: see `square`.
        threads: images decoded at a time.

    Raises:
        InputError: an image cannot be decoded; the message names it.
    """
    items = (ImageItem(i, p) for i, p in zip(rows["image_id"], rows["path"], strict=True))
    pixels = decode_square(items, len(rows), size, squash, threads, "reading radiographs")
    patients = rows["patient_id"].to_numpy(dtype=object)
    return Collection(rows["image_id"].tolist(), patients, pixels, labels_of(rows))


def synthetic_collection(
    shards: Sequence[str | Path],
    prompts: pd.DataFrame,
    manifest: pd.DataFrame,
    size: int,
    squash: bool,
    threads: int,
    drawn: Container[str] | None = None,
) -> Collection:
    """Decode a model's images of a prompt set, which has exactly one image per prompt.

    A generated image has the labels and the patient of its prompt, because it may show what the
    model memorised of that patient's radiograph. A control's image has the labels and the patient
    of the radiograph that it shows.

    Args:
        shards: the model's images.
        prompts: the prompt set.
        manifest: the cohort's manifest.
        size: side of the square, pixels.
        squash: see `square`.
        threads: images decoded at a time.
        drawn: ids of the prompts to read images of; None for all.

    Raises:
        InputError: a prompt has no image or two, an image belongs to no prompt, or an image cannot
            be decoded.
    """
    ids = check_complete(shards, prompts)
    if drawn is not None:
        ids = [name for name in ids if name in drawn]
    sources: list[str | None] = []

    def noting_sources() -> Iterator[ImageItem]:
        for item in find_in_shards(shards, set(ids)):
            sources.append(item.source_image_id)
            yield item

    label = "reading synthetic images"
    pixels = decode_square(noting_sources(), len(ids), size, squash, threads, label)
    of_prompt = prompts.set_index("prompt_id").loc[ids]
    image_ids = [
        image_id if source is None else source
        for source, image_id in zip(sources, of_prompt["image_id"], strict=True)
    ]
    rows = manifest_rows(manifest, image_ids, "an image shard")
    labels = labels_of(of_prompt)
    is_control = np.array([source is not None for source in sources], dtype=bool)
    labels[is_control] = labels_of(rows)[is_control]
    return Collection(ids, rows["patient_id"].to_numpy(dtype=object), pixels, labels)


def manifest_rows(manifest: pd.DataFrame, image_ids: Sequence[str], where: str) -> pd.DataFrame:
    """Return the manifest's rows of some images, in the order given; an id may occur twice.

    Raises:
        InputError: an image is not in the manifest.
    """
    by_id = manifest.set_index("image_id", drop=False)
    unknown = [image_id for image_id in image_ids if image_id not in by_id.index]
    if unknown:
        raise InputError(
            f"{len(unknown)} image(s) are not in the manifest, first {unknown[0]!r}",
            where,
            "manifest and prompts come from different runs: rerun the cohort stage and the rest",
        )
    return by_id.loc[list(image_ids)].reset_index(drop=True)


def check_no_test_patient(patients: np.ndarray, manifest: pd.DataFrame) -> None:
    """Check that no image to train on shows a patient of the test split.

    Raises:
        InputError: some do; the message gives their number and the first patient.
    """
    shared = sorted(set(patients) & set(manifest.loc[manifest["split"] == "test", "patient_id"]))
    if shared:
        raise InputError(
            f"{len(shared)} patient(s) of the test split are among the images to train on, "
            f"first {shared[0]!r}",
            "the augment prompts, or the radiographs that a control shows for them",
            "training images must come from patients outside the test split",
        )


def concatenate(collections: Sequence[Collection]) -> Collection:
    """Join collections of one image size."""
    return Collection(
        [i for collection in collections for i in collection.ids],
        np.concatenate([collection.patients for collection in collections]),
        np.concatenate([collection.pixels for collection in collections]),
        np.concatenate([collection.labels for collection in collections]),
    )


def check_complete(shards: Sequence[str | Path], prompts: pd.DataFrame) -> list[str]:
    """Check that a model has exactly one image per prompt; return its prompt ids, in order.

    Raises:
        InputError: a prompt has no image or two, or an image belongs to no prompt.
    """
    ids = read_shard_ids(shards)
    expected = set(prompts["prompt_id"])
    answered = set(ids)
    faults = {
        "image(s) of unknown prompts": sorted(answered - expected),
        "prompt(s) without an image": sorted(expected - answered),
        "image(s) of a prompt that has one already": sorted(
            pd.Series(ids, dtype=object)[pd.Series(ids, dtype=object).duplicated()]
        ),
    }
    for fault, wrong in faults.items():
        if wrong:
            raise InputError(
                f"{len(wrong)} {fault}, first {wrong[0]!r}",
                ", ".join(str(path) for path in shards[:3]) + (", ..." if len(shards) > 3 else ""),
                "delete the model's images of this prompt set and rerun the generate stage",
            )
    return ids


def check_disjoint(images: Collection, test_rows: pd.DataFrame) -> None:
    """Check that there is a test split and that no image to train on shows one of its patients.

    Raises:
        InputError: a test patient is among the images to train on, or there is no test image.
    """
    if test_rows.empty:
        raise InputError("the manifest has no image in the test split", "the manifest")
    check_no_test_patient(images.patients, test_rows)


def run_key(settings: dict[str, Any], *arrays: np.ndarray) -> str:
    """Return a digest of everything that the trained weights depend on: settings and arrays."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
