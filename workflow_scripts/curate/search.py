"""A search of a curated set for captions, ids and real radiographs, as a release is searched."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.leak_search import folded_readings, ids_in, passages_in
from workflow_scripts.common.manifest import read_manifest, read_prompts


def cohort_texts(manifests: Sequence[Path], prompts: Sequence[Path]) -> tuple[set[str], list[str]]:
    """Return the ids of a cohort, and its captions, indications and reports.

    Args:
        manifests: the manifests, one for each source of captions.
        prompts: the prompt sets drawn from them.
    """
    ids: set[str] = set()
    passages: dict[str, None] = {}
    for path in manifests:
        names, texts = ("image_id", "patient_id", "study_id"), ("caption", "indication", "report")
        frame = read_manifest(path, [*names, *texts])
        for column in names:
            ids |= set(frame[column])
        for column in texts:
            passages |= dict.fromkeys(frame[column].dropna())
    for path in prompts:
        ids |= set(read_prompts(path)["prompt_id"])
    return ids, list(passages)


def check_texts(texts: Iterable[tuple[str, str]], ids: set[str], passages: Sequence[str]) -> None:
    """Check that a set's texts and file names hold no id and no caption of the cohort.

    Raises:
        InputError: they do. The message names the places, and does not repeat the text.
    """
    folded = folded_readings(texts)
    for what, leaks in (
        ("id(s)", ids_in(folded, ids)),
        ("caption(s) or indication(s)", passages_in(folded, passages)),
    ):
        if leaks:
            places = sorted({place for place, _ in leaks})
            raise InputError(
                f"{len(leaks)} {what} of the cohort would be published",
                ", ".join(places[:5]) + (", ..." if len(places) > 5 else ""),
                "nothing was written; set `curate.published_prompts: withheld`, or name "
                "the files otherwise",
            )


NEARLY: Final = 2.0
"""Largest mean difference of gray values, of 255, of two images that count as the same."""


def pixels_digest(image: Image.Image) -> str:
    """Return the sha256 of an image's size and gray values, hex."""
    gray = image.convert("L")
    return hashlib.sha256(repr(gray.size).encode() + gray.tobytes()).hexdigest()


def nearly_same(image: Image.Image, other: Image.Image) -> bool:
    """Return whether two images show the same, or one shows the other's mirror image."""
    first, second = (np.asarray(one.convert("L"), np.float64) for one in (image, other))
    if first.shape != second.shape:
        return False
    return min(float(np.abs(first - way).mean()) for way in (second, second[:, ::-1])) <= NEARLY


def check_images(
    images: Iterable[tuple[str, Image.Image, Sequence[Image.Image]]], real: set[str]
) -> None:
    """Check that no image is a planted leak, an unseen radiograph or a training radiograph.

    Args:
        images: for each image of the set, its file name, the image, and the closest training
            radiographs by the lenses, at the same size.
        real: `pixels_digest` of the images that the set must not contain.

    Raises:
        InputError: the set contains one of them.
    """
    wrong = [
        name
        for name, image, closest in images
        if pixels_digest(image) in real or any(nearly_same(image, film) for film in closest)
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} real image(s) would be published",
            ", ".join(sorted(wrong)[:5]),
            "nothing was written: the pool holds radiographs that no limit refuses; lower the "
            "lenses' limits (`curate.privacy_false_alarms` higher)",
        )
