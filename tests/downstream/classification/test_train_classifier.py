"""The script on images of blobs: learning, killed runs, leaks and refused inputs."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from sklearn.metrics import roc_auc_score

from tests.stops import STOPS, stop
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, read_manifest, write_manifest
from workflow_scripts.common.records import read_record
from workflow_scripts.downstream.classification import train
from workflow_scripts.downstream.outcomes import read_outcomes

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "workflow_scripts.downstream.classification.train"]
DRAWN = ("Cardiomegaly", "Edema", "Pneumothorax")


@pytest.fixture(scope="module")
def real_run(world):
    return world.run("real")


def test_separable_findings_are_learned_and_recorded(world, real_run):
    record = read_record(real_run / "record.json")
    assert (record.stage, record.model, record.family) == (
        "downstream",
        "real",
        "classification/real_only",
    )
    test = world.manifest[world.manifest["split"] == "test"]
    for finding in DRAWN:
        value = record.get("auroc", finding)
        assert value.value > 0.9
        assert value.n == len(test)
        assert record.details["n_positive"][finding] == int((test[finding] == 1).sum())
    assert record.get("auroc").value == pytest.approx(
        np.mean([record.get("auroc", finding).value for finding in DRAWN])
    )
    low, high = record.get("auroc").interval
    assert low < record.get("auroc").value < high
    (run,) = record.details["runs"]
    assert len(run["curve"]) == 12
    best = min(run["curve"], key=lambda entry: entry["validation_loss"])
    assert run["best_epoch"] == best["epoch"]


def test_absent_findings_say_why(real_run):
    record = read_record(real_run / "record.json")
    for metric in ("auroc", "f1"):
        value = record.get(metric, "Fracture")
        assert (value.value, value.reason) == (None, "no positive test image")
    assert record.get("accuracy", "Fracture").value > 0.9


def test_predictions_are_private_and_agree_with_the_record(world, real_run):
    path = real_run / "outcomes.parquet"
    assert path.stat().st_mode & 0o777 == 0o600
    predictions = pd.read_parquet(path)
    assert list(predictions.columns) == ["image_id", "patient_id", *FINDINGS]
    truth = world.manifest.set_index("image_id").loc[predictions["image_id"]]
    assert set(truth["split"]) == {"test"}
    record = read_record(real_run / "record.json")
    for finding in DRAWN:
        auroc = roc_auc_score(truth[finding].eq(1), predictions[finding])
        assert record.get("auroc", finding).value == pytest.approx(auroc, abs=1e-6)


def test_progress_is_removed_once_the_outputs_are_there(real_run):
    assert not (real_run / "progress").exists()


@pytest.mark.parametrize("shuffles", [3, pytest.param(8, marks=pytest.mark.full)])
def test_shuffled_labels_teach_nothing(shuffles, world, tmp_path):
    """A single shuffle leaves chance correlations of either sign; they average out over several."""
    rows = np.flatnonzero(world.manifest["split"] == "train")
    means = []
    for shuffle in range(shuffles):
        shuffled = world.manifest.copy()
        permuted = np.random.default_rng(shuffle).permutation(rows)
        for finding in FINDINGS:
            shuffled.loc[rows, finding] = shuffled[finding].to_numpy()[permuted]
        write_manifest(shuffled, tmp_path / "manifest.parquet")
        run = world.run(f"shuffled{shuffle}", manifest=tmp_path / "manifest.parquet", epochs=2)
        means.append(read_record(run / "record.json").get("auroc").value)
    assert np.mean(means) == pytest.approx(0.5, abs=0.12), means


def test_training_copies_change_nothing_beyond_noise(world, real_run):
    shard = world.copies()
    run = world.run(
        "augmented", setting="augmented", model="training_copies", shards=[shard], epochs=6
    )
    world.score([run], run / "gains.json", [real_run])
    copies = read_record(run / "gains.json")
    (trained,) = copies.details["runs"]
    assert trained["n_train_real"] == trained["n_train_synthetic"]
    gain = copies.get("auroc_gain")
    assert gain.value == pytest.approx(0, abs=0.05)
    low, high = gain.interval
    assert low < gain.value < high


def test_copies_alone_equal_the_real_images_exactly(world, real_run):
    run = world.run("copies", setting="synthetic_only", model="real", shards=[world.copies()])
    pd.testing.assert_frame_equal(
        read_outcomes(run / "outcomes.parquet").rows,
        read_outcomes(real_run / "outcomes.parquet").rows,
    )


def test_noise_teaches_nothing(world):
    generator = np.random.default_rng(5)
    pixels = generator.integers(0, 256, (len(world.prompts), 32, 32), dtype=np.uint8)
    images = {
        prompt: (Image.fromarray(image), None)
        for prompt, image in zip(world.prompts["prompt_id"], pixels, strict=True)
    }
    run = world.run(
        "noise",
        setting="synthetic_only",
        model="noise",
        shards=[world.shard("noise", images)],
        epochs=4,
    )
    assert read_record(run / "record.json").get("auroc").value < 0.7


@pytest.mark.parametrize("how", STOPS)
def test_a_stopped_run_continues_to_identical_predictions(world, caplog, how):
    changes = {"epochs": 20 if how == "killed" else 5, "learning_rate": 0.003}
    whole = world.run(f"not-{how}", **changes)
    folder = world.folder / "runs" / how
    stop(
        how,
        lambda: any((folder / "progress").glob("*/state.pt")),
        lambda: world.run(how, **changes),
        [*COMMAND, *world.arguments(how, **changes)],
        cwd=ROOT,
    )
    assert not (folder / "record.json").exists()
    with caplog.at_level("INFO"):
        world.run(how, **changes)
    assert "continuing at" in caplog.text
    pd.testing.assert_frame_equal(
        read_outcomes(folder / "outcomes.parquet").rows,
        read_outcomes(whole / "outcomes.parquet").rows,
    )


def test_progress_of_other_data_is_not_continued(world, caplog):
    arguments = world.arguments("other", epochs=2)
    progress = world.folder / "runs" / "other" / "progress"
    (world.folder / "runs" / "other").mkdir(parents=True)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "predict", stop)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments)
    assert any(progress.glob("*/state.pt"))
    run = world.run("other", epochs=2, seed=8)
    assert "starts anew" in caplog.text
    fresh = world.run("fresh", epochs=2, seed=8)
    pd.testing.assert_frame_equal(
        read_outcomes(run / "outcomes.parquet").rows,
        read_outcomes(fresh / "outcomes.parquet").rows,
    )


def test_progress_of_other_code_is_not_continued(world, caplog, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "predict", stop)
        patch.setattr(train, "own_digests", lambda module: [f"{module} before an edit"])
        with pytest.raises(KeyboardInterrupt):
            world.run("code", epochs=1)
    world.run("code", epochs=1)
    assert "starts anew" in caplog.text


def test_as_published_flips_splits_at_random_and_says_so(world, monkeypatch):
    seen = {}

    class Watched(train.ClassificationTask):
        def __init__(self, pixels, labels, training, validation, **settings):
            seen.update(settings, training=training)
            super().__init__(pixels, labels, training, validation, **settings)

    monkeypatch.setattr(train, "ClassificationTask", Watched)
    patients = read_manifest(world.folder / "manifest.parquet").set_index("image_id")["patient_id"]
    owner = patients.loc[world.prompts["image_id"]].to_numpy()
    outcome = {}
    for protocol in ("sound", "as_published"):
        run = world.run(protocol, protocol=protocol, epochs=1)
        record = read_record(run / "record.json")
        assert record.protocol == protocol
        inside = np.isin(np.arange(len(owner)), seen["training"])
        both_sides = set(owner[inside]) & set(owner[~inside])
        outcome[protocol] = (
            seen["flip"],
            bool(both_sides),
            record.details["runs"][0]["validation_split"],
        )
    assert outcome == {
        "sound": (False, False, "by patient"),
        "as_published": (True, True, "random"),
    }


def test_batch_larger_than_the_training_set(world):
    run = world.run("one_batch", batch_size=10_000, epochs=1)
    assert read_record(run / "record.json").details["runs"][0]["n_train"] < 10_000


def test_a_batch_in_pieces_and_bf16_are_learned_from_and_recorded(world, monkeypatch):
    AcceleratorState._reset_state(True)  # a process has one precision
    changes = {"per_device_batch_size": 11, "mixed_precision": "bf16", "epochs": 4}
    seen: dict[str, set] = {"train": set(), "predict": set()}

    def watched(name, plain, network, *given, **named):
        hook = network.conv1.register_forward_hook(
            lambda _, images, found: seen[name].add((len(images[0]), found.dtype))
        )
        made = plain(network, *given, **named)
        hook.remove()
        return made

    for name in seen:
        monkeypatch.setattr(train, name, partial(watched, name, getattr(train, name)))
    (run,) = read_record(world.run("pieces", **changes) / "record.json").details["runs"]
    assert max(rows for rows, _ in seen["train"]) == 11
    assert {dtype for _, dtype in seen["train"]} == {torch.bfloat16}
    assert {dtype for _, dtype in seen["predict"]} == {torch.float32}
    settings = run["settings"]
    assert (settings["per_device_batch_size"], settings["mixed_precision"]) == (11, "bf16")
    assert run["curve"][-1]["training_loss"] < 0.7 * run["curve"][0]["training_loss"]
    AcceleratorState._reset_state(True)


def test_diverging_training_stops_with_the_reason_and_writes_nothing(world):
    with pytest.raises(InputError, match="loss") as error:
        world.run("diverged", learning_rate=1e30, epochs=3)
    assert "epoch" in error.value.where
    assert not (world.folder / "runs" / "diverged" / "record.json").exists()


def test_a_control_that_shows_test_patients_is_refused(world):
    test_image = world.manifest.loc[world.manifest["split"] == "test", "image_id"].iloc[0]
    images = dict.fromkeys(world.prompts["prompt_id"], (world.images[test_image], test_image))
    shard = world.shard("leak", images)
    with pytest.raises(InputError, match="of the test split"):
        world.run("leak", setting="augmented", model="leak", shards=[shard])


def test_shards_without_need_or_missing_are_refused(world, capsys):
    with pytest.raises(SystemExit):
        world.run("refused", setting="augmented")
    with pytest.raises(SystemExit):
        world.run("refused", shards=[world.folder / "x.parquet"])
    assert "give --shards with" in capsys.readouterr().err


def test_a_broken_image_is_named(world, tmp_path):
    broken = world.manifest.copy()
    row = broken.index[broken["split"] == "test"][3]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    broken.loc[row, "path"] = str(tmp_path / "broken.png")
    write_manifest(broken, tmp_path / "manifest.parquet")
    with pytest.raises(InputError, match=r"broken\.png"):
        world.run("broken", manifest=tmp_path / "manifest.parquet")
