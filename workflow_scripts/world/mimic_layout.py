"""Writers of a world in the file layouts of MIMIC-CXR-JPG 2.0.0 and LLaVA-Rad's annotations."""

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.world.captions import impression
from workflow_scripts.world.population import Exposure

_ANNOTATION_SPLITS: Final = {"train": "train", "validate": "dev", "test": "test"}
_PROCEDURES: Final = {
    "PA": "CHEST (PA AND LAT)",
    "AP": "CHEST (PORTABLE AP)",
    "LATERAL": "CHEST (PA AND LAT)",
}
_VIEW_CODES: Final = {
    "PA": "postero-anterior",
    "AP": "antero-posterior",
    "LATERAL": "lateral",
}
_INDICATIONS: Final = (
    "shortness of breath",
    "cough and fever",
    "___-year-old with chest pain",
    "follow-up after surgery on ___",
    "check of line position",
)
_QUESTION: Final = "<image>\nDescribe the findings of the chest x-ray.\n"


def image_path(exposure: Exposure) -> str:
    """Return the image's path below the data set's root: files/p99/p99990000/s99990000/ID.jpg."""
    patient, study = exposure.patient_id, exposure.study_id
    return f"files/p{patient[:2]}/p{patient}/s{study}/{exposure.image_id}.jpg"


def write_tables(exposures: Sequence[Exposure], size: int, root: Path) -> None:
    """Write metadata, split and CheXpert tables below `root`, as gzipped CSV."""
    rows = pd.DataFrame(
        {
            "dicom_id": [e.image_id for e in exposures],
            "subject_id": [e.patient_id for e in exposures],
            "study_id": [e.study_id for e in exposures],
            "PerformedProcedureStepDescription": [_PROCEDURES[e.study.view] for e in exposures],
            "ViewPosition": [e.study.view for e in exposures],
            "Rows": size,
            "Columns": size,
            "StudyDate": [21000101 + int(e.study_id) % 10000 for e in exposures],
            "StudyTime": [f"{e.study.seed % 86400}.000" for e in exposures],
            "ProcedureCodeSequence_CodeMeaning": [_PROCEDURES[e.study.view] for e in exposures],
            "ViewCodeSequence_CodeMeaning": [_VIEW_CODES[e.study.view] for e in exposures],
            "PatientOrientationCodeSequence_CodeMeaning": "Erect",
            "split": [e.split for e in exposures],
        }
    )
    root.mkdir(parents=True, exist_ok=True)
    _write_csv(rows.drop(columns="split"), root / "mimic-cxr-2.0.0-metadata.csv.gz")
    keys = ["dicom_id", "study_id", "subject_id", "split"]
    _write_csv(rows[keys], root / "mimic-cxr-2.0.0-split.csv.gz")
    studies = {e.study_id: e for e in exposures}.values()
    labels = pd.DataFrame(
        [
            {"subject_id": e.patient_id, "study_id": e.study_id}
            | {name: _number(e.labels[name]) for name in FINDINGS}
            for e in studies
        ]
    )
    _write_csv(labels, root / "mimic-cxr-2.0.0-chexpert.csv.gz")


def write_annotations(exposures: Sequence[Exposure], folder: Path) -> None:
    """Write LLaVA-Rad's three JSON arrays; the answer of a missing caption is null.

    Images that are annotated by both methods have two entries.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in _ANNOTATION_SPLITS.items():
        entries = [
            entry
            for exposure in exposures
            if exposure.split == split
            for entry in (_annotation(exposure, *own) for own in exposure.annotations)
        ]
        path = folder / f"chat_{name}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"
        path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def write_pictures(pictures: Iterable[tuple[str, bytes]], root: Path) -> None:
    """Write encoded pictures to their paths below `root`."""
    for path, data in pictures:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def indication(exposure: Exposure) -> str | None:
    """Return a study's indication, which is independent of its findings; None for some studies."""
    draw = exposure.study.seed
    return _INDICATIONS[draw % 5] if draw % 4 else None


def _annotation(exposure: Exposure, method: str, text: str | None) -> dict[str, Any]:
    return {
        "id": exposure.image_id,
        "image": f"mimic/{image_path(exposure).removeprefix('files/')}",
        "generate_method": method,
        "reason": indication(exposure),
        "view": exposure.study.view,
        "orientation": None,
        "indication": None,
        "history": None,
        "impression": impression(exposure.findings),
        "chexpert_labels": {name: _number(exposure.labels[name]) for name in FINDINGS},
        "conversations": [
            {"from": "human", "value": _QUESTION},
            {"from": "gpt", "value": text},
        ],
    }


def _number(label: int | None) -> float | None:
    return None if label is None else float(label)


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    text = frame.to_csv(index=False, lineterminator="\n")
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
