"""The script on images of bars: learning, killed runs, leaks and refused inputs."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.stops import STOPS, stop
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.downstream.outcomes import read_outcomes
from workflow_scripts.downstream.segmentation import train
from workflow_scripts.downstream.segmentation.masks import read_masks
from workflow_scripts.downstream.segmentation.network import SegmentationTask, unet

from .conftest import SIZE, blurred, bright

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "workflow_scripts.downstream.segmentation.train"]


@pytest.fixture(scope="module")
def real_run(world) -> Path:
    return world.run("real")


def test_bars_are_found_and_the_outcomes_are_private(world, real_run):
    record = world.score(real_run)
    assert record.get("dice").value > 0.85
    assert record.get("dice_exact").value > 0.7
    assert real_run.stat().st_mode & 0o777 == 0o600
    assert not (real_run.parent / "progress").exists()
    outcomes = read_outcomes(real_run)
    assert outcomes.rows["image_id"].tolist() == world.test_ids
    masks = read_masks(world.real_masks).squares(world.test_ids, SIZE, 1, "x")
    assert outcomes.rows["true"].tolist() == masks.sum(axis=(1, 2)).tolist()
    bars = [int(world.bars[name].sum()) for name in world.test_ids]
    assert outcomes.rows["exact_true"].tolist() == bars


def test_every_arm_has_as_many_steps(world, real_run):
    arm = world.model("copies", lambda image: image)
    run = read_outcomes(world.run("copies", **arm)).run
    real = read_outcomes(real_run).run
    assert run["n_train_synthetic"] == run["n_train_real"] == real["n_train_real"]
    assert run["n_images"] == 2 * real["n_images"] == 2 * len(world.prompts)
    for one in (run, real):
        assert one["epochs"] * one["steps_per_epoch"] == pytest.approx(120, abs=6)


def test_training_copies_change_nothing_beyond_noise(world, real_run):
    arm = world.model("copies", lambda image: image)
    record = world.score(world.run("copies", **arm), baseline=(real_run,))
    assert record.get("dice_gain").value == pytest.approx(0, abs=0.05)


def test_blurred_images_cost_dice(world):
    """A labeller by brightness draws thin masks in blurred images, which the U-Net then learns."""
    arms = {
        "real": {},
        "copies": world.model("copies", lambda image: image),
        "blurred": world.model("blurred", blurred),
    }
    runs = {name: world.run(f"short_{name}", steps=60, **arm) for name, arm in arms.items()}
    gains = {
        name: world.score(runs[name], baseline=(runs["real"],)).get("dice_gain")
        for name in ("copies", "blurred")
    }
    assert gains["blurred"].interval[1] < 0
    assert gains["blurred"].value < gains["copies"].value - 0.01


def test_shuffled_masks_destroy_dice(world):
    ids = world.manifest.loc[world.manifest["split"] == "train", "image_id"].tolist()
    others = dict(zip(ids, np.random.default_rng(1).permutation(ids), strict=True))
    drawn = {i: bright(world.images[others.get(i, i)]) for i in world.images}
    changes = {"loss": "ce", "real_masks": world.masks("shuffled", drawn)}
    assert world.score(world.run("shuffled", **changes)).get("dice").value < 0.1
    assert world.score(world.run("ordered", loss="ce")).get("dice").value > 0.8


def test_a_real_image_and_its_twin_are_on_one_side(world, monkeypatch):
    seen = {}

    class Watched(SegmentationTask):
        def __init__(self, pixels, masks, training, validation, **settings):
            seen.update(training=training, validation=validation)
            super().__init__(pixels, masks, training, validation, **settings)

    monkeypatch.setattr(train, "SegmentationTask", Watched)
    world.run("twins", steps=1, **world.model("copies", lambda image: image))
    patients = read_manifest(world.folder / "manifest.parquet").set_index("image_id")["patient_id"]
    owner = np.tile(patients.loc[world.prompts["image_id"]].to_numpy(), 2)
    assert not set(owner[seen["training"]]) & set(owner[seen["validation"]])
    half = len(owner) // 2
    for rows in seen.values():
        assert (rows[rows >= half] - half).tolist() == rows[rows < half].tolist()


@pytest.mark.parametrize("how", STOPS)
def test_a_stopped_run_continues_to_identical_outcomes(world, caplog, how):
    changes = {"steps": 90}
    whole = world.run(f"not-{how}", **changes)
    folder = world.folder / "runs" / how
    stop(
        how,
        lambda: any((folder / "progress").glob("*/state.pt")),
        lambda: world.run(how, **changes),
        [*COMMAND, *world.arguments(how, **changes)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert not (folder / "outcomes.parquet").exists()
    with caplog.at_level("INFO"):
        continued = world.run(how, **changes)
    assert "continuing at" in caplog.text
    one, other = read_outcomes(whole), read_outcomes(continued)
    assert one.rows.equals(other.rows)
    assert one.run["curve"] == other.run["curve"]


def test_progress_of_other_masks_is_not_continued(world, caplog, monkeypatch):
    monkeypatch.setattr(train, "predict", lambda *_: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        world.run("other", steps=5)
    monkeypatch.undo()
    drawn = {i: np.roll(bright(p), 1, axis=0) for i, p in world.images.items()}
    world.run("other", steps=5, real_masks=world.masks("rolled", drawn))
    assert "starts anew" in caplog.text


def test_progress_of_other_code_is_not_continued(world, caplog, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train, "predict", lambda *_: exec("raise KeyboardInterrupt"))
        patch.setattr(train, "own_digests", lambda module: [f"{module} before an edit"])
        with pytest.raises(KeyboardInterrupt):
            world.run("code", steps=5)
    world.run("code", steps=5)
    assert "starts anew" in caplog.text


def test_masks_turn_with_their_images():
    """A mask of the bright half of its image still is that after the augmentation."""
    pixels = np.zeros((6, SIZE, SIZE), np.uint8)
    pixels[:, :, SIZE // 2 :] = 255
    task = SegmentationTask(
        pixels,
        pixels > 0,
        np.arange(6),
        np.arange(6),
        loss="ce",
        batch_size=6,
        rotation_degrees=30,
        contrast=0.2,
        seed=1,
        device=torch.device("cpu"),
    )
    seen = {}
    task.measure = lambda logits, masks: seen.update(images=logits, masks=masks) or logits.mean()
    task.loss(torch.nn.Identity(), np.arange(6), epoch=0)
    agree = ((seen["images"] > 0.5).float() == seen["masks"]).float().mean((1, 2, 3))
    assert (agree > 0.98).all()
    assert len({round(float(mask.mean()), 4) for mask in seen["masks"]}) > 1  # each its own angle
    assert set(seen["masks"].unique().tolist()) == {0.0, 1.0}


def test_every_loss_is_a_mean_over_images():
    """Pieces of a batch, and processes, are averaged by their numbers of images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, SIZE, SIZE), dtype=np.uint8)
    masks = rng.random((5, SIZE, SIZE)) < 0.1
    masks[0] = False  # an empty pseudo-mask
    network = unet([4, 8], 0, seed=0).eval()
    for loss in ("dice_ce", "dice", "ce"):
        task = SegmentationTask(
            pixels,
            masks,
            np.arange(5),
            np.arange(5),
            loss=loss,
            batch_size=2,
            rotation_degrees=0,
            contrast=0,
            seed=0,
            device=torch.device("cpu"),
        )
        with torch.no_grad():
            each = [float(task.loss(network, np.array([row]), 0)) for row in range(5)]
            whole = float(task.loss(network, np.arange(5), 0))
            assert whole == pytest.approx(np.mean(each), rel=1e-5)
            assert task.validation_loss(network) == pytest.approx(np.mean(each), rel=1e-5)


