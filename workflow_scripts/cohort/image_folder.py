"""The manifest of any folder of radiographs with a CSV of metadata, whose columns are mapped."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import pandas as pd

from workflow_scripts.cohort.attrition import Attrition, tally
from workflow_scripts.cohort.checked_csv import (
    check_filled,
    check_ids,
    check_image_files,
    check_patients,
    check_splits,
    check_unique,
    no_findings,
    parse_labels,
    read_csv,
)
from workflow_scripts.cohort.texts import missing_in, text_or_none
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, MANIFEST_SCHEMA

FIELDS: Final = (
    "image_id",
    "path",
    "patient_id",
    "study_id",
    "view",
    "site",
    "split",
    "caption",
    "indication",
    "report",
)


@dataclass(frozen=True)
class FindingColumn:
    """A column that lists an image's findings.

    Attributes:
        column: the column's name.
        values: the column's values, mapped to findings.
        separator: separates the values in a cell; None takes the cell as one value.
        absent: the label of a mapped finding that a cell does not list: None (unmentioned) or 0. In
            a row without any mapped value, all findings stay null.
    """

    column: str
    values: Mapping[str, str]
    separator: str | None = None
    absent: int | None = None


@dataclass(frozen=True)
class SplitDraw:
    """A split that is drawn by patient.

    Attributes:
        test_share: expected share of patients in the test split, in (0, 1).
        validate_share: expected share of patients in the validation split, in [0, 1).
        seed: of the hash that assigns patients.
    """

    test_share: float
    validate_share: float
    seed: int


@dataclass(frozen=True)
class FolderColumns:
    """The mapping of the metadata's columns.

    Attributes:
        fields: maps `FIELDS` to column names. `path` and `patient_id` are required. Without
            `image_id` the id is the file's name without its suffix. Without `study_id` every image
            is a study of its own. Without `view` all images count as frontal, with the view
            `unknown`. Without `site` all images come from one site.
        findings: maps findings to the columns of their labels (1, 0, -1 or empty).
        finding_column: a column that lists all findings of an image.
        exclude_nonempty: columns; an image with a value in any of them is left out.
    """

    fields: Mapping[str, str]
    findings: Mapping[str, str] = field(default_factory=dict)
    finding_column: FindingColumn | None = None
    exclude_nonempty: Sequence[str] = ()


def image_folder(
    root: str | Path,
    metadata: str | Path,
    columns: FolderColumns,
    views: Mapping[str, str],
    draw: SplitDraw | None,
    attrition: Attrition,
    check_files: bool = True,
) -> pd.DataFrame:
    """Return the manifest of a folder of images, sorted by patient, study and image.

    Args:
        root: the folder that the metadata's paths are relative to.
        metadata: the CSV file (or `.csv.gz`), one row per image.
        columns: the mapping of its columns.
        views: the values of the view column that count as frontal, with their names in the
            manifest; empty keeps every image and its view.
        draw: how the split is drawn; None if a column holds it.
        attrition: gets the counts of what is dropped.
        check_files: check that every image file exists.

    Raises:
        InputError: the file is missing, truncated or malformed; an id or a path is repeated or
            empty; a split or label is unknown; train and test share a patient; a drawn split has no
            train or test patients; or image files are missing.
    """
    _check_mapping(columns, draw, views)
    frame = read_csv(metadata, _needed(columns))
    attrition.add("in_metadata", "images", 0, len(frame), f"rows of {Path(metadata).name}")

    manifest = _identities(frame, root, columns.fields, metadata)
    if draw is None:
        manifest["split"] = frame[columns.fields["split"]].str.strip().rename("split")
        check_splits(manifest["split"], metadata)
    findings, values = _findings(frame, columns, metadata)

    kept = _kept(frame, columns.exclude_nonempty, manifest["view"], views, attrition)
    if not kept.any():
        seen = f"; the views of all: {tally(manifest['view'])}" if views else ""
        remedy = "check cohort.views and the excluded columns"
        raise InputError(f"no image is left{seen}", metadata, remedy)
    if views:
        manifest["view"] = manifest["view"].map(views)
    if draw is not None:
        manifest["split"] = [draw_split(patient, draw) for patient in manifest["patient_id"]]
        _check_drawn_split(manifest[kept], metadata)
    check_patients(manifest.loc[kept, "patient_id"], manifest.loc[kept, "split"], metadata)

    manifest = pd.concat([manifest, findings], axis=1)[kept]
    if columns.finding_column is not None:
        _count_mapped(values, columns.finding_column, manifest, attrition)
    manifest = manifest.sort_values(["patient_id", "study_id", "image_id"], ignore_index=True)
    manifest = manifest[MANIFEST_SCHEMA.names]
    attrition.add_captions(manifest)
    if check_files:
        check_image_files(manifest["path"].tolist(), metadata)
    return manifest


def _kept(
    frame: pd.DataFrame,
    excluding: Sequence[str],
    view: pd.Series,
    views: Mapping[str, str],
    attrition: Attrition,
) -> pd.Series:
    """Return which rows stay: those without a value to exclude them, and of a frontal view."""
    kept = pd.Series(True, index=frame.index)
    for column in excluding:
        filled = kept & ~missing_in(frame[column])
        kept &= ~filled
        attrition.add(
            f"empty_{column}", "images", int(filled.sum()), int(kept.sum()), f"{column} is given"
        )
    if views:
        other = kept & ~view.isin(list(views))
        kept &= ~other
        attrition.add(
            "frontal",
            "images",
            int(other.sum()),
            int(kept.sum()),
            f"view not among {', '.join(views)}: {tally(view[other])}",
        )
    return kept


def draw_split(patient_id: str, draw: SplitDraw) -> str:
    """Return a patient's split, from a hash of the seed and the patient's id alone.

    So all images of a patient are in one split, and patients who join or leave the cohort do not
    change the split of others. The shares are met on average, not exactly.
    """
    digest = hashlib.sha256(f"{draw.seed}\0{patient_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < draw.test_share:
        return "test"
    if position < draw.test_share + draw.validate_share:
        return "validate"
    return "train"


def _check_drawn_split(manifest: pd.DataFrame, metadata: str | Path) -> None:
    """Check that a drawn split has training and test images."""
    for split in ("train", "test"):
        if not (manifest["split"] == split).any():
            patients = manifest["patient_id"].nunique()
            raise InputError(
                f"the drawn split has no {split} images ({patients} patients)",
                metadata,
                "choose another share or split seed, or give more patients",
            )


def _count_mapped(
    values: pd.Series, column: FindingColumn, manifest: pd.DataFrame, attrition: Attrition
) -> None:
    """Append the number of the finding column's values that are mapped to a finding.

    Args:
        values: the column's values, see `_findings`; rows outside the manifest are ignored.
        column: the mapping of the values.
        manifest: the rows that are kept, indexed like the values.
        attrition: gets the counts.
    """
    values = values[values.index.isin(manifest.index)]
    lost = values[~values.isin(list(column.values))]
    labelled = int(manifest[list(FINDINGS)].notna().any(axis=1).sum())
    attrition.add(
        "finding_mapped",
        "annotations",
        len(lost),
        len(values) - len(lost),
        f"values of {column.column} that no finding is mapped to: "
        f"{tally(lost) or 'none'}; {labelled} images have a label",
    )


def _check_mapping(
    columns: FolderColumns, draw: SplitDraw | None, views: Mapping[str, str]
) -> None:
    for name in ("path", "patient_id"):
        if name not in columns.fields:
            raise InputError(
                f"no column is mapped to {name}",
                "columns of the image folder",
                "patient_id keeps a patient's images in one split; where every image shows another "
                "patient, map it to the column of the images"
                if name == "patient_id"
                else "map the column that holds the image files",
            )
    if (draw is None) == ("split" not in columns.fields):
        raise InputError(
            "the split comes from a column or is drawn by patient, exactly one of them",
            "columns of the image folder",
            "map a split column, or give the test share",
        )
    if draw is not None and not (
        0 < draw.test_share < 1
        and 0 <= draw.validate_share < 1
        and draw.test_share + draw.validate_share < 1
    ):
        raise InputError(
            f"test share {draw.test_share} and validation share {draw.validate_share}",
            "the drawn split",
            "shares are between 0 and 1 and leave something for training",
        )
    if views and "view" not in columns.fields:
        raise InputError(
            "views are mapped, but no column holds the view",
            "columns of the image folder",
            "map a view column, or map no views to keep every image",
        )
    if columns.finding_column is not None:
        both = sorted(set(columns.findings) & set(columns.finding_column.values.values()))
        if both:
            raise InputError(
                f"{', '.join(both)} comes from a column of its own and from "
                f"{columns.finding_column.column!r}",
                "columns of the image folder",
                "map each finding once",
            )


def _needed(columns: FolderColumns) -> list[str]:
    names = [*columns.fields.values(), *columns.findings.values(), *columns.exclude_nonempty]
    if columns.finding_column is not None:
        names.append(columns.finding_column.column)
    return names


def _identities(
    frame: pd.DataFrame, root: str | Path, fields: Mapping[str, str], metadata: str | Path
) -> pd.DataFrame:
    """Return and check ids, path, view, site, caption, indication and report of every row.

    Without a column of reports the caption is the report.
    """
    path, patient = frame[fields["path"]], frame[fields["patient_id"]]
    check_filled(path, metadata)
    check_ids(patient, metadata)
    check_unique(path, metadata, "keep one row per image")
    if "image_id" in fields:
        image_id, remedy = frame[fields["image_id"]], "keep one row per image"
        check_ids(image_id, metadata)
    else:
        stems = [PurePosixPath(text).stem for text in path]
        image_id = pd.Series(stems, index=frame.index, name="image_id (the file's stem)")
        remedy = "files of different folders share a name: map a column to image_id"
    check_unique(image_id, metadata, remedy)
    study = image_id
    if "study_id" in fields:
        study = frame[fields["study_id"]]
        check_ids(study, metadata)
    manifest = pd.DataFrame(
        {
            "image_id": image_id,
            "patient_id": patient,
            "study_id": study,
            "path": [str(Path(root) / text) for text in path],
            "view": frame[fields["view"]].str.strip() if "view" in fields else "unknown",
        }
    )
    site = pd.Series(None, index=frame.index, dtype=object)
    if "site" in fields:
        check_ids(frame[fields["site"]], metadata)
        site = frame[fields["site"]].str.strip().astype(object)
    caption = pd.Series(None, index=frame.index, dtype=object)
    source = caption.copy()
    if "caption" in fields:
        caption = text_or_none(frame[fields["caption"]])
        source[caption.notna()] = f"column:{fields['caption']}"
    indication = pd.Series(None, index=frame.index, dtype=object)
    if "indication" in fields:
        indication = text_or_none(frame[fields["indication"]].str.split().str.join(" "))
    report = caption
    if "report" in fields:
        report = text_or_none(frame[fields["report"]])
    return manifest.assign(
        site=site,
        caption=caption,
        caption_source=source,
        indication=indication,
        report=report,
    )


def _findings(
    frame: pd.DataFrame, columns: FolderColumns, metadata: str | Path
) -> tuple[pd.DataFrame, pd.Series]:
    """Return the findings of every row, and the finding column's values, indexed by row."""
    findings = no_findings(frame.index)
    for name, column in columns.findings.items():
        findings[name] = parse_labels(frame[column], metadata)
    spec = columns.finding_column
    if spec is None:
        return findings, pd.Series([], dtype=object)
    cells = frame[spec.column].astype(object)
    if spec.separator:
        cells = cells.str.split(spec.separator, regex=False).explode()
    values = cells.str.strip()
    values = values[values != ""]
    named = values.map(spec.values).dropna()
    for name in sorted(set(spec.values.values())):
        if spec.absent is not None:
            findings.loc[named.index.unique(), name] = spec.absent
        findings.loc[named.index[named == name].unique(), name] = 1
    return findings, values
