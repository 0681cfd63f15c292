"""Which images with which reports a generator is trained on, validated on and tested on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, read_shards
from workflow_scripts.downstream.data import check_complete, labels_of, manifest_rows
from workflow_scripts.downstream.report_generation.subset import stratified_subset


@dataclass(frozen=True)
class Pairs:
    """Images with their reports, row by row.

    Attributes:
        items: the images; synthetic ones with their encoded bytes (a few GB for 20,000).
        reports: what the image is to be described by.
        indications: why the study was asked for; None where nobody says.
        patients: whom it shows; for a generated image, the patient of its prompt.
    """

    items: list[ImageItem]
    reports: list[str]
    indications: list[str | None]
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[str]:
        """image_id of real images, prompt_id of synthetic ones."""
        return [item.id for item in self.items]


def captioned(manifest: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split that have a caption, in the manifest's order."""
    return manifest[(manifest["split"] == split) & manifest["caption"].notna()]


def reported(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the test rows with a radiologist's own words, in the manifest's order.

    A rewritten caption is no reference: LLaVA-Rad's test keeps the rule-based annotations alone.
    """
    return manifest[(manifest["split"] == "test") & manifest["report"].notna()]


def real_pairs(rows: pd.DataFrame, column: str = "caption") -> Pairs:
    """Return radiographs with their reports.

    Args:
        rows: of the manifest.
        column: whose text is the report, `caption` or `report`.
    """
    items = [ImageItem(i, p) for i, p in zip(rows["image_id"], rows["path"], strict=True)]
    return Pairs(
        items,
        rows[column].tolist(),
        rows["indication"].tolist(),
        rows["patient_id"].to_numpy(dtype=object),
    )


def drawn_real_pairs(manifest: pd.DataFrame, number: int, seed: int) -> Pairs:
    """Return a subset of the captioned training radiographs with all 14 prevalences kept.

    Args:
        manifest: the cohort's.
        number: how many; all, if there are no more.
        seed: of the draw; every setting and repeat draws the same ones.

    Raises:
        InputError: no training radiograph has a caption.
    """
    rows = captioned(manifest, "train")
    if rows.empty:
        raise InputError("no training radiograph has a caption", "the manifest")
    return real_pairs(rows.iloc[stratified_subset(labels_of(rows), number, seed)])


def synthetic_pairs(
    shards: Sequence[str | Path], prompts: pd.DataFrame, manifest: pd.DataFrame
) -> Pairs:
    """Return a model's images of a prompt set with the captions they were made from.

    An image has the indication and the patient of the radiograph whose caption was its prompt: the
    caption reports on that study, which was asked for with that indication (the published prompts
    come with it, as `reason`). A control's image has caption, indication and patient of the
    radiograph that it shows.

    Raises:
        InputError: a prompt without an image, an image without a prompt, or two of one prompt.
    """
    ids = check_complete(shards, prompts)
    items = list(read_shards(shards))
    of_prompt = prompts.set_index("prompt_id").loc[ids, "image_id"]
    shown = [
        item.source_image_id or image_id for item, image_id in zip(items, of_prompt, strict=True)
    ]
    rows = manifest_rows(manifest, shown, "an image shard")
    reports = [item.caption or "" for item in items]
    patients = rows["patient_id"].to_numpy(dtype=object)
    return Pairs(items, reports, rows["indication"].tolist(), patients)


def concatenate(parts: Sequence[Pairs]) -> Pairs:
    """Put pairs after one another."""
    return Pairs(
        [item for part in parts for item in part.items],
        [report for part in parts for report in part.reports],
        [indication for part in parts for indication in part.indications],
        np.concatenate([np.empty(0, dtype=object), *(part.patients for part in parts)]),
    )
