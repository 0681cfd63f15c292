"""A world of a few tiny images, a tiny Stable Diffusion, and a toy family of the test's own."""

import functools
import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from workflow_scripts.common.manifest import FINDINGS, write_manifest
from workflow_scripts.finetune.draws import Draws
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.lora import LORA_FILE, LoraSettings, load_lora
from workflow_scripts.finetune.train import TrainSettings, finetune

SIZE = 32
SIDE = 64  # of what the diffusion transformers are shown


def write_cohort(folder: Path, pictures: dict[str, np.ndarray], extra=()) -> Path:
    """Write one training image per caption, and further rows, as a manifest."""
    rows = []
    for i, (caption, pixels) in enumerate(pictures.items()):
        path = folder / f"image{i}.png"
        Image.fromarray(pixels).save(path)
        rows.append(
            {
                "image_id": f"image{i}",
                "patient_id": f"patient{i}",
                "study_id": f"study{i}",
                "path": str(path),
                "view": "PA",
                "site": None,
                "split": "train",
                "caption": caption,
                "caption_source": "test",
                "indication": None,
                "report": None,
            }
        )
    frame = pd.DataFrame([*rows, *extra])
    for name in FINDINGS:
        frame[name] = pd.array([None] * len(frame), dtype="Int8")
    write_manifest(frame, folder / "manifest.parquet")
    return folder / "manifest.parquet"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def two_images():
    """Two pictures that differ everywhere, by caption."""
    x = np.linspace(20, 235, SIZE)
    across = np.broadcast_to(x, (SIZE, SIZE)).astype(np.uint8)
    return {"the heart is large": across, "the lungs are clear": across.T[::-1].copy()}


@pytest.fixture(scope="session")
def sd_of(tmp_path_factory, two_images):
    """Return tiny SD 1 and 2 by version, whose VAE has had some steps on the two images."""
    from workflow_scripts.world.diffusion import (
        clip_tokenizer_files,
        train_vae,
        write_tiny_pipeline,
    )

    root = tmp_path_factory.mktemp("tiny_sd")

    @functools.cache
    def make(steps):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        pixels = torch.from_numpy(np.stack(list(two_images.values()))).float() / 127.5 - 1
        vae = train_vae(pixels[:, None].expand(-1, 3, -1, -1), steps, batch=2)
        files = clip_tokenizer_files(list(two_images), 60)
        for version in (1, 2):
            torch.manual_seed(version)
            write_tiny_pipeline(version, files, vae, root / f"sd{version}_{steps}")
        return {version: Base(root / f"sd{version}_{steps}") for version in (1, 2)}

    return make


@pytest.fixture(scope="session")
def tiny_sd(sd_of):
    """Tiny SD 1 and 2 by version, whose VAE shows little."""
    return sd_of(20)


@pytest.fixture(scope="session")
def large_pixels(two_images):
    """The two images as an autoencoder takes them, float (2, 3, 64, 64) in [-1, 1]."""
    large = [Image.fromarray(image).resize((SIDE, SIDE)) for image in two_images.values()]
    shown = torch.from_numpy(np.stack([np.asarray(image) for image in large])).float()
    return (shown / 127.5 - 1)[:, None].repeat(1, 3, 1, 1)


@pytest.fixture(scope="session")
def autoencoder_of(large_pixels):
    """Return a family's autoencoder after some steps on the two images; families share theirs."""
    from workflow_scripts.world.diffusion import tiny_vae, train_vae
    from workflow_scripts.world.tiny_sana import train_dc_ae

    @functools.cache
    def make(kind, steps):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        if kind == "sana":
            return train_dc_ae(large_pixels, steps, 2)
        vae = tiny_vae() if kind == "pixart_sigma" else tiny_vae(16, 4, False)
        return train_vae(large_pixels, steps, 2, vae)

    return lambda name, steps: make(name if name in ("sana", "pixart_sigma") else "wide", steps)


@pytest.fixture(scope="session")
def base_of(autoencoder_of, two_images, tmp_path_factory):
    """Return the tiny checkpoint of a family of diffusion transformers, written when asked for.

    Its autoencoder has had `seen` steps on the two images, which cost time. It takes 100 to show
    them.
    """
    root = tmp_path_factory.mktemp("transformers")

    @functools.cache
    def make(name, seen=0):
        world = importlib.import_module(f"workflow_scripts.world.tiny_{name}")
        autoencoder = autoencoder_of(name, seen)
        folder = root / f"{name}_{seen}"
        torch.manual_seed(1)
        getattr(world, f"write_tiny_{name}")(list(two_images), autoencoder, folder)
        return Base(folder)

    return make


@pytest.fixture(scope="session")
def load_quiet():
    """Load a family's pipeline without its progress bar."""

    def load(family, base):
        pipeline = family.load(base)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


@pytest.fixture(scope="session")
def pipeline_of(base_of, load_quiet):
    """Return the untrained pipeline of a family. Tests must leave it as it is."""
    return functools.cache(lambda name: load_quiet(get_family(name), base_of(name)))


