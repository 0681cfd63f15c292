"""The training run: budget, order, draws, refusals, and what survives a SIGKILL."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers.training_utils import EMAModel
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from tests.stops import kill
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import centre_square
from workflow_scripts.common.manifest import read_manifest, write_manifest
from workflow_scripts.finetune import data
from workflow_scripts.finetune.batches import divide_batch
from workflow_scripts.finetune.data import read_training_rows
from workflow_scripts.finetune.draws import Draws, batch_order
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.options import parse_option
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.lora import LoraSettings
from workflow_scripts.finetune.private import GUARANTEE, PrivateSteps, read_secret
from workflow_scripts.finetune.resume import Checkpoint, save_checkpoint, take_over
from workflow_scripts.finetune.run import Run
from workflow_scripts.finetune.schedule import learning_rate_at, total_steps
from workflow_scripts.finetune.settings import PrivacySettings
from workflow_scripts.finetune.train import finetune

CPU = torch.device("cpu")


@given(devices=st.integers(1, 16), most=st.integers(1, 64), passes=st.integers(1, 8))
def test_the_total_batch_is_always_met(devices, most, passes):
    assert divide_batch(devices * most * passes, devices, most) == (most, passes)


@given(devices=st.integers(1, 64), share=st.integers(1, 64), more=st.integers(0, 64))
def test_a_device_takes_no_more_than_its_share(devices, share, more):
    assert divide_batch(devices * share, devices, share + more) == (share, 1)


@pytest.mark.parametrize(
    ("total", "devices", "most", "remedy"),
    [
        (128, 4, 24, "use a per-device batch of 16"),
        (128, 3, 16, "use a number of devices that divides 128"),
        (4, 8, 16, "use a number of devices that divides 4"),
    ],
)
def test_a_batch_that_cannot_be_met_is_refused(total, devices, most, remedy):
    with pytest.raises(InputError, match="do not divide the total batch") as caught:
        divide_batch(total, devices, most)
    assert remedy in str(caught.value)


def test_the_paper_protocol_in_numbers(settings):
    assert divide_batch(128, 4, 16) == (16, 2)
    assert total_steps(237_388, 20, 128) == 37_092
    constant = settings(learning_rate=5e-6)
    assert learning_rate_at(0, constant) == learning_rate_at(10**6, constant) == 5e-6
    warmed = settings(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate_at(step, warmed) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_rates_by_the_batch_are_those_of_the_trainers_of_sana_and_pixart(settings):
    def rate(learning_rate, batch_size):
        chosen = settings(
            learning_rate=learning_rate, batch_size=batch_size, auto_learning_rate=True
        )
        return learning_rate_at(0, chosen)

    assert rate(1e-4, 128) == pytest.approx(7.07e-5, rel=1e-3)
    assert rate(2e-5, 128) == pytest.approx(1.41e-5, rel=5e-3)
    assert rate(2e-5, 256) == 2e-5


def test_adams_epsilon_is_the_one_chosen(toy, train_toy):
    """With an epsilon far above the gradients, weights hardly move."""
    start = toy.family.load(toy.base).net.state_dict()
    moved = {
        epsilon: sum(
            float((value - start[key]).norm())
            for key, value in train_toy(f"e{epsilon}", adam_epsilon=epsilon, weight_decay=0).items()
        )
        for epsilon in (1e-8, 1e6)
    }
    assert moved[1e6] < 1e-3 * moved[1e-8]
    with pytest.raises(InputError, match=r"adam_epsilon: 0\.0 is less than or equal"):
        train_toy("wrong", adam_epsilon=0.0)


@pytest.mark.parametrize("in_float32", [False, True])
def test_the_autoencoder_is_loaded_in_float32_for_a_family_that_encodes_so(
    in_float32, toy, train_toy
):
    toy.family.encodes_in_float32 = in_float32
    loaded, plain = [], toy.family.load

    def load(base, *dtypes, **named):
        loaded.append((*dtypes, named))
        return plain(base)

    toy.family.load = load
    train_toy()
    only = {"vae_dtype": torch.float32} if in_float32 else {}
    assert loaded == [(torch.float32, torch.float32, only)]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"no_such": 1.0}, "has no option no_such"),
        ({"shift_by_size": 1.0}, "is true or false, not 1.0"),
    ],
)
def test_options_that_a_family_does_not_have_are_refused(options, fault, toy, settings):
    toy.family.training_options = {"shift_by_size": False}
    toy.family.load = None
    with pytest.raises(InputError, match=fault):
        finetune(
            toy.family,
            toy.base,
            toy.manifest,
            toy.folder / "out",
            toy.folder / "progress",
            settings(options=options),
        )


def test_options_are_read_from_the_command_line_as_they_are_meant():
    words = ("a=true", "b=0.25", "c=Generate a chest X-ray = now", "d=false")
    assert [parse_option(word)[1] for word in words] == [
        True,
        0.25,
        "Generate a chest X-ray = now",
        False,
    ]


@given(images=st.integers(1, 40), batch=st.integers(1, 60), seed=st.integers(0, 3))
def test_every_epoch_shows_every_image_once(images, batch, seed):
    steps = -(-3 * images // batch)
    order = np.concatenate([batch_order(seed, images, batch, step) for step in range(steps)])
    assert len(order) == steps * batch
    for epoch in range(3):
        shown = order[epoch * images : (epoch + 1) * images]
        assert sorted(shown) == list(range(images))


def test_draws_belong_to_the_image_and_not_to_its_neighbours():
    together, alone = Draws(7, 3, [0, 1, 5], CPU), Draws(7, 3, [5], CPU)
    assert together.uniform()[2] == alone.uniform()[0]
    assert torch.equal(together.normal((4, 2))[2], alone.normal((4, 2))[0])
    assert together.integers(1000)[2] == alone.integers(1000)[0]
    for other in (Draws(8, 3, [5], CPU), Draws(7, 4, [5], CPU), Draws(7, 3, [6], CPU)):
        assert not torch.equal(other.normal((4, 2)), Draws(7, 3, [5], CPU).normal((4, 2)))


def test_dropped_captions_have_their_share_and_timesteps_are_uniform(toy, train_toy):
    train_toy(epochs=200, batch_size=100, per_device_batch_size=100, caption_dropout=0.1)
    shown = toy.family.captions
    n = len(shown)
    assert n == 2400
    dropped = shown.count("")
    assert abs(dropped - 0.1 * n) < 4 * (n * 0.1 * 0.9) ** 0.5
    assert set(shown) - {""} == {f"caption {i}" for i in range(12)}
    # Kolmogorov-Smirnov distance to the uniform distribution, at the 0.1 % level.
    values = np.sort(toy.family.timesteps) / 1000
    assert np.abs(values - np.arange(n) / n).max() < 1.95 / n**0.5


def test_accumulation_gives_the_weights_of_the_whole_batch(train_toy):
    whole = train_toy("whole", epochs=10, batch_size=4, per_device_batch_size=4)
    parts = train_toy("parts", epochs=10, batch_size=4, per_device_batch_size=2)
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=0, atol=1e-6)


def test_a_device_that_could_take_more_trains_on_its_share(train_toy):
    whole = train_toy("whole", epochs=3, batch_size=4, per_device_batch_size=4)
    more = train_toy("more", epochs=3, batch_size=4, per_device_batch_size=64)
    assert all(torch.equal(whole[key], more[key]) for key in whole)


@pytest.mark.parametrize("name", ["batch_size", "per_device_batch_size", "checkpoint_every"])
def test_a_count_of_zero_is_refused(train_toy, name):
    with pytest.raises(InputError, match=f"{name}: 0 is less than the minimum of 1"):
        train_toy(**{name: 0})


def test_decoding_in_every_step_gives_the_weights_of_encoding_once(train_toy, monkeypatch):
    once = train_toy("once", epochs=3)
    monkeypatch.setattr(data, "ENCODED_IN_MEMORY", 0)
    each = train_toy("each", epochs=3)
    for key in once:
        torch.testing.assert_close(once[key], each[key], rtol=0, atol=1e-6)


def test_the_moving_average_is_what_is_saved(train_toy):
    steps = [train_toy(f"s{n}", epochs=n, batch_size=12) for n in (1, 2, 3)]
    kept = train_toy("kept", epochs=3, batch_size=12, ema_decay=0.75)
    torch.manual_seed(0)
    start = torch.nn.Linear(3, 3).state_dict()
    for key, value in start.items():
        for step in steps:
            value = 0.75 * value + 0.25 * step[key]
        torch.testing.assert_close(kept[key], value, rtol=0, atol=1e-6)
        assert not torch.equal(kept[key], steps[-1][key])
    # diffusers' own average is that one where it is told to leave out its warm-up: else it forgets
    # the start at its first step, and decays faster in the next ones.
    parameters = {key: torch.nn.Parameter(value.clone()) for key, value in start.items()}
    average = EMAModel(parameters.values(), decay=0.75, min_decay=0.75, update_after_step=-1)
    for step in steps:
        for key, parameter in parameters.items():
            parameter.data.copy_(step[key])
        average.step(parameters.values())
    for key, value in zip(parameters, average.shadow_params, strict=True):
        torch.testing.assert_close(kept[key], value, rtol=0, atol=1e-6)


def test_a_shorter_training_is_the_beginning_of_a_longer_one(toy, train_toy, monkeypatch):
    """Models that differ in epochs alone are checkpoints of one training (Figure 14)."""
    chosen = {"caption_dropout": 0.2, "warmup_steps": 4, "ema_decay": 0.9}
    shorter = train_toy("shorter", epochs=2, **chosen)
    longer, step = {}, Run._step

    def kept(self, loss, rate):
        step(self, loss, rate)
        longer[self.step] = {name: value.clone() for name, value in self.ema.items()}

    monkeypatch.setattr(Run, "_step", kept)
    train_toy("longer", epochs=5, **chosen)
    assert max(longer) == 15
    assert all(torch.equal(shorter[name], longer[6][name]) for name in shorter)
    curves = [(toy.folder / name / "training.csv").read_text() for name in ("shorter", "longer")]
    assert curves[1].startswith(curves[0])


def test_the_curve_has_a_row_per_step(toy, train_toy):
    train_toy(epochs=2, warmup_steps=2)
    curve = pd.read_csv(toy.folder / "out" / "training.csv")
    assert curve.columns.tolist() == ["step", "epoch", "loss", "learning_rate"]
    assert curve["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert curve["epoch"].iloc[-1] == pytest.approx(2.0)
    assert curve["learning_rate"].iloc[0] == pytest.approx(5e-4)
    assert np.isfinite(curve["loss"]).all()


def test_a_loss_that_is_not_finite_names_the_images_and_writes_nothing(toy, train_toy):
    toy.family.poison = 0.7  # only the brightest image, image11, lies above
    with pytest.raises(InputError, match="the loss is nan at step") as caught:
        train_toy(epochs=3)
    assert "images: image11" in str(caught.value)
    assert not (toy.folder / "out").exists()


def test_a_broken_image_is_named(toy, train_toy):
    (toy.folder / "image5.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    with pytest.raises(InputError, match="cannot decode an image") as caught:
        train_toy()
    assert "image5.png" in str(caught.value)


def test_a_missing_image_is_named_before_anything_is_loaded(toy, train_toy):
    (toy.folder / "image7.png").unlink()
    toy.family.load = None
    with pytest.raises(InputError, match="a training image is missing") as caught:
        train_toy()
    assert "image7.png" in str(caught.value)


def test_only_captioned_images_of_the_train_split_are_shown(tmp_path, cohort_writer):
    common = {
        "study_id": "s",
        "view": "AP",
        "site": None,
        "indication": None,
        "report": None,
        "path": "elsewhere",
    }
    extra = [
        {**common, "image_id": "silent", "patient_id": "a", "split": "train", "caption": None},
        {
            **common,
            "image_id": "held_out",
            "patient_id": "b",
            "split": "test",
            "caption": "clear",
            "caption_source": "test",
        },
    ]
    manifest = cohort_writer(tmp_path, {"one": np.zeros((8, 8), np.uint8)}, extra)
    assert read_training_rows(manifest)["image_id"].tolist() == ["image0"]


def test_preprocessing_keeps_the_middle_and_never_flips():
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 20:30], pixels[:, 30:40] = 100, 200
    square = np.asarray(centre_square(Image.fromarray(pixels), 20))
    assert square.shape == (20, 20)
    assert (square[:, :10] == 100).all()
    assert (square[:, 10:] == 200).all()
    shrunk = np.asarray(centre_square(Image.fromarray(pixels), 10))
    assert shrunk.shape == (10, 10)
    assert shrunk[5, 1] == 100
    assert shrunk[5, 8] == 200


def test_old_checkpoints_are_pruned_and_other_settings_not_continued(tmp_path, caplog):
    first = Attempt(tmp_path)
    for step in (2, 4, 6):
        weights = {"w": torch.full((2,), float(step))}
        checkpoint = Checkpoint(step, weights, None, {}, None, [])
        save_checkpoint(first, checkpoint, {"seed": 1, "size": 64})
    names = sorted(path.name for path in first.folder.iterdir())
    assert names == ["step-00000004", "step-00000006"]
    assert take_over(Attempt(tmp_path), {"seed": 2, "size": 64}) is None
    assert "seed 1 -> 2" in caplog.text
    path, found = take_over(Attempt(tmp_path), {"seed": 1, "size": 64})
    assert found.step == 6
    assert found.weights["w"].tolist() == [6, 6]
    assert [path.parent] == list(tmp_path.iterdir()), "earlier attempts' folders are left"


def test_a_family_from_outside_is_named_by_its_module():
    with pytest.raises(InputError, match="cannot be imported"):
        get_family("nowhere.to.be.found:Family")
    with pytest.raises(InputError, match="not a subclass of Family"):
        get_family("pathlib:Path")


def train_command(
    base: Base, manifest: Path, out: Path, progress: Path, more: dict[str, object] | None = None
) -> list[str]:
    flags = {
        "model": "tiny",
        "family": "stable_diffusion",
        "base": base.folder,
        "manifest": manifest,
        "output": out,
        "progress": progress,
        "learning-rate": 1e-3,
        "epochs": 40,
        "batch-size": 4,
        "per-device-batch-size": 2,
        "size": 32,
        "caption-dropout": 0.2,
        "checkpoint-every": 3,
        "cache": progress.parent / "encoded",
        "seed": 1,
        **(more or {}),
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "workflow_scripts.finetune.train", *words]


def in_two_processes(command: list[str]) -> str:
    """Run a script on two processes of one machine, without GPUs; return its log."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [command[0], *launcher, *command[1:]],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


