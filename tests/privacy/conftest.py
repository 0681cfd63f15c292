"""Radiographs, prompts in three replicates, and shards and feature files of two models."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.feature_files import images_sha256, write_file
from workflow_scripts.common.images import ImageItem, write_shard
from workflow_scripts.common.manifest import FINDINGS, write_manifest, write_prompts

PATIENTS, REPLICATES = 6, 3


def write_h5(folder: Path, encoder: str, features, ids, protocol="sound", **more) -> None:
    """Write features of radiographs or, in the folder `model`, of a model's images."""
    attrs = {"collection": "model" if folder.name == "model" else "real", "purpose": "privacy"}
    attrs |= {name: more.pop(name) for name in tuple(more) if isinstance(more[name], str)}
    write_file(folder, encoder, features, ids, extras=more, protocol=protocol, **attrs)


def radiograph(seed: int, width: int = 70, height: int = 60) -> Image.Image:
    """Draw gray noise: two images have a root mean square difference of 255 / sqrt(6) = 104."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return Image.fromarray(values).convert("RGB")


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


class World:
    """The files of one model; `give` writes its images and their features."""

    def __init__(self, root: Path):
        self.root = root
        self.images = [f"i{patient}" for patient in range(PATIENTS)]
        for number, name in enumerate(self.images):
            radiograph(number).save(root / f"{name}.png")
        captions = [f"caption {name}" for name in self.images]
        frame = pd.DataFrame(
            {
                "image_id": self.images,
                "patient_id": [f"p{name}" for name in self.images],
                "study_id": self.images,
                "path": [str(root / f"{name}.png") for name in self.images],
                "view": "PA",
                "site": None,
                "split": "train",
                "caption": captions,
                "caption_source": "made up",
                "indication": None,
                "report": None,
            }
        )
        for finding in FINDINGS:
            frame[finding] = pd.array([0] * PATIENTS, dtype="Int8")
        # Replicate by replicate, an order that shards may have.
        prompts = pd.concat(
            [frame.assign(second_wording=False, replicate=r, seed=r) for r in range(REPLICATES)]
        )
        prompts["prompt_id"] = [
            f"privacy-{image}-r{r:02d}"
            for image, r in zip(prompts["image_id"], prompts["replicate"], strict=True)
        ]
        self.pairs = prompts.reset_index(drop=True)
        self.flags = SimpleNamespace(
            manifest=root / "manifest.parquet",
            prompts=root / "privacy.parquet",
            real=root / "features/real",
            generated=root / "features/model",
            shards=[root / f"part-0000{i}-of-00002.parquet" for i in range(2)],
        )
        write_manifest(frame, self.flags.manifest)
        write_prompts(self.pairs, self.flags.prompts)
        rng = np.random.default_rng(0)
        self.latent = rng.standard_normal((PATIENTS, 8)).astype(np.float32)
        self.reid = rng.random((PATIENTS, 5)).astype(np.float32)
        self.head = {"fc_end_weight": [[-9.0] * 5], "fc_end_bias": [4.0]}

    def give(self, images, latent, reid, protocol: str = "sound") -> None:
        """Write images, one per pair, with their latent and re-identification features."""
        ids = list(self.pairs["prompt_id"])
        real, generated = self.flags.real, self.flags.generated
        write_h5(real, "rad_dino", self.latent, self.images, protocol)
        write_h5(real, "reid", self.reid, self.images, protocol, **self.head)
        files = [encoded(image) for image in images]
        parts = [[(ids[row], files[row]) for row in range(k, len(ids), 2)] for k in range(2)]
        of = {"collection_sha256": images_sha256(parts[0] + parts[1])}
        write_h5(generated, "rad_dino", latent, ids, protocol, **of)
        # The other encoder's file is in another order: rows are matched by id.
        write_h5(generated, "reid", np.asarray(reid)[::-1], ids[::-1], protocol, **of, **self.head)
        for part, path in zip(parts, self.flags.shards, strict=True):
            write_shard((ImageItem(name, f"{name}.png", file, "") for name, file in part), path)

    def _add(self, patients, split: str) -> list[str]:
        """Add radiographs of these patients to the manifest; return their ids."""
        manifest = pd.read_parquet(self.flags.manifest)
        ids = [f"{split}{i}" for i in range(len(patients))]
        more = manifest.iloc[[0] * len(ids)].copy()
        more = more.assign(image_id=ids, patient_id=patients, study_id=ids, split=split)
        more["path"] = [f"{name}.png" for name in ids]
        write_manifest(pd.concat([manifest, more], ignore_index=True), self.flags.manifest)
        return ids

    def hold_out(self, patients, protocol: str = "sound") -> Path:
        """Add held-out radiographs of these patients; return the folder of their features."""
        ids = self._add(patients, "test")
        rng = np.random.default_rng(8)
        folder = self.root / "features/held_out"
        write_h5(folder, "rad_dino", rng.standard_normal((len(ids), 8)), ids, protocol)
        write_h5(folder, "reid", rng.random((len(ids), 5)), ids, protocol, **self.head)
        return folder

    @property
    def own(self) -> np.ndarray:
        """The row of each pair's radiograph, an index, (number of pairs,)."""
        return np.array([self.images.index(name) for name in self.pairs["image_id"]])

    def give_copies(self, protocol: str = "sound") -> None:
        """Write each prompt's own radiograph as its generated image."""
        own = self.own
        images = [radiograph(int(row)) for row in own]
        self.give(images, self.latent[own], self.reid[own], protocol)

    def give_unrelated(self, protocol: str = "sound") -> None:
        """Write generated images that are independent of all radiographs."""
        n, rng = len(self.pairs), np.random.default_rng(9)
        images = [radiograph(1000 + row) for row in range(n)]
        latent = rng.standard_normal((n, 8))
        self.give(images, latent, 1 - self.reid[self.own], protocol)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
