"""Our encoders, pseudo-labeller and metrics, compared with the original libraries on equal files.

The originals need torchvision; `make test-full` installs them into `.venv/originals`, which only
the subprocess sees. Networks have their full published size and random weights, saved as published.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.pixels import normalise
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.downstream.segmentation.cxas import Cxas, draw_masks, load_cxas, prepare
from workflow_scripts.features.convert_torchxrayvision import main as convert
from workflow_scripts.features.encoders import load_encoder
from workflow_scripts.features.encoders.inception_v3 import InceptionV3
from workflow_scripts.features.encoders.reid import SiameseNetwork
from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.fidelity.kernel import kernel_distance

HERE = Path(__file__).resolve().parent
INSTALLED = HERE.parents[1] / ".venv" / "originals"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not (INSTALLED / "torchvision").is_dir(),
        reason="the original libraries are not installed: make .venv/originals/installed",
    ),
]


def original(name: str, folder: Path):
    """Return the original's output for the files in `folder`."""
    done = subprocess.run(
        [sys.executable, str(HERE / "compute.py"), name, str(folder)],
        env={**os.environ, "PYTHONPATH": str(INSTALLED), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("expected.*")
    return np.load(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of several shapes and ranges of gray values, as radiographs have."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate(((600, 700), (512, 512), (530, 401), (90, 140))):
        coarse = rng.integers(20 * i, 256 - 30 * i, (12, 10), np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def ours(name: str, weights: Path, folder: Path) -> np.ndarray:
    encoder = load_encoder(name, weights, torch.device("cpu"), deviations("sound"), "fidelity")
    pictures = [Image.open(path).convert("RGB") for path in sorted((folder / "images").iterdir())]
    return encoder.encode([encoder.prepare(picture) for picture in pictures])


def statistics_of(network: torch.nn.Module) -> torch.nn.Module:
    """Randomise convolutions and batch norms so that the image keeps its contrast."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert equality up to float32 rounding in networks of a hundred layers."""
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 0
    # The outputs of different images differ by far more, even with random weights.
    assert np.abs(expected[0] - expected[-1]).max() > 100 * 1e-5 * scale
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=1e-4)


def test_inception_is_torch_fidelitys(folder: Path):
    torch.manual_seed(0)
    torch.save(statistics_of(InceptionV3()).state_dict(), folder / "weights.pth")
    expected = original("inception_v3", folder)
    assert_close(ours("inception_v3", folder / "weights.pth", folder), expected)


def test_densenet_is_torchxrayvisions_and_its_pickle_converts(folder: Path):
    expected = original("densenet_121", folder)
    converted = folder / "weights.safetensors"
    convert(["--input", str(folder / "weights.pt"), "--output", str(converted)])
    assert_close(ours("densenet_121", converted, folder), expected)


def test_biovil_t_image_is_hi_mls(folder: Path):
    expected = original("biovil_t_image", folder)
    assert_close(ours("biovil_t_image", folder / "weights.pt", folder), expected)


def test_biovil_t_text_is_hi_mls(tmp_path: Path):
    words = ["mild", "cardiomegaly", "no", "acute", "process", "small", "left", "effusion"]
    words += [",", ".", "!", "##s"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *words]))
    captions = ["Mild cardiomegaly.", "No acute process!", "Small left effusions, no process"]
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    expected = original("biovil_t_text", tmp_path)
    (tmp_path / "model" / "vocab.txt").write_text((tmp_path / "vocab.txt").read_text())
    device = torch.device("cpu")
    encoder = load_encoder(
        "biovil_t_text", tmp_path / "model", device, deviations("sound"), "fidelity"
    )
    embeddings = encoder.encode([encoder.prepare(caption) for caption in captions])
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert_close(embeddings, expected / lengths)


def test_reid_is_torchvisions_resnet(folder: Path):
    torch.manual_seed(0)
    network = SiameseNetwork(ResNet((3, 4, 6, 3), 64, outputs=128))
    torch.save(statistics_of(network).state_dict(), folder / "weights.pth")
    expected = original("reid", folder)
    assert_close(ours("reid", folder / "weights.pth", folder), expected)


def test_the_pseudo_labeller_is_cxas(folder: Path):
    """Compare the masks of every other image, from the file on, at the published size."""
    torch.manual_seed(0)
    state = statistics_of(Cxas()).state_dict()
    weights = folder / "weights.pth"
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, weights)
    expected = original("cxas", folder)
    logits, masks = expected[:, 0], expected[:, 1].astype(bool)
    network = load_cxas(weights)
    pictures = [Image.open(path).convert("RGB") for path in sorted((folder / "images").iterdir())]
    prepared = torch.stack([prepare(picture, 512) for picture in pictures[::2]])
    with torch.no_grad():
        found = network(normalise(prepared.float() / 255), (31, 32)).numpy()
    assert_close(found, logits)
    assert 0.01 < masks.mean() < 0.99
    clear = np.abs(logits).min(axis=1) > 1e-4 * np.abs(logits).max()
    drawn = draw_masks(network, prepared, (31, 32))
    assert (drawn == masks.any(axis=1))[clear].all()
    assert clear.mean() > 0.99


@pytest.mark.parametrize(("n", "m"), [(150, 150), (60, 200)])
def test_fid_and_kid_are_torchmetrics(n: int, m: int, tmp_path: Path):
    rng = np.random.default_rng(n)
    mix = rng.standard_normal((24, 24))
    real = rng.standard_normal((n, 24)) @ mix + 3
    generated = 1.2 * rng.standard_normal((m, 24)) @ mix + 3.2
    np.save(tmp_path / "real.npy", real)
    np.save(tmp_path / "generated.npy", generated)
    expected = original("fid", tmp_path)
    assert frechet_distance(real, generated) == pytest.approx(float(expected["fid"]), rel=1e-6)
    if n == m:
        assert kernel_distance(real, generated).value == pytest.approx(
            float(expected["kid"]), rel=1e-6
        )


def test_the_originals_stay_out_of_the_main_environment():
    """With a CPU build of torch, torchvision would break transformers' image processors."""
    assert importlib.util.find_spec("torchvision") is None or torch.cuda.is_available()
