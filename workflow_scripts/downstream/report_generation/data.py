"""The pairs of images and reports that a generator is trained, validated and tested on."""

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
        reports: the report of each image.
        indications: the reason for each examination; None where it is not known.
        patients: (n,) the patient that an image shows; for a generated image, its prompt's.
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
    """Return the test rows with a report in the radiologist's own words, in the manifest's order.

    A rewritten caption is not a reference: LLaVA-Rad's test uses the rule-based annotations alone.
    """
    return manifest[(manifest["split"] == "test") & manifest["report"].notna()]


def real_pairs(rows: pd.DataFrame, column: str = "caption") -> Pairs:
    """Return radiographs with their reports.

    Args:
        rows: rows of the manifest.
        column: the column of the reports, `caption` or `report`.
    """
    items = [ImageItem(i, p) for i, p in zip(rows["image_id"], rows["path"], strict=True)]
    return Pairs(
        items,
        rows[column].tolist(),
        rows["indication"].tolist(),
        rows["patient_id"].to_numpy(dtype=object),
    )


def drawn_real_pairs(manifest: pd.DataFrame, number: int, seed: int) -> Pairs:
    """Draw captioned training radiographs such that the prevalence of all 14 findings is kept.

    Args:
        manifest: the cohort's manifest.
        number: number of radiographs to draw; all of them if there are fewer.
        seed: seed of the draw, which is the same for every setting and repeat.

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
    """Return a model's images of a prompt set with the captions that they were generated from.

    An image has the indication and the patient of the radiograph whose caption was its prompt,
    because the caption reports on the study of that indication (the published prompts include it as
    `reason`). A control's image has caption, indication and patient of the radiograph that it
    shows.

    Raises:
        InputError: a prompt has no image or two, or an image belongs to no prompt.
    """
    ids = check_complete(shards, prompts)
    items = list(read_shards(shards))
    of_prompt = prompts.set_index("prompt_id").loc[ids, "image_id"]
    image_ids = [
        item.source_image_id or image_id for item, image_id in zip(items, of_prompt, strict=True)
    ]
    rows = manifest_rows(manifest, image_ids, "an image shard")
    reports = [item.caption or "" for item in items]
    patients = rows["patient_id"].to_numpy(dtype=object)
    return Pairs(items, reports, rows["indication"].tolist(), patients)


def concatenate(parts: Sequence[Pairs]) -> Pairs:
    """Join sets of pairs."""
    return Pairs(
        [item for part in parts for item in part.items],
        [report for part in parts for report in part.reports],
        [indication for part in parts for indication in part.indications],
        np.concatenate([np.empty(0, dtype=object), *(part.patients for part in parts)]),
    )
