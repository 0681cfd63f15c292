"""A world of three findings: a bright blob in one of three corners of a noisy square."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.downstream.classification import score, train

SIZE = 32
DRAWN = ("Cardiomegaly", "Edema", "Pneumothorax")
_CORNERS = ((9, 9), (9, 23), (23, 9))


def blob_image(labels: tuple[int, ...], generator: np.random.Generator) -> Image.Image:
    """Draw noise and, for each present finding of DRAWN, a blob in its corner."""
    pixels = generator.normal(70, 12, (SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE]
    for positive, (row, column) in zip(labels, _CORNERS, strict=True):
        if positive:
            pixels += 130 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 18)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


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
        folder = self.folder / "runs" / name
        flags: dict[str, object] = {
            "setting": "real_only",
            "model": "real",
            "protocol": "sound",
            "manifest": self.folder / "manifest.parquet",
            "prompts": self.folder / "augment.parquet",
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
            "seed": 7,
            "progress": folder / "progress",
            "threads": 1,
            "output": folder / "outcomes.parquet",
        } | changes
        listed: list[str] = []
        for key, value in flags.items():
            listed.append("--" + key.replace("_", "-"))
            listed += [str(item) for item in value] if isinstance(value, list) else [str(value)]
        return listed

    def run(self, name: str, **changes: object) -> Path:
        """Train in this process and score the run; return the folder of its outputs."""
        train.main(self.arguments(name, **changes))
        folder = self.folder / "runs" / name
        self.score([folder], folder / "record.json")
        return folder

    def score(self, runs: list[Path], output: Path, baseline: list[Path] | None = None) -> None:
        """Score runs together, beside those of real data alone where they are given."""
        flags = ["--outcomes", *[str(run / "outcomes.parquet") for run in runs]]
        if baseline:
            flags += ["--baseline", *[str(run / "outcomes.parquet") for run in baseline]]
        flags += ["--manifest", str(self.folder / "manifest.parquet"), "--bootstrap", "300"]
        score.main([*flags, "--seed", "42", "--output", str(output)])


def make_world(folder: Path, n_patients: int = 150, seed: int = 0) -> World:
    """Make patients with two images each; every fourth is in the test split."""
    generator = np.random.default_rng(seed)
    rows, images = [], {}
    (folder / "images").mkdir(parents=True)
    for k in range(2 * n_patients):
        patient, image_id = f"p{k // 2:04d}", f"i{k:05d}"
        labels = tuple(int(value) for value in generator.random(3) < 0.4)
        images[image_id] = blob_image(labels, generator)
        path = folder / "images" / f"{image_id}.png"
        images[image_id].save(path)
        findings: dict[str, object] = dict.fromkeys(FINDINGS, pd.NA)
        wrong = generator.random(3) < 0.03  # labels err, so that no score is perfect
        findings |= {n: v ^ int(w) for n, v, w in zip(DRAWN, labels, wrong, strict=True)}
        rows.append(
            {
                "image_id": image_id,
                "patient_id": patient,
                "study_id": f"s{k:05d}",
                "path": str(path),
                "view": "AP",
                "site": None,
                "split": "test" if k // 2 % 4 == 0 else "train",
                "caption": f"Findings of film {k}.",
                "caption_source": "llava_rad",
                "indication": None,
                **findings,
            }
        )
    manifest = pd.DataFrame(rows).astype(dict.fromkeys(FINDINGS, "Int8"))
    write_manifest(manifest, folder / "manifest.parquet")
    prompts = manifest[manifest["split"] == "train"].reset_index(drop=True)
    prompts = prompts[["image_id", "caption", *FINDINGS]].assign(
        replicate=0, seed=range(len(prompts))
    )
    prompts.insert(0, "prompt_id", [f"augment-{i:016x}-r00" for i in range(len(prompts))])
    write_prompts(prompts, folder / "augment.parquet")
    weights = folder / "resnet.safetensors"
    torch.manual_seed(0)
    save_file(ResNet((1, 1, 1, 1), width=4, outputs=10).state_dict(), weights)
    return World(folder, manifest, prompts, images, weights)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return make_world(tmp_path_factory.mktemp("blobs") / "world")
