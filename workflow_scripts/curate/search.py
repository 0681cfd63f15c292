"""The release's own search, over what a curated set says: captions, ids, real radiographs."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.leak_search import folded_readings, ids_in, passages_in
from workflow_scripts.common.manifest import read_manifest, read_prompts


def cohort_texts(manifests: Sequence[Path], prompts: Sequence[Path]) -> tuple[set[str], list[str]]:
    """Return the ids of a cohort and its captions, indications and reports.

    Args:
        manifests: with the captions of each source.
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
        InputError: they do; places are named, nothing of the finding is repeated.
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


def pixels_digest(image: Image.Image) -> bytes:
    """Return a digest of what an image shows, in gray."""
    gray = image.convert("L")
    return hashlib.sha256(repr(gray.size).encode() + gray.tobytes()).digest()


def check_images(shown: Iterable[tuple[str, bytes]], real: set[bytes]) -> None:
    """Check that no image shows exactly a planted leak or a real radiograph.

    Args:
        shown: of each image of the set its name and its `pixels_digest`.
        real: digests of what must not be in it.

    Raises:
        InputError: one does.
    """
    wrong = [name for name, digest in shown if digest in real]
    if wrong:
        raise InputError(
            f"{len(wrong)} real image(s) would be published",
            ", ".join(wrong[:5]),
            "nothing was written: the pool holds radiographs that no limit refuses; lower the "
            "lenses' limits (`curate.privacy_false_alarms` higher)",
        )
