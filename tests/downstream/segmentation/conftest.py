"""Radiographs with one bright bar each, the structure to segment, and ways to run the task."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageFilter

from tests.downstream.cohort import flags_for, image_id_of, words_of, write_cohort, write_row
from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.records import Record, read_record
from workflow_scripts.downstream.segmentation import score, train
from workflow_scripts.downstream.segmentation.cxas import Cxas
from workflow_scripts.downstream.segmentation.masks import Mask, encode_mask, write_masks

SIZE = 32
LABELLER = {"weights_sha256": "0", "classes": [31, 32], "size": SIZE}
DRAW = {"images": 96, "asked_for": 96, "seed": 1, "prompts_sha256": "0"}


def draw_bar(generator: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """Draw a noisy image with a slanted bar; return it and the bar's mask."""
    y, x = np.mgrid[:SIZE, :SIZE]
    row, slope = generator.uniform(8, 24), generator.uniform(-0.3, 0.3)
    left, width = generator.integers(2, 8), generator.integers(16, 22)
    bar = np.abs(y - row - slope * (x - 16)) < 2
    bar &= (x >= left) & (x < left + width)
    pixels = generator.normal(70, 12, (SIZE, SIZE)) + 110 * bar
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), bar


def bright(image: Image.Image) -> np.ndarray:
    """Return the pseudo-mask of an image, as a labeller by brightness."""
    smooth = image.filter(ImageFilter.BoxBlur(0.5))
    return np.asarray(smooth) > 125


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(1.5))


def random_cxas(depths: tuple[int, ...], classes: int) -> Cxas:
    """Return a small network with random weights through which the image keeps its contrast."""
    torch.manual_seed(0)
    network = Cxas(depths, width=2, filters=4, classes=classes)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


@dataclass
class World:
    """Files of a small cohort and how to run the scripts on them."""

    folder: Path
    manifest: pd.DataFrame
    prompts: pd.DataFrame
    images: dict[str, Image.Image]
    bars: dict[str, np.ndarray]
    real_masks: Path = field(init=False)

    def __post_init__(self):
        self.real_masks = self.masks("real", {i: bright(p) for i, p in self.images.items()})
        (self.folder / "exact").mkdir()
        for name in self.test_ids:
            Image.fromarray(self.bars[name]).convert("L").save(self.folder / f"exact/{name}.png")

    @property
    def test_ids(self) -> list[str]:
        return self.manifest.loc[self.manifest["split"] == "test", "image_id"].tolist()

    def masks(self, name: str, drawn: dict[str, np.ndarray], **changes: object) -> Path:
        """Write masks by image or prompt id."""
        path = self.folder / f"masks_{name}.parquet"
        run = {"model": name, "labeller": LABELLER, "draw": DRAW, "provenance": {"device": "cpu"}}
        rows = [Mask(i, encode_mask(m), (SIZE, SIZE)) for i, m in drawn.items()]
        write_masks(path, rows, run | changes)
        return path

    def model(self, name: str, change) -> dict[str, object]:
        """Write a model's images, `change` of each prompt's radiograph, and their pseudo-masks."""
        pairs = zip(self.prompts["prompt_id"], self.prompts["image_id"], strict=True)
        images = {prompt: (change(self.images[i]), i) for prompt, i in pairs}
        shard = self.folder / f"{name}.parquet"
        items = [
            ImageItem(p, f"{p}.png", png_bytes(image), "caption", i)
            for p, (image, i) in images.items()
        ]
        write_shard(items, shard)
        masks = self.masks(name, {p: bright(image) for p, (image, _) in images.items()})
        return {"setting": "augmented", "model": name, "shards": [shard], "masks": masks}

    def arguments(self, name: str, **changes: object) -> list[str]:
        """Return the script's flags with the given changes, see `words_of`."""
        flags = (
            flags_for(self.folder, name)
            | {
                "real_masks": self.real_masks,
                "exact_masks": self.folder / "exact",
                "size": SIZE,
                "steps": 120,
                "batch_size": 16,
                "learning_rate": 0.01,
                "channels": [8, 16],
                "residual_units": 0,
                "loss": "dice_ce",
                "validation_share": 0.15,
                "rotation_degrees": 5,
                "contrast": 0.1,
                "output": self.folder / "runs" / name / "outcomes.parquet",
            }
            | changes
        )
        return words_of(flags)

    def run(self, name: str, **changes: object) -> Path:
        """Train in this process; return the file of outcomes."""
        train.main(self.arguments(name, **changes))
        return self.folder / "runs" / name / "outcomes.parquet"

    def score(self, *outcomes: Path, baseline: tuple[Path, ...] = ()) -> Record:
        """Score the runs of an arm in this process."""
        path = outcomes[0].with_name("record.json")
        words = ["--outcomes", *map(str, outcomes), "--bootstrap", "200", "--seed", "3"]
        if baseline:
            words += ["--baseline", *map(str, baseline)]
        score.main([*words, "--output", str(path)])
        return read_record(path)


def make_world(folder: Path, n_patients: int = 64, seed: int = 0) -> World:
    """Make patients with two images each; every fourth is in the test split."""
    generator = np.random.default_rng(seed)
    rows, images, bars = [], {}, {}
    for k in range(2 * n_patients):
        image_id = image_id_of(k)
        images[image_id], bars[image_id] = draw_bar(generator)
        rows.append(write_row(folder, k, images[image_id], {}))
    manifest, prompts = write_cohort(folder, rows)
    return World(folder, manifest, prompts, images, bars)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return make_world(tmp_path_factory.mktemp("bars") / "world")
