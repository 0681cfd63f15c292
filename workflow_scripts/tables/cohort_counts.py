"""Counts of the cohort, from its manifest, and of images left out, from its attrition table."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workflow_scripts.cohort.attrition import PUBLISHED
from workflow_scripts.common.access import unreadable
from workflow_scripts.common.csv_cells import plain_cell
from workflow_scripts.common.manifest import FINDINGS, SPLITS, read_manifest


@dataclass(frozen=True)
class SplitCounts:
    """The counts of one split; `positives` per finding are images labelled 1."""

    split: str
    images: int
    patients: int
    captioned: int
    positives: dict[str, int]


def count_cohort(manifest: str | Path) -> dict[str, SplitCounts]:
    """Count the cohort's splits; a split without images is left out."""
    frame = read_manifest(manifest, ["patient_id", "split", "caption", *FINDINGS])
    return {
        split: _count(split, frame[frame["split"] == split])
        for split in SPLITS
        if (frame["split"] == split).any()
    }


def _count(split: str, part: pd.DataFrame) -> SplitCounts:
    return SplitCounts(
        split,
        len(part),
        part["patient_id"].nunique(),
        int(part["caption"].notna().sum()),
        {name: int((part[name] == 1).sum()) for name in FINDINGS},
    )


@dataclass(frozen=True)
class AttritionTable:
    """The attrition table, and the number of all images that were left out."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    images_removed: int


def read_attrition(path: str | Path, dataset: str) -> AttritionTable:
    """Read the cohort's attrition table and add a column with published counts, if there are any.

    Args:
        path: the file.
        dataset: the data's name.

    Raises:
        InputError: the file cannot be read or is no attrition table.
    """
    remedy = "delete it and rerun the cohort stage"
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            header, *rows = [list(map(plain_cell, row)) for row in csv.reader(stream)]
        unit, removed = header.index("unit"), header.index("removed")
        total = sum(int(row[removed]) for row in rows if row[unit] == "images")
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise unreadable("cannot read the attrition table", error, path, remedy) from None
    published = PUBLISHED.get(dataset)
    if published:
        header = [*header, "published"]
        rows = [[*row, str(published.get(row[0], ""))] for row in rows]
    return AttritionTable(tuple(header), tuple(tuple(row) for row in rows), total)
