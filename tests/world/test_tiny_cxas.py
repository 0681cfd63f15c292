"""The embedded world's pseudo-labeller: published layout, reproducible, two segmented classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from workflow_scripts.common.files import sha256_of
from workflow_scripts.downstream.segmentation.cxas import check_cxas, load_cxas
from workflow_scripts.world import tiny_cxas

N_PUBLISHED = 159


def stand_ins() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(60, 120, (8, 256, 256)).astype(np.uint8)
    masks = np.zeros((8, 256, 256), np.uint8)
    for k in range(8):
        masks[k, 60 + 4 * k : 72 + 4 * k, 30:110] = 1
        masks[k, 60 + 4 * k : 72 + 4 * k, 150:230] = 2
    images[masks > 0] += 100
    return images, masks


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "again", "other")]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        tiny_cxas.write_cxas_checkpoint(*stand_ins(), folder, seed, effort=0.02)
    return [folder / tiny_cxas.CXAS for folder in folders]


def test_it_is_read_as_the_published_file_is(written):
    assert check_cxas(written[0], tiny_cxas.CLASSES).startswith(f"CXAS with {N_PUBLISHED} classes")
    saved = torch.load(written[0], weights_only=True)["model"]
    assert all(key.startswith("module.") for key in saved)


def test_a_seed_gives_the_same_bytes_and_another_does_not(written):
    one, again, other = map(sha256_of, written)
    assert one == again
    assert one != other


@torch.no_grad()
def test_only_the_clavicles_are_ever_drawn(written):
    network = load_cxas(written[0])
    logits = network(torch.randn(2, 3, 192, 192))
    others = [k for k in range(N_PUBLISHED) if k not in tiny_cxas.CLASSES]
    assert (logits[:, others] < -5).all()


def test_training_leaves_torch_as_it_was(tmp_path):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    tiny_cxas.write_cxas_checkpoint(*stand_ins(), tmp_path, 0, effort=0.001)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
