"""The attrition table: what the steps towards the manifest removed, how many, and why."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pandas as pd

from workflow_scripts.common.csv_cells import csv_text
from workflow_scripts.common.files import write_text

log = logging.getLogger(__name__)

COLUMNS: Final = ("step", "unit", "removed", "kept", "reason")
UNITS: Final = ("images", "captions", "annotations", "studies")

PUBLISHED: Final = {
    "MIMIC-CXR": {
        "in_split_table": 377_110,
        "split_train": 368_960,
        "split_validate": 2_991,
        "split_test": 5_159,
        "test_frontal": 3_403,
        "test_studies": 3_041,
        "test_reports": 2_461,
        "captioned_train": 237_388,
        "test_prompts": 5_034,
    }
}
"""The published numbers that remain after each step, by the name of the data.

The sources are MIMIC-CXR-JPG's documentation (splits), the card of LLaVA-Rad's annotations (frontal
images, studies and rule-based captions of the test split), and the paper (training and test
samples).
"""


@dataclass
class Attrition:
    """The steps for each of `UNITS`, in order; an annotation is a row of a source of captions.

    A step that only counts has `removed` = 0, and states the count in `reason`.
    """

    rows: list[tuple[str, str, int, int, str]] = field(default_factory=list)

    def add(self, step: str, unit: str, removed: int, kept: int, reason: str) -> None:
        """Append a step and log it."""
        if unit not in UNITS:
            raise ValueError(f"unit {unit!r} is none of {UNITS}")
        self.rows.append((step, unit, int(removed), int(kept), reason))
        log.info("%s: %d %s removed, %d kept (%s)", step, removed, unit, kept, reason)

    def warn(self, step: str, unit: str, kept: int, reason: str) -> None:
        """Append a step that removes nothing but looks wrong, and log it as a warning."""
        self.rows.append((f"warning_{step}", unit, 0, int(kept), reason))
        log.warning("%s: %s", step, reason)

    def warn_of_published(self, dataset: str = "MIMIC-CXR") -> None:
        """Warn of steps whose number differs from the published one.

        Other data, such as the embedded world, may have the same layout. A source with fewer than
        nine tenths of the published images counts as other data, and gets no warning.
        """
        published = PUBLISHED[dataset]
        kept = {step: kept for step, _, _, kept, _ in self.rows}
        if self.part_of_published(dataset):
            return
        for step, number in published.items():
            if kept.get(step, number) != number:
                log.warning(
                    "%s: %d are kept, where %d are published for %s: is a file cut short, of "
                    "another version, or filtered?",
                    *(step, kept[step], number, dataset),
                )

    def part_of_published(self, dataset: str) -> str | None:
        """Return a warning if the source has fewer than nine tenths of the published images.

        Args:
            dataset: the name of the data; those without published numbers get no warning.
        """
        published = PUBLISHED.get(dataset, {}).get("in_split_table", 0)
        images = next((kept for step, _, _, kept, _ in self.rows if step == "in_split_table"), 0)
        if images >= 0.9 * published:
            return None
        return (
            f"the split table has {images:,} images, {dataset} has {published:,}: if these data "
            "are a part of it or others, call them so (cohort.dataset), since the tables show "
            f"published values beside those of {dataset}; otherwise the file is cut short"
        )

    def add_captions(self, manifest: pd.DataFrame) -> None:
        """Append for each split the number of images with a caption and of unique captions."""
        for split, part in manifest.groupby("split", sort=True):
            captions = part["caption"].dropna()
            self.add(
                f"captioned_{split}",
                "captions",
                len(part) - len(captions),
                len(captions),
                f"{split} images without a caption stay in the manifest and become no prompt",
            )
            unique = captions.nunique()
            self.add(
                f"unique_{split}",
                "captions",
                len(captions) - unique,
                unique,
                "images that share their caption with another; prompts are unique captions",
            )

    def write(self, path: str | Path) -> None:
        """Write the table as CSV, whole or not at all."""
        write_text(path, csv_text([COLUMNS, *self.rows]))


def tally(values: Iterable[str], most: int = 20) -> str:
    """Return the number of times each value occurs, most frequent first: `'LATERAL' 12, '' 3`."""
    counts = pd.Series(list(values), dtype=object).value_counts()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    shown = ", ".join(f"{str(value)!r} {count}" for value, count in ordered[:most])
    return shown + (f", and {len(ordered) - most} other values" if len(ordered) > most else "")