_ADAPTER = {
    "method": "lora",
    "lora": LoraSettings(4, 4, False, ("attention",)),
    "optimiser": "came",
    "ema_decay": 0.9,
}
_PRIVATE = {
    "method": "lora",
    "lora": LoraSettings(4, 4, False, ("attention",)),
    "privacy": PrivacySettings(8.0, 0.1, "patient", 0.5, noise_seed=3),
}
_PRIVATE_FLAGS = {
    "method": "lora",
    "lora-rank": 4,
    "lora-alpha": 4,
    "privacy-epsilon": 8.0,
    "privacy-delta": 0.1,
    "privacy-unit": "patient",
    "privacy-max-grad-norm": 0.5,
    "privacy-noise-seed": 3,
}
_ADAPTER_FLAGS = {
    "method": "lora",
    "lora-rank": 4,
    "lora-alpha": 4,
    "optimiser": "came",
    "ema-decay": 0.9,
}


# The light twin of the other tier is a run that the clock stops: test_spans.py.
@pytest.mark.full
@pytest.mark.parametrize(
    ("chosen", "words", "weights"),
    [
        ({}, {}, "checkpoint/unet/diffusion_pytorch_model.safetensors"),
        (_ADAPTER, _ADAPTER_FLAGS, "checkpoint/pytorch_lora_weights.safetensors"),
        (_PRIVATE, _PRIVATE_FLAGS, "checkpoint/pytorch_lora_weights.safetensors"),
    ],
    ids=["full", "lora with a moving average", "lora with a guarantee"],
)
def test_killed_and_started_again_gives_the_same_bits(
    chosen, words, weights, tiny_sd, two_images, cohort_writer, settings, tmp_path
):
    manifest, base = cohort_writer(tmp_path, two_images), tiny_sd[1]
    finetune(
        get_family("stable_diffusion"),
        base,
        manifest,
        tmp_path / "calm",
        tmp_path / "calm_progress",
        settings(epochs=40, batch_size=4, per_device_batch_size=2, caption_dropout=0.2, **chosen),
        cache=tmp_path / "encoded",
    )
    progress, out = tmp_path / "progress", tmp_path / "killed"
    command = train_command(base, manifest, out, progress, words)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    kill(lambda: any(progress.glob("*/step-*")), command, env=environment)
    assert not out.exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "continuing at" in done.stderr
    assert len(list(progress.iterdir())) == 1, "the killed attempt's folder is left"

    calm, killed = load_file(tmp_path / "calm" / weights), load_file(out / weights)
    assert calm.keys() == killed.keys()
    assert all(torch.equal(calm[key], killed[key]) for key in calm)
    assert (out / "training.csv").read_bytes() == (tmp_path / "calm" / "training.csv").read_bytes()
    said = [folder / "checkpoint" / GUARANTEE for folder in (out, tmp_path / "calm")]
    assert [path.exists() for path in said] == ["privacy" in chosen] * 2
    if "privacy" in chosen:  # the account of all steps, those before the kill among them
        assert said[0].read_bytes() == said[1].read_bytes()
        assert json.loads(said[0].read_text())["steps"] == 20