def test_faulty_input_is_refused_before_training(world, capsys, monkeypatch):
    monkeypatch.setattr(train, "train", None)
    arm = world.model("copies", lambda image: image)
    drawn = {prompt: np.ones((8, 8), bool) for prompt in world.prompts["prompt_id"]}
    elsewhere = world.masks("elsewhere", drawn, draw={"seed": 2})
    with pytest.raises(InputError, match="draw is"):
        world.run("refused", **arm | {"masks": elsewhere})
    with pytest.raises(InputError, match="labeller is"):
        world.run("refused", **arm | {"masks": world.masks("e", drawn, labeller={"classes": [1]})})
    empty = {i: np.zeros((SIZE, SIZE), bool) for i in world.images}
    with pytest.raises(InputError, match="pseudo-masks to train on are empty"):
        world.run("refused", real_masks=world.masks("empty", empty))
    few = {i: bright(p) for i, p in list(world.images.items())[8:]}
    with pytest.raises(InputError, match=r"2 image\(s\) without a mask"):
        world.run("refused", real_masks=world.masks("few", few))
    with pytest.raises(InputError, match="no mask for any of the 32 test images"):
        world.run("refused", exact_masks=world.folder / "images" / "nowhere")
    deep = {"channels": [4] * 7}
    for wrong in ({"setting": "augmented"}, {"masks": elsewhere}, deep):
        with pytest.raises(SystemExit):
            world.run("refused", **wrong)
    assert "--size must be divisible by 2" in capsys.readouterr().err


def test_a_control_that_shows_test_patients_is_refused(world):
    arm = world.model("leak", lambda image: image)
    leak = world.test_ids[0]
    prompt = world.prompts.loc[0, "image_id"]
    world.prompts.loc[0, "image_id"], kept = leak, prompt
    try:
        arm = world.model("leak", lambda image: image)
    finally:
        world.prompts.loc[0, "image_id"] = kept
    with pytest.raises(InputError, match="of the test split are among the images to train on"):
        world.run("leak", **arm)