@pytest.fixture
def check_overfits(two_images, settings, tmp_path):
    """Train a family on two captioned images until its samples show the right one, or fail.

    A wrong sign, target, noise level or condition cannot pass.
    """

    def check(family, base, steps, batch, sampling, size=SIZE, guidance=1.0, **changed):
        pictures = {
            caption: np.asarray(Image.fromarray(pixels).resize((size, size)))
            for caption, pixels in two_images.items()
        }
        finetune(
            family,
            base,
            write_cohort(tmp_path, pictures),
            tmp_path / "trained",
            tmp_path / "progress",
            settings(
                epochs=steps * batch / 2,
                batch_size=batch,
                per_device_batch_size=batch,
                size=size,
                **changed,
            ),
        )
        pipeline = family.load(Base(tmp_path / "trained" / "checkpoint"))
        pipeline.set_progress_bar_config(disable=True)
        captions = list(pictures) * 2
        images = family.sample(
            pipeline, captions, range(4), SampleSettings(sampling, guidance, size)
        )
        for caption, image in zip(captions, images, strict=True):
            shown = np.asarray(image.convert("L"), float)
            assert shown.shape == (size, size)
            away = {key: np.abs(shown - wanted).mean() for key, wanted in pictures.items()}
            other = next(key for key in pictures if key != caption)
            assert away[caption] < 35, away
            assert away[caption] < away[other] / 2, away
        return pipeline

    return check


@pytest.fixture
def check_lora_lowers_the_loss(two_images, settings, tmp_path):
    """Train an adapter on two captioned images; the loss on draws of its own must fall."""

    def mean_loss(family, pipeline, pixels, captions):
        n = 32
        draws = Draws(5, 0, range(n), torch.device("cpu"))
        with torch.no_grad():
            encoded = family.encode_images(pipeline, pixels).repeat(n // 2, 1, 1, 1)
            conditions = family.encode_captions(pipeline, captions * (n // 2))
            return family.loss(
                pipeline, family.network(pipeline), encoded, conditions, draws
            ).mean()

    def check(family, base, steps, size=SIZE, fall=0.98, **changed):
        pictures = {
            caption: np.asarray(Image.fromarray(pixels).resize((size, size)))
            for caption, pixels in two_images.items()
        }
        lora = LoraSettings(rank=8, alpha=8, rslora=True, targets=("attention",))
        finetune(
            family,
            base,
            write_cohort(tmp_path, pictures),
            tmp_path / "span",
            tmp_path / "progress",
            settings(
                method="lora",
                lora=lora,
                epochs=steps * 2,
                batch_size=4,
                per_device_batch_size=4,
                size=size,
                **{"learning_rate": 1e-2, **changed},
            ),
        )
        adapter = tmp_path / "span" / "checkpoint"
        assert [path.name for path in adapter.iterdir()] == [LORA_FILE]
        pixels = torch.from_numpy(np.stack(list(pictures.values()))).float() / 127.5 - 1
        shown = pixels[:, None].expand(-1, 3, -1, -1), list(pictures)
        pipeline = family.load(base)
        before = mean_loss(family, pipeline, *shown)
        load_lora(family, pipeline, adapter)
        after = mean_loss(family, pipeline, *shown)
        assert after < fall * before, (float(before), float(after))

    return check


class ToyFamily(Family):
    """One linear layer that learns an image's mean; small enough to look at every number."""

    name, trained = "toy", "net"

    def __init__(self):
        self.captions, self.timesteps = [], []
        self.poison = None

    def check(self, base):
        return [base.folder / "weights.pt"]

    def load(self, base, dtype=None, network_dtype=None):
        net = nn.Linear(3, 3)
        net.load_state_dict(torch.load(base.folder / "weights.pt", weights_only=True))
        return SimpleNamespace(net=net, to=net.to)

    def save(self, pipeline, base, folder):
        torch.save(pipeline.net.state_dict(), folder / "weights.pt")

    def encoded_shape(self, pipeline, size):
        return (3,)

    def encode_images(self, pipeline, pixels):
        return pixels.mean(dim=(2, 3))

    def encode_captions(self, pipeline, captions):
        self.captions += captions
        return {}

    def loss(self, pipeline, network, encoded, conditions, draws):
        timesteps = draws.integers(1000)
        self.timesteps += timesteps.tolist()
        noise = draws.normal((3,))
        loss = (network(encoded + noise) - noise).square().mean(dim=1)
        return (
            loss
            if self.poison is None
            else torch.where(encoded[:, 0] > self.poison, torch.nan, loss)
        )

    def sample(self, pipeline, captions, seeds, settings):
        raise NotImplementedError


@pytest.fixture
def toy(tmp_path):
    """A toy family, its base folder and a manifest of 12 images."""
    torch.manual_seed(0)
    base = tmp_path / "base"
    base.mkdir()
    torch.save(nn.Linear(3, 3).state_dict(), base / "weights.pt")
    pictures = {f"caption {i}": np.full((SIZE, SIZE), 20 * i, np.uint8) for i in range(12)}
    manifest = write_cohort(tmp_path, pictures)
    return SimpleNamespace(family=ToyFamily(), base=Base(base), manifest=manifest, folder=tmp_path)


@pytest.fixture
def settings():
    """Make settings from a few that matter to the test."""

    def make(**changed):
        chosen = {
            "method": "full",
            "learning_rate": 1e-3,
            "epochs": 1.0,
            "batch_size": 4,
            "per_device_batch_size": 4,
            "size": SIZE,
            "caption_dropout": 0.0,
            "weight_decay": 1e-2,
            "max_grad_norm": 1.0,
            "warmup_steps": 0,
            "mixed_precision": "no",
            "gradient_checkpointing": False,
            "checkpoint_every": 1000,
            "seed": 1,
        }
        return TrainSettings(**{**chosen, **changed})

    return make


@pytest.fixture
def train_toy(toy, settings):
    """Fine-tune the toy into a folder; return its weights."""

    def run(name="out", **changed):
        out = toy.folder / name
        finetune(
            toy.family,
            toy.base,
            toy.manifest,
            out,
            toy.folder / f"{name}_progress",
            settings(**changed),
        )
        return torch.load(out / "checkpoint" / "weights.pt", weights_only=True)

    return run


@pytest.fixture(scope="session")
def cohort_writer():
    return write_cohort