@pytest.mark.full
def test_two_processes_and_one_that_accumulates_give_the_same_weights(
    tiny_sd, two_images, cohort_writer, settings, tmp_path
):
    manifest, base = cohort_writer(tmp_path, two_images), tiny_sd[2]
    finetune(
        get_family("stable_diffusion"),
        base,
        manifest,
        tmp_path / "one",
        tmp_path / "one_progress",
        settings(epochs=6, batch_size=4, per_device_batch_size=2, caption_dropout=0.2),
    )
    place = (tmp_path / "two", tmp_path / "two_progress")
    log = in_two_processes(train_command(base, manifest, *place, {"epochs": 6}))
    assert "4 = 2 device(s) x 2 x 1" in log
    weights = "checkpoint/unet/diffusion_pytorch_model.safetensors"
    start = load_file(base.folder / "unet" / "diffusion_pytorch_model.safetensors")
    one, two = (load_file(tmp_path / name / weights) for name in ("one", "two"))
    apart = sum(float((one[key] - two[key]).square().sum()) for key in one) ** 0.5
    moved = sum(float((one[key] - start[key]).square().sum()) for key in one) ** 0.5
    assert moved > 0
    assert apart < 1e-4 * moved


@pytest.mark.full
def test_two_processes_and_one_draw_clip_and_noise_the_same_patients(
    tiny_sd, two_images, cohort_writer, settings, tmp_path
):
    """Six patients, one of three images: in some steps a process has nobody to show."""
    first, second = two_images.values()
    pictures = {
        "the heart is large": first,
        "the lungs are clear": second,
        "the heart is clear": first.T,
        "the lungs are large": second.T,
        "heart": first[::-1],
        "lungs": second[:, ::-1],
        "large": first[:, ::-1],
        "clear": second[::-1],
    }
    manifest = cohort_writer(tmp_path, {key: x.copy() for key, x in pictures.items()})
    frame = read_manifest(manifest)
    frame.loc[:2, "patient_id"] = "patient0"
    write_manifest(frame, manifest)
    chosen = settings(epochs=6, batch_size=4, per_device_batch_size=2, **_PRIVATE)
    chosen = dataclasses.replace(chosen, caption_dropout=0.2)
    secret = read_secret(chosen.privacy)
    steps = PrivateSteps(chosen, frame["patient_id"].to_numpy(str), 12, secret)
    drawn = [len(steps.drawn(step)) for step in range(12)]
    assert min(drawn) <= 1 < max(drawn)
    family, base = get_family("stable_diffusion"), tiny_sd[1]
    finetune(family, base, manifest, tmp_path / "one", tmp_path / "one_progress", chosen)
    place = (tmp_path / "two", tmp_path / "two_progress")
    in_two_processes(train_command(base, manifest, *place, {**_PRIVATE_FLAGS, "epochs": 6}))
    weights = "checkpoint/pytorch_lora_weights.safetensors"
    one, two = (load_file(tmp_path / name / weights) for name in ("one", "two"))
    start_at_zero = [key for key in one if "lora_B" in key or "up.weight" in key]
    apart = sum(float((one[key] - two[key]).square().sum()) for key in start_at_zero) ** 0.5
    moved = sum(float(one[key].square().sum()) for key in start_at_zero) ** 0.5
    assert moved > 0
    assert apart < 1e-4 * moved
    said = [(tmp_path / name / "checkpoint" / GUARANTEE).read_bytes() for name in ("one", "two")]
    assert said[0] == said[1]


def test_a_users_accelerate_settings_move_no_weight(train_toy, monkeypatch):
    """accelerate divides every gradient by a number that its variable says, whatever it is told."""
    alone = train_toy("alone", epochs=5)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    within = train_toy("within", epochs=5)
    assert all(torch.equal(within[name], value) for name, value in alone.items())
