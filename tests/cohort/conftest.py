"""A MIMIC-CXR-JPG layout of a dozen radiographs, written by hand."""

import csv
import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workflow_scripts.common.manifest import FINDINGS

ANNOTATIONS = "chat_{}_MIMIC_CXR_all_gpt4extract_rulebased_v1.json"


def annotation(image: str, caption: Any, method: str = "gpt4", impression: Any = None) -> dict:
    return {
        "id": "0123456789abcdef",
        "image": image,
        "generate_method": method,
        "reason": None,
        "impression": impression,
        "conversations": [
            {"from": "human", "value": "<image>\nProvide a description of the findings."},
            {"from": "gpt", "value": caption},
        ],
    }


@dataclass
class MiniMimic:
    """The source as rows; `write` puts them on disk. Tests change rows, then write."""

    folder: Path
    metadata: list[dict[str, str]] = field(default_factory=list)
    split: list[dict[str, str]] = field(default_factory=list)
    chexpert: list[dict[str, str]] = field(default_factory=list)
    annotations: dict[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "mimic"

    @property
    def captions(self) -> Path:
        return self.folder / "llava"

    def add(self, dicom: str, subject: int, study: int, view: str, split: str) -> None:
        ids = {"dicom_id": dicom, "subject_id": str(subject), "study_id": str(study)}
        self.metadata.append({**ids, "ViewPosition": view})
        self.split.append({**ids, "split": split})

    def label(self, subject: int, study: int, **findings: str) -> None:
        row = {"subject_id": str(subject), "study_id": str(study), **dict.fromkeys(FINDINGS, "")}
        row |= {name.replace("_", " "): value for name, value in findings.items()}
        self.chexpert.append(row)

    def image(self, dicom: str, prefix: str = "mimic/") -> str:
        row = next(row for row in self.metadata if row["dicom_id"] == dicom)
        subject, study = row["subject_id"], row["study_id"]
        return f"{prefix}p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"

    def write(self, gz: bool = True, images: bool = True) -> "MiniMimic":
        self.captions.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        for name in ("metadata", "split", "chexpert"):
            rows = getattr(self, name)
            path = self.root / f"mimic-cxr-2.0.0-{name}.csv{'.gz' if gz else ''}"
            with gzip.open(path, "wt") if gz else path.open("w") as stream:
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        for name, content in self.annotations.items():
            (self.captions / ANNOTATIONS.format(name)).write_text(json.dumps(content))
        if images:
            for shade, row in enumerate(self.metadata):
                path = self.root / "files" / self.image(row["dicom_id"], "")
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(shade).integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels).save(path)  # no two images are alike
        return self

    def arguments(self, **changes: str) -> list[str]:
        flags = {
            "--root": str(self.root),
            "--annotations": str(self.captions),
            "--caption-source": "llava_rad",
            "--manifest": str(self.folder / "manifest.parquet"),
            "--attrition": str(self.folder / "attrition.csv"),
        }
        flags |= {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
        views = ["--view", "AP=AP", "--view", "PA=PA"]
        return ["mimic_cxr_jpg", *views, *(part for item in flags.items() for part in item)]


@pytest.fixture
def mimic(tmp_path: Path) -> MiniMimic:
    """Six patients with twelve images: nine are frontal, seven of these have a usable caption."""
    mini = MiniMimic(tmp_path)
    mini.add("d-a1", 10000032, 50000001, "PA", "train")
    mini.add("d-a2", 10000032, 50000001, "LATERAL", "train")
    mini.add("d-a3", 10000032, 50000002, "AP", "train")
    mini.add("d-b1", 10000048, 50000003, "AP", "train")
    mini.add("d-b2", 10000048, 50000003, "", "train")
    mini.add("d-c1", 11000011, 50000004, "PA", "train")
    mini.add("d-d1", 11000022, 50000005, "PA", "validate")
    mini.add("d-e1", 19000033, 50000006, "PA", "test")
    mini.add("d-e2", 19000033, 50000007, "AP", "test")
    mini.add("d-e3", 19000033, 50000007, "LL", "test")
    mini.add("d-f1", 19000044, 50000008, "AP", "test")
    mini.add("d-f2", 19000044, 50000009, "AP", "test")
    mini.label(10000032, 50000001, Cardiomegaly="1.0", Edema="-1.0", Pneumonia="0.0")
    mini.label(10000032, 50000002, No_Finding="1.0")
    for subject, study in ((10000048, 50000003), (11000011, 50000004), (11000022, 50000005)):
        mini.label(subject, study, Support_Devices="1")
    mini.label(19000033, 50000006, Pleural_Effusion="1.0")
    mini.label(19000033, 50000007, Pneumothorax="-1")
    mini.label(19000044, 50000008)  # 50000009 has no row
    mini.annotations = {
        "train": [
            annotation(mini.image("d-a1"), "rule text", "rule-based", "Big heart."),
            annotation(mini.image("d-a1"), " The heart is enlarged.\n", "gpt4", "Big heart."),
            annotation(mini.image("d-a2"), "A lateral view."),
            annotation(mini.image("d-a3", ""), "Clear lungs.", "gpt4", "Normal."),
            annotation(mini.image("d-b1", "files/"), None, "gpt4", "Pacemaker."),
            annotation(mini.image("d-c1"), "Clear lungs.", "rule-based"),
            annotation("mimic/p10/p1000/s1/x.jpg", "Nobody's image."),
        ],
        "dev": [annotation(mini.image("d-d1"), "A device.")],
        "test": [
            annotation(mini.image("d-e1"), "Left effusion.", "rule-based"),
            annotation(mini.image("d-e1"), "Effusion on the left."),
            annotation(mini.image("d-e2"), "Small pneumothorax."),
            annotation(mini.image("d-e2"), "Small pneumothorax, again."),
            annotation(mini.image("d-f1"), "Effusion on the left."),
            annotation(mini.image("d-f2"), "   "),
        ],
    }
    return mini
