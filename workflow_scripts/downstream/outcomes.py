"""The outcome of a trained network on each test image: the file between training and scoring.

There is one Parquet file per training run, with a row per test image, which only its owner may
read. The description of the run (settings, counts, curve, provenance) is stored in the file's
metadata, so that it cannot get lost.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file

_RUN: Final = b"run"
_REMEDY: Final = "delete it and rerun the training that writes it"


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of one training run.

    Attributes:
        rows: `image_id`, `patient_id` and the task's columns, one row per test image.
        run: the description of the run (JSON types): at least `setting`, `model`, `protocol` and
            `seed`.
    """

    rows: pd.DataFrame
    run: dict[str, Any]


def write_outcomes(path: str | Path, columns: Mapping[str, Any], run: dict[str, Any]) -> None:
    """Write a run's outcomes, whole or not at all, with owner-only permissions.

    Args:
        path: the file.
        columns: sequences or arrays of equal length, test images in order; `image_id` and
            `patient_id` are among them.
        run: the description of the run; JSON types.
    """
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    table = table.replace_schema_metadata({_RUN: json.dumps(run, sort_keys=True)})
    with whole_file(path, owner_only=True) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_outcomes(path: str | Path) -> Outcomes:
    """Read the outcomes of one run.

    Raises:
        InputError: the file is missing, damaged, or not a file of outcomes.
    """
    try:
        table = pq.read_table(path)
        run = json.loads((table.schema.metadata or {})[_RUN])
        rows = table.replace_schema_metadata(None).to_pandas()
        if not {"image_id", "patient_id"} <= set(rows.columns):
            raise KeyError("image_id, patient_id")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise unreadable("cannot read outcomes", error, path, _REMEDY) from None
    return Outcomes(rows, run)


def read_repeats(paths: Sequence[str | Path]) -> list[Outcomes]:
    """Read the runs of one arm, which differ in their seed alone.

    Raises:
        InputError: a file cannot be read, two runs have the same seed, or runs differ in their
            test images, setting, model or protocol.
    """
    repeats = [read_outcomes(path) for path in paths]
    first = repeats[0]
    seeds = [outcomes.run["seed"] for outcomes in repeats]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"two runs have the same seed: {seeds}", paths[0], _REMEDY)
    for path, outcomes in zip(paths, repeats, strict=True):
        check_same_test(first, outcomes, path)
        for key in ("setting", "model", "protocol"):
            if outcomes.run[key] != first.run[key]:
                raise InputError(
                    f"{key} is {outcomes.run[key]!r}, but {first.run[key]!r} in the first run",
                    path,
                    _REMEDY,
                )
    return repeats


def check_same_test(one: Outcomes, other: Outcomes, path: str | Path) -> None:
    """Check that two runs were tested on the same images in the same order.

    Raises:
        InputError: they were not; the message names `path`, the file of the second run.
    """
    if not one.rows["image_id"].equals(other.rows["image_id"]):
        raise InputError(
            f"its {len(other.rows)} test images are not the {len(one.rows)} of the run that it is "
            "compared with",
            path,
            "the cohort has changed between them: delete both and rerun the downstream stage",
        )
