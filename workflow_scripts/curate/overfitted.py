"""Images of a model that was overfitted on a few patients: leaks that a model itself made.

The folder of images has a table `metadata.csv` with the columns `file_name` and `image_id`. The
latter is a radiograph that the model was trained on, and whose caption was the image's prompt.
"""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from workflow_scripts.common.errors import InputError
from workflow_scripts.generate.import_external import read_metadata

METADATA: Final = "metadata.csv"


def read_overfitted(folder: Path) -> pd.DataFrame:
    """Read the table of the images and their training radiographs: `file_name`, `image_id`.

    Raises:
        InputError: see `read_metadata`; the table has no rows, or names a file that is missing.
    """
    rows = read_metadata(folder / METADATA, "image_id")
    if rows.empty:
        raise InputError(
            "the table of an overfitted model's images has no row",
            folder / METADATA,
            "fill it, or leave curate.overfitted out",
        )
    missing = [name for name in rows["file_name"] if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} image(s) of an overfitted model are missing, first {missing[0]!r}",
            folder,
            f"correct {METADATA}; file names are relative to the folder",
        )
    return rows


def drawn_overfitted(
    folder: Path, manifest: pd.DataFrame, planted: int, seed: int
) -> list[tuple[Path, str]]:
    """Draw images of an overfitted model: at most `planted`, and one for each training patient.

    Args:
        folder: the folder of the images.
        manifest: the cohort's manifest.
        planted: largest number of images.
        seed: seed of the draw.

    Returns:
        The files, each with the id of the training radiograph whose caption was its prompt.

    Raises:
        InputError: see `read_overfitted`; or a radiograph is not in the training split.
    """
    rows = read_overfitted(folder).sort_values("file_name", kind="stable")
    training = manifest[manifest["split"] == "train"]
    patients = dict(zip(training["image_id"], training["patient_id"], strict=True))
    unknown = [name for name in rows["image_id"] if name not in patients]
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(rows)} images of an overfitted model are of no radiograph of "
            "the training split",
            folder / METADATA,
            "name the training radiographs of this cohort, of which the images may be leaks",
        )
    rng = np.random.default_rng([seed, 2])
    shuffled = rows.iloc[rng.permutation(len(rows))]
    chosen = shuffled[~shuffled["image_id"].map(patients).duplicated()].head(planted)
    return [
        (folder / file, str(name))
        for file, name in zip(chosen["file_name"], chosen["image_id"], strict=True)
    ]
