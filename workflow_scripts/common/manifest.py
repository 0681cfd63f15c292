"""The manifest (one row per radiograph) and the prompt set: schema, reading, writing.

All stages exchange these two tables as Parquet. The schema is checked on every write and every
read, so that a fault shows where it arises.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file

FINDINGS: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
"""The 14 CheXpert findings, alphabetical; 1 positive, 0 negative, -1 uncertain, null absent."""

SPLITS: Final = ("train", "validate", "test")
COHORT_PROMPT_SETS: Final = ("test", "privacy", "augment")
"""The paper's three prompt sets, drawn from the cohort's captions."""

STRESS: Final = "stress"
"""The set that is written from templates (`cohort/stress_prompts.py`)."""

PROMPT_SETS: Final = (*COHORT_PROMPT_SETS, STRESS)

TEMPLATE: Final = "template"
"""The `caption_source` of prompts that are not a patient's caption and have no radiograph."""

_FINDING_FIELDS = [pa.field(name, pa.int8()) for name in FINDINGS]

# `site`: the hospital or data set that a radiograph comes from; null if the cohort has only one.
# `indication`: the reason for the examination, on one line; null if it is not known.
# `report`: the radiologist's own words, which generated reports are compared with; null if only a
# rewritten caption is available.
MANIFEST_SCHEMA: Final = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("study_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("site", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("caption_source", pa.string()),
        pa.field("indication", pa.string()),
        pa.field("report", pa.string()),
        *_FINDING_FIELDS,
    ]
)

# `image_id`: the radiograph that the caption describes; null where `caption_source` is TEMPLATE.
# `second_wording`: the text is the image's own report, and its caption is a rewritten one.
PROMPT_SCHEMA: Final = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("caption_source", pa.string(), nullable=False),
        pa.field("second_wording", pa.bool_(), nullable=False),
        pa.field("replicate", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        *_FINDING_FIELDS,
    ]
)


def write_manifest(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a manifest, whole or not at all.

    Raises:
        InputError: a column is missing, an id is repeated, a value is outside its domain, or
            train and test share a patient.
    """
    _check_manifest(frame, path)
    _write(frame, MANIFEST_SCHEMA, path)


def read_manifest(path: str | Path, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Read a manifest; `columns` limits what is read (and then only the schema is checked)."""
    frame = _read(path, MANIFEST_SCHEMA, columns)
    if columns is None:
        _check_manifest(frame, path)
    return frame


def write_prompts(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a prompt set, whole or not at all.

    Raises:
        InputError: a column is missing, a prompt_id is repeated, a caption is empty, a seed is
            negative, or a prompt has no radiograph although its caption is not from a template.
    """
    _check_prompts(frame, path)
    _write(frame, PROMPT_SCHEMA, path)


def read_prompts(path: str | Path) -> pd.DataFrame:
    """Read a prompt set and check it."""
    frame = _read(path, PROMPT_SCHEMA, None)
    _check_prompts(frame, path)
    return frame


def scored_prompts(prompts: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return the prompts of a set that a protocol scores, in their order.

    An image may have two wordings of one report. The published test set holds both, so
    `as_published` scores both. `sound` scores each image's caption alone, because two wordings of
    one report are not two reports.

    Args:
        prompts: a prompt set.
        protocol: `sound` or `as_published`.
    """
    if deviations(protocol).both_wordings:
        return prompts
    return prompts[~prompts["second_wording"]].reset_index(drop=True)


def _write(frame: pd.DataFrame, schema: pa.Schema, path: str | Path) -> None:
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    with whole_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")


def _read(path: str | Path, schema: pa.Schema, columns: Iterable[str] | None) -> pd.DataFrame:
    names = list(columns) if columns is not None else schema.names
    try:
        found = pq.read_schema(path)
        wrong = [
            name
            for name in names
            if name not in found.names or found.field(name).type != schema.field(name).type
        ]
        table = None if wrong else pq.read_table(path, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise unreadable("cannot read the table", error, path, "rerun the cohort stage") from None
    if table is None:
        raise InputError(
            f"column {wrong[0]!r} is missing or is not {schema.field(wrong[0]).type}",
            path,
            "the file was written by another version: delete it and rerun the cohort stage",
        )
    frame = table.to_pandas(types_mapper={pa.int8(): pd.Int8Dtype()}.get)
    for name in frame.columns:  # pandas 3 infers its own string type; None, not nan, is missing
        if schema.field(name).type == pa.string():
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame


def _check_manifest(frame: pd.DataFrame, path: str | Path) -> None:
    _check_columns(frame, MANIFEST_SCHEMA, path)
    _check_unique(frame, "image_id", path)
    _check_domain(frame["split"], SPLITS, path)
    _check_findings(frame, path)
    captioned = frame["caption"].notna()
    for name in ("caption", "indication", "report"):
        if (frame[name].dropna().str.strip() == "").any():
            raise InputError(f"an empty {name}: a missing {name} is null", path)
    if (captioned != frame["caption_source"].notna()).any():
        raise InputError("caption and caption_source must be present together", path)
    held_out = set(frame.loc[frame["split"] == "test", "patient_id"])
    shared = sorted(held_out & set(frame.loc[frame["split"] == "train", "patient_id"]))
    if shared:
        shown = ", ".join(shared[:10]) + (", ..." if len(shared) > 10 else "")
        raise InputError(
            f"train and test share {len(shared)} patient(s): {shown}",
            path,
            "assign every image of a patient to one split",
        )


def _check_prompts(frame: pd.DataFrame, path: str | Path) -> None:
    _check_columns(frame, PROMPT_SCHEMA, path)
    _check_unique(frame, "prompt_id", path)
    _check_findings(frame, path)
    if (frame["caption"].str.strip() == "").any():
        raise InputError("an empty caption in a prompt set", path)
    lacking = frame["image_id"].isna() != (frame["caption_source"] == TEMPLATE)
    if lacking.any():
        row = int(lacking.to_numpy().argmax())
        raise InputError(
            f"image_id is {frame['image_id'].iloc[row]!r} at row {row}, of a caption from "
            f"{frame['caption_source'].iloc[row]!r}: those from {TEMPLATE!r} alone have none",
            path,
        )
    if (frame["seed"] < 0).any():
        raise InputError("a negative seed in a prompt set", path)


def _check_columns(frame: pd.DataFrame, schema: pa.Schema, path: str | Path) -> None:
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise InputError(f"missing column(s): {', '.join(missing)}", path)
    for field in schema:
        if not field.nullable and frame[field.name].isna().any():
            row = int(frame[field.name].isna().to_numpy().argmax())
            raise InputError(f"column {field.name!r} is empty at row {row}", path)


def _check_unique(frame: pd.DataFrame, column: str, path: str | Path) -> None:
    repeated = frame.loc[frame[column].duplicated(), column]
    if len(repeated):
        raise InputError(f"{len(repeated)} repeated {column}, first {repeated.iloc[0]!r}", path)


def _check_domain(values: pd.Series, domain: tuple[str, ...], path: str | Path) -> None:
    wrong = values[~values.isin(domain)]
    if len(wrong):
        raise InputError(f"{values.name} {wrong.iloc[0]!r} is none of {', '.join(domain)}", path)


def _check_findings(frame: pd.DataFrame, path: str | Path) -> None:
    for name in FINDINGS:
        wrong = frame[name].notna() & ~frame[name].isin([-1, 0, 1])
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise InputError(
                f"{name} is {frame[name].iloc[row]} at row {row}, not 1, 0 or -1", path
            )
