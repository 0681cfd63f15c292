"""A world of three findings, each a blob in its corner, and a tiny LLaVA-Rad trained on it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.downstream.cohort import (
    DRAWN,
    blob_image,
    flags_for,
    image_id_of,
    words_of,
    write_cohort,
    write_row,
)
from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.manifest import FINDINGS, read_manifest
from workflow_scripts.downstream.report_generation import train
from workflow_scripts.world.tiny_llava_rad import CONVERTED, write_tiny_llava_rad

SIZE = 64
WORDS = ("cardiomegaly", "edema", "pneumothorax")
INDICATIONS = (None, "Cough.", "Fever and pain for two days, evaluate.")


def caption(labels: tuple[int, ...], wording: int = 0) -> str:
    """Name the positive findings, a sentence each, in one of two wordings."""
    named = [word for word, positive in zip(WORDS, labels, strict=True) if positive]
    if not named:
        return "The lungs are clear."
    if wording % 2:
        return " ".join(f"Marked {word} is seen." for word in named)
    return " ".join(f"There is {word}." for word in named)


@dataclass
class World:
    """Files of a small cohort and how to run the script on them."""

    folder: Path
    manifest: pd.DataFrame
    prompts: pd.DataFrame
    images: dict[str, Image.Image]
    start: Path

    def shard(self, name: str, shown: dict[str, tuple[str, str | None]]) -> Path:
        """Write prompt_id -> (image_id of the picture, source_image_id) as a shard."""
        path = self.folder / f"{name}.parquet"
        captions = self.manifest.set_index("image_id")["caption"]
        of_prompt = self.prompts.set_index("prompt_id")["caption"]
        write_shard(
            (
                ImageItem(
                    prompt,
                    f"{prompt}.png",
                    png_bytes(self.images[image]),
                    captions[source] if source else of_prompt[prompt],
                    source,
                )
                for prompt, (image, source) in shown.items()
            ),
            path,
        )
        return path

    def copies(self) -> Path:
        """Write the training copies: each prompt's own radiograph."""
        rows = zip(self.prompts["prompt_id"], self.prompts["image_id"], strict=True)
        return self.shard("copies", {prompt: (image, image) for prompt, image in rows})

    def arguments(self, name: str, **changes: object) -> list[str]:
        """Return the script's flags; `shards` may be a list."""
        flags = (
            flags_for(self.folder, name)
            | {
                "start": self.start,
                "real_images": 100,
                "draw_seed": 5,
                "projector_epochs": 2,
                "projector_batch_size": 8,
                "projector_learning_rate": 1e-2,
                "epochs": 2,
                "batch_size": 16,
                "learning_rate": 5e-3,
                "lora_rank": 4,
                "lora_alpha": 8,
                "lora_dropout": 0.05,
                "warmup_share": 0.03,
                "weight_decay": 0.0,
                "max_grad_norm": 1.0,
                "max_length": 320,
                "max_new_tokens": 24,
                "validation_images": 8,
                "per_device_batch_size": 8,
                "generate_batch_size": 24,
                "mixed_precision": "no",
                "checkpoint_every": 3,
                "image_memory": 1,
                "output": self.folder / "runs" / name / "repeat-0.parquet",
            }
            | changes
        )
        return words_of(flags)

    def run(self, name: str, **changes: object) -> Path:
        """Run the script in this process; return the file of outcomes."""
        train.main(self.arguments(name, **changes))
        return self.folder / "runs" / name / "repeat-0.parquet"


def make_world(folder: Path, effort: float, n_patients: int = 120, seed: int = 0) -> World:
    """Make patients with two images each; every fourth is for test, every tenth for validation.

    `effort` scales the training of the start network.
    """
    generator = np.random.default_rng(seed)
    rows, images = [], {}
    for k in range(2 * n_patients):
        labels = tuple(int(value) for value in generator.random(3) < 0.4)
        image = images[image_id_of(k)] = blob_image(labels, generator, SIZE)
        columns = dict.fromkeys(("caption", "report"), caption(labels))
        columns["indication"] = INDICATIONS[k % 3]
        if k // 2 % 4 == 0 and k % 3 == 0:  # a test image whose caption is a rewriting
            columns["caption"] += " All of it in other words."
        if k // 2 % 10 == 1 and k // 2 % 4:
            columns["split"] = "validate"
        findings = dict(zip(DRAWN, labels, strict=True))
        rows.append(write_row(folder, k, image, findings, **columns))
    _, prompts = write_cohort(folder, rows, most=40)
    manifest = read_manifest(folder / "manifest.parquet")
    train_rows = manifest[manifest["split"] == "train"].reset_index(drop=True)
    drawn = [tuple(labels) for labels in train_rows[list(DRAWN)].to_numpy(dtype=int).tolist()]
    write_tiny_llava_rad(
        np.stack([np.asarray(images[i]) for i in train_rows["image_id"]]),
        [[caption(labels, k) for k in range(2)] for labels in drawn],
        [" ".join(np.array(WORDS)[np.array(labels) == 1]) or "none" for labels in drawn],
        train_rows["indication"].tolist(),
        train_rows[list(FINDINGS)].eq(1).fillna(False).to_numpy(np.int8),
        folder / "weights",
        seed=3,
        effort=effort,
        pieces=400,
    )
    return World(folder, manifest, prompts, images, folder / "weights" / CONVERTED)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The cohort with a barely trained start network."""
    torch.set_num_threads(1)
    return make_world(tmp_path_factory.mktemp("blobs") / "world", effort=0.01)


@pytest.fixture(scope="session")
def taught_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The cohort with a well-trained start network, whose training takes many seconds."""
    torch.set_num_threads(1)
    return make_world(tmp_path_factory.mktemp("taught") / "world", effort=0.3)
