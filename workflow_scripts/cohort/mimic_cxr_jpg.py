"""The manifest of MIMIC-CXR-JPG in its published layout, with LLaVA-Rad's captions.

The layout of MIMIC-CXR-JPG 2.0.0 is `files/p10/p10000032/s50414267/<dicom_id>.jpg` and
`mimic-cxr-2.0.0-{metadata,split,chexpert}.csv.gz` (plain `.csv` is read, too).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from workflow_scripts.cohort.annotations import join_captions, read_annotations
from workflow_scripts.cohort.attrition import Attrition, tally
from workflow_scripts.cohort.checked_csv import (
    check_filled,
    check_ids,
    check_image_files,
    check_patients,
    check_splits,
    check_unique,
    find_csv,
    parse_labels,
    read_csv,
    row_of,
    several_splits,
)
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, MANIFEST_SCHEMA

_KEYS: Final = ["dicom_id", "subject_id", "study_id"]
_REMEDY: Final = "use the files of one MIMIC-CXR-JPG release (docs/how-to/mimic-and-weights.md)"


def mimic_cxr_jpg(
    root: str | Path,
    annotations: str | Path,
    caption_source: str,
    views: Mapping[str, str],
    attrition: Attrition,
    check_files: bool = True,
) -> pd.DataFrame:
    """Return the manifest of MIMIC-CXR-JPG's frontal radiographs, sorted by patient, study, image.

    Args:
        root: folder of `files/` and the three CSV files.
        annotations: LLaVA-Rad's folder, see `read_annotations`.
        caption_source: `llava_rad` or `impression`.
        views: the `ViewPosition` values that count as frontal, with their names in the manifest.
        attrition: gets the counts of what is dropped.
        check_files: check that every image file exists.

    Raises:
        InputError: a file is missing, truncated or malformed; a DICOM id is repeated; an image has
            no split or an unknown one; train and test share a patient; a label is none of 1, 0, -1
            and empty; or image files are missing.
    """
    root = Path(root)
    names = ("metadata", "split", "chexpert")
    table = {name: find_csv(root, f"mimic-cxr-2.0.0-{name}", _REMEDY) for name in names}
    metadata = _read_keyed(table["metadata"], "ViewPosition")
    images = _with_split(metadata, table, attrition)
    known = images["dicom_id"]
    images = _frontal(images, views, table["metadata"], attrition)
    images = _with_findings(images, table["chexpert"], attrition)
    subject, study, dicom = images["subject_id"], images["study_id"], images["dicom_id"]
    folder = "p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + dicom + ".jpg"
    manifest = pd.DataFrame(
        {
            "image_id": dicom,
            "patient_id": "p" + subject,
            "study_id": "s" + study,
            "path": f"{root / 'files'}/" + folder,
            "view": images["ViewPosition"].map(views),
            "site": None,
            "split": images["split"],
            **{name: images[name] for name in FINDINGS},
        }
    )
    manifest = manifest.sort_values(["patient_id", "study_id", "image_id"], ignore_index=True)
    captions = join_captions(
        manifest, known, read_annotations(annotations, caption_source), caption_source, attrition
    )
    manifest = pd.concat([manifest, captions], axis=1)[MANIFEST_SCHEMA.names]
    attrition.add_captions(manifest)
    if check_files:
        check_image_files(manifest["path"].tolist(), table["metadata"])
    return manifest


def _frontal(
    images: pd.DataFrame, views: Mapping[str, str], path: Path, attrition: Attrition
) -> pd.DataFrame:
    """Return the images whose view is one of `views`."""
    frontal = images["ViewPosition"].isin(list(views))
    attrition.add(
        "frontal",
        "images",
        int((~frontal).sum()),
        int(frontal.sum()),
        f"view not among {', '.join(views)}: {tally(images.loc[~frontal, 'ViewPosition'])}",
    )
    if not frontal.any():
        raise InputError(
            f"no image has a view among {', '.join(views)}; their views: "
            f"{tally(images['ViewPosition'])}",
            path,
            "check cohort.views",
        )
    return images[frontal]


def _read_keyed(path: Path, column: str) -> pd.DataFrame:
    """Read the three ids and one column; check that images are unique and ids are numbers."""
    frame = read_csv(path, [*_KEYS, column])
    _check_numbers(frame, path)
    check_filled(frame["dicom_id"], path)
    check_ids(frame["dicom_id"], path)
    check_unique(frame["dicom_id"], path, "keep one row per image")
    return frame


def _check_numbers(frame: pd.DataFrame, path: Path) -> None:
    """Refuse ids of patients and studies that are not numbers, as `p10000032` or `10000032.0`."""
    for key in ("subject_id", "study_id"):
        check_filled(frame[key], path)
        wrong = ~frame[key].str.fullmatch(r"\d+")
        if wrong.any():
            index = int(wrong.to_numpy().argmax())
            raise InputError(
                f"{key} {frame[key].iloc[index]!r} is no number", row_of(path, index), _REMEDY
            )


def _with_split(
    metadata: pd.DataFrame, table: Mapping[str, Path], attrition: Attrition
) -> pd.DataFrame:
    """Join the split of each image from the split table."""
    split = _read_keyed(table["split"], "split")
    check_splits(split["split"], table["split"])
    check_patients("p" + split["subject_id"], split["split"], table["split"])
    images = metadata.merge(
        split, on="dicom_id", how="left", suffixes=("", "_of_split"), validate="1:1"
    )
    lacking = images["split"].isna()
    if lacking.any():
        index = int(lacking.to_numpy().argmax())
        raise InputError(
            f"{int(lacking.sum())} images have no split in {table['split'].name}, first "
            f"{images['dicom_id'].iloc[index]}",
            row_of(table["metadata"], index),
            _REMEDY,
        )
    for key in ("subject_id", "study_id"):
        differs = images[key] != images[f"{key}_of_split"]
        if differs.any():
            index = int(differs.to_numpy().argmax())
            raise InputError(
                f"{key} of {images['dicom_id'].iloc[index]} is {images[key].iloc[index]}, in "
                f"{table['split'].name} {images[f'{key}_of_split'].iloc[index]}",
                row_of(table["metadata"], index),
                _REMEDY,
            )
    if several := several_splits("p" + split["subject_id"], split["split"]):
        attrition.warn(
            "patients_in_two_splits",
            "images",
            len(split),
            f"{len(several)} patient(s) are in the validation split and in another one, first "
            f"{several[0]}: in MIMIC-CXR no patient is in two splits",
        )
    attrition.add("in_split_table", "images", 0, len(split), f"rows of {table['split'].name}")
    for name, count in split["split"].value_counts().sort_index().items():
        attrition.add(f"split_{name}", "images", 0, int(count), f"rows of {table['split'].name}")
    attrition.add(
        "in_metadata",
        "images",
        len(split) - len(images),
        len(images),
        f"not in {table['metadata'].name}",
    )
    return images


def _with_findings(images: pd.DataFrame, path: Path, attrition: Attrition) -> pd.DataFrame:
    """Join the findings of each study, which are null if the study has no row."""
    labels = read_csv(path, ["subject_id", "study_id", *FINDINGS])
    _check_numbers(labels, path)
    study = (labels["subject_id"] + "/" + labels["study_id"]).rename("subject_id/study_id")
    check_unique(study, path, "keep one row per study")
    for name in FINDINGS:
        labels[name] = parse_labels(labels[name], path)
    joined = images.merge(
        labels, on=["subject_id", "study_id"], how="left", validate="m:1", indicator=True
    )
    unlabelled = int((joined["_merge"] == "left_only").sum())
    attrition.add(
        "labelled",
        "images",
        0,
        len(joined),
        f"{unlabelled} images of studies that are not in {path.name}; their findings are null",
    )
    return joined
