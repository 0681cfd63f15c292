"""A world of three findings: a bright blob in one of three corners of a noisy square."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

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
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.downstream.classification import score, train

SIZE = 32


@dataclass
class World:
    """Files of a small cohort and how to run the script on them."""

    folder: Path
    manifest: pd.DataFrame
    prompts: pd.DataFrame
    images: dict[str, Image.Image]
    weights: Path

    def shard(self, name: str, images: dict[str, tuple[Image.Image, str | None]]) -> Path:
        """Write prompt_id -> (image, source_image_id) as a shard."""
        path = self.folder / f"{name}.parquet"
        write_shard(
            (
                ImageItem(i, f"{i}.png", png_bytes(image), "caption", s)
                for i, (image, s) in images.items()
            ),
            path,
        )
        return path

    def copies(self) -> Path:
        """Write the training copies: each prompt's own radiograph."""
        rows = zip(self.prompts["prompt_id"], self.prompts["image_id"], strict=True)
        return self.shard("copies", {p: (self.images[i], i) for p, i in rows})

    def arguments(self, name: str, **changes: object) -> list[str]:
        """Return the script's flags; `shards` may be a list."""
        flags = (
            flags_for(self.folder, name)
            | {
                "weights": self.weights,
                "size": SIZE,
                "epochs": 12,
                "batch_size": 32,
                "learning_rate": 0.01,
                "weight_decay": 1e-5,
                "validation_share": 0.15,
                "scheduler_factor": 0.1,
                "scheduler_patience": 2,
                "rotation_degrees": 10,
                "output": self.folder / "runs" / name / "outcomes.parquet",
            }
            | changes
        )
        return words_of(flags)

    def run(self, name: str, **changes: object) -> Path:
        """Train in this process and score the run; return the folder of its outputs."""
        train.main(self.arguments(name, **changes))
        folder = self.folder / "runs" / name
        self.score([folder], folder / "record.json")
        return folder

    def score(self, runs: list[Path], output: Path, baseline: list[Path] | None = None) -> None:
        """Score the runs of an arm, against `baseline`, the runs on real data, where given."""
        flags = ["--outcomes", *[str(run / "outcomes.parquet") for run in runs]]
        if baseline:
            flags += ["--baseline", *[str(run / "outcomes.parquet") for run in baseline]]
        flags += ["--manifest", str(self.folder / "manifest.parquet"), "--bootstrap", "300"]
        score.main([*flags, "--seed", "42", "--output", str(output)])


def make_world(folder: Path, n_patients: int = 150, seed: int = 0) -> World:
    """Make patients with two images each; every fourth is in the test split."""
    generator = np.random.default_rng(seed)
    rows, images = [], {}
    for k in range(2 * n_patients):
        labels = tuple(int(value) for value in generator.random(3) < 0.4)
        image = images[image_id_of(k)] = blob_image(labels, generator, SIZE)
        wrong = generator.random(3) < 0.03  # wrong labels, so that no score is perfect
        findings = {n: v ^ int(w) for n, v, w in zip(DRAWN, labels, wrong, strict=True)}
        rows.append(write_row(folder, k, image, findings))
    manifest, prompts = write_cohort(folder, rows)
    weights = folder / "resnet.safetensors"
    torch.manual_seed(0)
    save_file(ResNet((1, 1, 1, 1), width=4, outputs=10).state_dict(), weights)
    return World(folder, manifest, prompts, images, weights)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return make_world(tmp_path_factory.mktemp("blobs") / "world")
