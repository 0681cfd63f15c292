"""A cohort of tiny images with findings, its prompt sets, an untrained Stable Diffusion."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts

SIZE = 32


def make_manifest(n: int, seed: int = 0, images_per_patient: int = 2) -> pd.DataFrame:
    """Return `n` captioned images in all splits; patients keep to one split."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // images_per_patient
    split = np.array(["train", "train", "train", "validate", "test"])[patient % 5]
    frame = pd.DataFrame(
        {
            "image_id": [f"image{i}" for i in range(n)],
            "patient_id": [f"patient{i}" for i in patient],
            "study_id": [f"study{i}" for i in range(n)],
            "path": [f"image{i}.jpg" for i in range(n)],
            "view": "PA",
            "site": None,
            "split": split,
            "caption": [f"caption {i}" for i in range(n)],
            "caption_source": "test",
            "indication": None,
            "report": None,
        }
    )
    for name in FINDINGS:
        frame[name] = pd.array(rng.choice([1, 0, -1, None], n, p=[0.2, 0.2, 0.1, 0.5]), "Int8")
    return frame


def make_prompts(rows: pd.DataFrame, prompt_set: str, replicates: int = 1) -> pd.DataFrame:
    """Return a prompt set of the given manifest rows."""
    frames = []
    for replicate in range(replicates):
        prompts = rows[["image_id", "caption", *FINDINGS]].copy()
        prompts.insert(
            0, "prompt_id", [f"{prompt_set}-{i}-r{replicate:02d}" for i in rows["image_id"]]
        )
        prompts["replicate"], prompts["seed"] = replicate, 100 + replicate
        prompts["caption_source"], prompts["second_wording"] = "llava_rad", False
        frames.append(prompts)
    frame = pd.concat(frames).sort_values("prompt_id", kind="stable").reset_index(drop=True)
    if replicates == 1:
        frame["seed"] = range(len(frame))
    return frame


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def cohort(tmp_path):
    """A cohort of 60 images on disk with all three prompt sets."""
    manifest = make_manifest(60)
    rng = np.random.default_rng(0)
    paths = []
    for name in manifest["path"]:
        pixels = rng.integers(0, 256, (40, 48), dtype=np.uint8)
        paths.append(str(tmp_path / name))
        Image.fromarray(pixels).save(paths[-1])
    manifest["path"] = paths
    write_manifest(manifest, tmp_path / "manifest.parquet")
    train = manifest[manifest["split"] == "train"]
    sets = {
        "test": make_prompts(manifest[manifest["split"] == "test"], "test"),
        "privacy": make_prompts(train.iloc[:3], "privacy", replicates=4),
        "augment": make_prompts(train.iloc[:10], "augment"),
    }
    for name, prompts in sets.items():
        write_prompts(prompts, tmp_path / f"{name}.parquet")
    return SimpleNamespace(
        folder=tmp_path, manifest=manifest, path=tmp_path / "manifest.parquet", sets=sets
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained tiny Stable Diffusion."""
    from workflow_scripts.world.diffusion import (
        clip_tokenizer_files,
        train_vae,
        write_tiny_pipeline,
    )

    torch.manual_seed(0)
    vae = train_vae(torch.rand(2, 3, SIZE, SIZE) * 2 - 1, steps=1, batch=2)
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny_pipeline(1, clip_tokenizer_files(["caption 1"], 10), vae, folder)
    return folder


@pytest.fixture(scope="session")
def builders():
    return SimpleNamespace(manifest=make_manifest, prompts=make_prompts)
