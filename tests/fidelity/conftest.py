"""A small cohort, with feature files of it and of two models in the layout of the cache."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.feature_files import captions_sha256, write_file
from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts

PATIENTS, DIMENSIONS, JOINT = 60, 6, 4


def write_h5(folder: Path, encoder: str, features, ids, sources=None, **attrs) -> Path:
    """Write features of radiographs or, in a model's folder, of its images."""
    if "real" not in folder.parts:
        attrs = {"collection": "model", **attrs}
    if encoder == "biovil_t_text":
        # A prompt's caption is that of its radiograph.
        captions = [f"caption of {name.split('-')[1]}" for name in ids]
        attrs = {"captions_sha256": captions_sha256(captions), **attrs}
    return write_file(folder, encoder, features, ids, sources, **attrs)


@pytest.fixture
def cohort(tmp_path: Path) -> SimpleNamespace:
    """Two test images per patient, the second without a caption, and a prompt per caption.

    Cardiomegaly is frequent; Pneumonia has 8 positives, Fracture one, Edema only uncertain and
    missing labels, Pleural Other none at all.
    """
    ids = [f"i{patient:02d}{view}" for patient in range(PATIENTS) for view in "ab"]
    first = np.array([name.endswith("a") for name in ids])
    patient = np.repeat(np.arange(PATIENTS), 2)
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "patient_id": [f"p{number:02d}" for number in patient],
            "study_id": ids,
            "path": [f"{name}.png" for name in ids],
            "view": "PA",
            "site": None,
            "split": "test",
            "caption": [f"caption of {n}" if a else None for n, a in zip(ids, first, strict=True)],
            "caption_source": ["made up" if a else None for a in first],
            "indication": None,
            "report": None,
        }
    )
    for finding in FINDINGS:
        frame[finding] = pd.array([0] * len(ids), dtype="Int8")
    frame["Cardiomegaly"] = pd.array((patient % 3 == 0).astype(int), dtype="Int8")
    frame["Pneumonia"] = pd.array((patient < 4).astype(int), dtype="Int8")
    frame["Fracture"] = pd.array([1, *[0] * (len(ids) - 1)], dtype="Int8")
    frame["Edema"] = pd.array([-1, None] * PATIENTS, dtype="Int8")
    prompts = frame[first].reset_index(drop=True)
    prompts["prompt_id"] = [f"test-{name}-r00" for name in prompts["image_id"]]
    prompts = prompts.assign(second_wording=False, replicate=0, seed=1)
    result = SimpleNamespace(
        manifest_frame=frame,
        prompt_frame=prompts,
        manifest=tmp_path / "manifest.parquet",
        prompts=tmp_path / "test.parquet",
        real=tmp_path / "features/real/test",
        generated=tmp_path / "features/model/test",
        features=np.random.default_rng(0).standard_normal((len(ids), DIMENSIONS)),
    )
    write_manifest(frame, result.manifest)
    write_prompts(prompts, result.prompts)
    write_h5(result.real, "rad_dino", result.features, ids)
    rng = np.random.default_rng(1)
    prompt_ids = list(prompts["prompt_id"])
    write_h5(
        result.generated,
        "rad_dino",
        rng.standard_normal((len(prompt_ids), DIMENSIONS)) + 1,
        prompt_ids,
    )
    texts = rng.standard_normal((len(prompt_ids), JOINT))
    write_h5(result.generated, "biovil_t_text", texts, prompt_ids)
    # The image embeddings are in another order: rows are matched by id.
    turned = slice(None, None, -1)
    write_h5(result.generated, "biovil_t_image", 2 * texts[turned], prompt_ids[turned])
    return result
