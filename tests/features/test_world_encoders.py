"""The embedded world's encoders: published layouts, reproducible weights, the same loading code.

They are trained for two rounds on stand-in images here; the whole run tests their quality on
rendered radiographs.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.resnet import resnet_for
from workflow_scripts.features.encoders import check_encoder, load_encoder
from workflow_scripts.features.pair_scores import pair_scores
from workflow_scripts.world import encoders as world

PLACES = {
    "rad_dino": world.RAD_DINO,
    "biovil_t_image": world.BIOVIL_T_IMAGE,
    "biovil_t_text": world.BIOVIL_T,
    "reid": world.REID,
}


def stand_ins() -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    """Draw twelve images of six patients; every other one has a bright disc and a caption of it."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    images, captions, findings, patients = [], [], [], []
    for i in range(12):
        image = 90 + 40 * np.cos((3 + i // 2) * x) + 20 * y
        if i % 2:
            image = image + 80 * (x**2 + (y - 0.3) ** 2 < 0.1)
        images.append(np.clip(image, 0, 255).astype(np.uint8))
        captions.append("Severe cardiomegaly." if i % 2 else "No acute process.")
        row = np.zeros(14, np.int8)
        row[1 if i % 2 else 8] = 1
        findings.append(row)
        patients.append(f"p{i // 2}")
    return np.stack(images), captions, np.stack(findings), patients


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "again", "other")]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        world.write_encoder_checkpoints(*stand_ins(), folder, seed, effort=0.02)
    return folders


def test_every_checkpoint_passes_its_encoder_s_check(written: list[Path]):
    for name, place in PLACES.items():
        check_encoder(name, written[0] / place)


def test_a_seed_gives_the_same_weights_and_another_does_not(written: list[Path]):
    one, again, other = written
    for place in (*PLACES.values(), world.RESNET):
        assert sha256_of(one / place) == sha256_of(again / place)
        assert sha256_of(one / place) != sha256_of(other / place)


def test_training_leaves_torch_as_it_was(tmp_path: Path):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    world.write_encoder_checkpoints(*stand_ins(), tmp_path, 0, effort=0.001)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_joint_embeddings_have_the_published_width(written: list[Path]):
    image = Image.fromarray(stand_ins()[0][0]).convert("RGB")
    for name, place in PLACES.items():
        encoder = load_encoder(
            name, written[0] / place, torch.device("cpu"), deviations("sound"), "fidelity"
        )
        source = "Severe cardiomegaly." if encoder.reads == "caption" else image
        features = encoder.encode([encoder.prepare(source)])
        assert features.shape == (1, 48 if name == "rad_dino" else 128)


def test_a_copy_scores_near_one(written: list[Path]):
    encoder = load_encoder(
        "reid", written[0] / world.REID, torch.device("cpu"), deviations("sound"), "privacy"
    )
    features = encoder.encode([encoder.prepare(Image.fromarray(i)) for i in stand_ins()[0][:2]])
    weight, bias = encoder.extras["fc_end_weight"], encoder.extras["fc_end_bias"]
    scores = pair_scores(features, features, weight, bias)
    assert (scores > 0.98).all()


def test_the_classifier_s_initialisation_is_a_torchvision_resnet(written: list[Path]):
    path = written[0] / world.RESNET
    state = load_state(path)
    load_exactly(resnet_for(state), state, path)
    assert state["fc.weight"].shape[0] == 1000
    assert "layer1.0.downsample.0.weight" in state


def test_blur_is_gaussian_and_keeps_the_mean():
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 20] = 1
    y = world.blurred(x, 2.0)[0, 0]
    offset = torch.arange(41) - 20
    assert float(y.sum()) == pytest.approx(1, abs=1e-5)
    assert float((y.sum(0) * offset**2).sum()) == pytest.approx(4, rel=0.05)
