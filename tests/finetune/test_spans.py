"""Training in spans: stopped by the clock, gone on, finished; and attempts that do not meet."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.finetune.weights import weights_in
from workflow_scripts.common import files
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune import data, time_limit
from workflow_scripts.finetune.families.stable_diffusion import StableDiffusion
from workflow_scripts.finetune.finish import finish
from workflow_scripts.finetune.lora import LoraSettings
from workflow_scripts.finetune.span import is_finished
from workflow_scripts.finetune.time_limit import TimeLimit
from workflow_scripts.finetune.train import finetune, main

ROOT = Path(__file__).resolve().parents[2]
STEPS = 7


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands unless it is moved."""
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    clock = SimpleNamespace(now=1_000_000.0)
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(time=lambda: clock.now))
    return clock


class Hooked(StableDiffusion):
    """Calls what it is given before every loss, and before it encodes or saves.

    What it trains is what Stable Diffusion trains: one continues what the other has begun.
    """

    identity = StableDiffusion().identity

    def __init__(self, on_loss=None, on_encode=None, on_save=None):
        super().__init__()
        self.on_loss, self.on_encode, self.on_save = on_loss, on_encode, on_save

    def loss(self, *arguments):
        if self.on_loss:
            self.on_loss()
        return super().loss(*arguments)

    def encode_images(self, *arguments):
        if self.on_encode:
            self.on_encode()
        return super().encode_images(*arguments)

    def save(self, *arguments):
        super().save(*arguments)
        if self.on_save:
            self.on_save()


@pytest.fixture
def train(tiny_sd, two_images, cohort_writer, settings, tmp_path):
    """Train seven steps of the tiny Stable Diffusion into a folder; return the folder."""
    manifest = cohort_writer(tmp_path, two_images)

    def run(name, family=None, progress="progress", limit=None, cache=None, **changed):
        chosen = {
            "epochs": 2 * STEPS,
            "batch_size": 4,
            "per_device_batch_size": 4,
            "caption_dropout": 0.2,
            "checkpoint_every": 2,
            **changed,
        }
        finetune(
            family or StableDiffusion(),
            tiny_sd[1],
            manifest,
            tmp_path / name,
            tmp_path / progress,
            settings(**chosen),
            cache=cache,
            limit=limit,
        )
        return tmp_path / name

    return run


def content(folder):
    """Every file of a span but its state, by name: its bytes, or its tensors' bytes."""
    return {
        path.relative_to(folder).as_posix(): (
            weights_in(path) if path.suffix == ".safetensors" else path.read_bytes()
        )
        for path in folder.rglob("*")
        if path.is_file() and path.name != "span.json"
    }


@pytest.fixture(scope="module")
def kept():
    """What tests of this file keep for each other."""
    return {}


@pytest.fixture
def calm(train, kept):
    """The content of a span that nothing disturbed; trained once for all tests."""
    if not kept:
        kept.update(content(train("calm", progress="calm_progress")))
    return kept


def state(folder):
    found = json.loads((folder / "span.json").read_text())
    assert {"slurm_job_id", "slurm_node", "device"} <= found.pop("provenance").keys()
    return found


def minutes(clock, n):
    def wait():
        clock.now += 60 * n

    return wait


_ADAPTER = {
    "method": "lora",
    "lora": LoraSettings(4, 4, False, ("attention",)),
    "optimiser": "came",
    "ema_decay": 0.9,
}


@pytest.mark.parametrize("chosen", [{}, _ADAPTER], ids=["full", "lora with a moving average"])
def test_stopped_twice_by_the_clock_gives_the_same_bits(chosen, train, clock):
    calm = train("calm", progress="calm_progress", **chosen)
    slow = Hooked(on_loss=minutes(clock, 5))
    # Of 30 minutes half are the margin: three steps of five minutes fit in before it.
    spans = [train(str(n), slow, limit=TimeLimit(30), **chosen) for n in (1, 2, 3)]
    assert [state(span) for span in spans] == [
        {"finished": False, "step": 3, "steps": STEPS},
        {"finished": False, "step": 6, "steps": STEPS},
        {"finished": True, "step": STEPS, "steps": STEPS},
    ]
    assert [is_finished(span) for span in spans] == [False, False, True]
    assert content(spans[0]) == content(spans[1]) == {}
    assert content(spans[2]) == content(calm)
    assert {"training.csv"} < content(calm).keys()


def test_a_last_step_without_time_to_write_the_result_leaves_it_to_the_next_span(
    train, calm, clock
):
    slow = Hooked(on_loss=minutes(clock, 5))
    first = train("1", slow, limit=TimeLimit(48))
    assert state(first) == {"finished": False, "step": STEPS, "steps": STEPS}
    # Not one step is left, and time that is over does not keep the result from being written.
    second = train("2", Hooked(on_loss=pytest.fail), limit=TimeLimit(1, clock.now - 60))
    assert content(second) == calm


def test_a_repeated_last_span_trains_nothing_says_so_and_gives_the_same(train, caplog):
    """What a job leaves whose success was lost (its node with it): the retry has all of it."""
    caplog.set_level(logging.INFO)
    first = content(train("1"))
    assert "continuing" not in caplog.text
    assert content(train("1", Hooked(on_loss=pytest.fail))) == first
    assert f"continuing at {STEPS} of {STEPS} steps" in caplog.text


def test_a_span_without_a_step_fails_and_says_what_to_raise(train, clock, tmp_path):
    with pytest.raises(InputError, match=r"before the first step \(step 1 of 7\)") as caught:
        train("1", limit=TimeLimit(10, started=clock.now - 9.5 * 60))
    assert "raise `runtime` of finetune_train" in str(caught.value)
    assert not (tmp_path / "1").exists()
    train("1", Hooked(on_loss=minutes(clock, 5)), limit=TimeLimit(30))
    with pytest.raises(InputError, match=r"\(step 4 of 7\)"):
        train("2", limit=TimeLimit(10, started=clock.now - 9.5 * 60))


def test_encoding_spans_time_limits_too(train, calm, clock, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "BLOCK", 1)
    monkeypatch.setattr(data, "ENCODED_TOGETHER", 1)
    monkeypatch.setattr(data, "_BATCHES_AHEAD", 0)
    cache = tmp_path / "cache"
    slow = Hooked(on_encode=minutes(clock, 29.5))
    first = train("1", slow, limit=TimeLimit(30), cache=cache)
    assert state(first) == {"finished": False, "step": 0, "steps": STEPS}
    assert len(list(cache.glob("*/block-*.h5"))) == 1
    # The last block was encoded, then it was too late for a step: that is no failure either.
    second = train("2", slow, limit=TimeLimit(30), cache=cache)
    assert state(second)["step"] == 0
    assert len(list(cache.glob("*/block-*.h5"))) == 2
    third = train("3", Hooked(on_encode=pytest.fail), limit=TimeLimit(30), cache=cache)
    assert is_finished(third)
    assert content(third).keys() == calm.keys()


def test_the_time_limit_is_a_flag_in_minutes(tiny_sd, two_images, cohort_writer, tmp_path):
    flags = {
        "model": "tiny",
        "family": "stable_diffusion",
        "base": tiny_sd[1].folder,
        "manifest": cohort_writer(tmp_path, two_images),
        "output": tmp_path / "span",
        "progress": tmp_path / "progress",
        "learning-rate": 1e-3,
        "epochs": 2,
        "batch-size": 4,
        "per-device-batch-size": 4,
        "size": 32,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    with pytest.raises(InputError, match="before the first step"):
        main([*words, "--time-limit", "0.001"])
    main(words)
    assert is_finished(tmp_path / "span")


def test_the_margin_covers_steps_and_writing_up_to_half_of_the_limit(clock):
    limit = TimeLimit(60)
    assert limit.margin_s == 60
    limit.start()
    clock.now += 20
    limit.step_done()
    clock.now += 30
    limit.step_done()
    with limit.writing():
        clock.now += 10
    clock.now += 5
    limit.step_done()
    assert limit.margin_s == 3 * (30 + 10)
    assert not limit.is_near()
    clock.now = 1_000_000 + 3600 - 121
    assert not limit.is_near()
    clock.now += 1
    assert limit.is_near()
    limit.step_done()  # one long step
    assert limit.margin_s == 1800
    assert TimeLimit(1).margin_s == 30


def test_the_end_of_time_is_what_slurm_says(clock, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(clock.now) + 600))
    limit = TimeLimit(60, started=clock.now - 3000)
    clock.now += 539
    assert not limit.is_near()
    clock.now += 1
    assert limit.is_near()
    assert not TimeLimit(None).is_near()


def test_an_end_of_the_past_is_left_over_from_another_job(clock, monkeypatch, caplog):
    """A shell of an allocation that has ended goes on, and so does what is started in it."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(clock.now) - 86400))
    limit = TimeLimit(60, started=clock.now)
    assert not limit.is_near()
    assert "SLURM_JOB_END_TIME" in caplog.text
    clock.now += 3600 - 61
    assert not limit.is_near()
    clock.now += 1
    assert limit.is_near()


@pytest.mark.full
def test_all_processes_stop_at_the_same_step(tiny_sd, two_images, cohort_writer, tmp_path):
    """The first process's clock runs and the other's stands: left to itself it would train on."""
    manifest = cohort_writer(tmp_path, two_images)

    def span(number):
        flags = {
            "model": "tiny",
            "family": "tests.finetune.slow_family:SlowStableDiffusion",
            "base": tiny_sd[1].folder,
            "manifest": manifest,
            "output": tmp_path / str(number),
            "progress": tmp_path / "progress",
            "learning-rate": 1e-3,
            "epochs": 10,  # five steps
            "batch-size": 4,
            "per-device-batch-size": 2,
            "size": 32,
            "time-limit": 30,
        }
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        subprocess.run(
            [sys.executable, *launcher, "-m", "workflow_scripts.finetune.train", *words],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=300,
        )
        return state(tmp_path / str(number))

    assert span(1) == {"finished": False, "step": 3, "steps": 5}
    assert span(2) == {"finished": True, "step": 5, "steps": 5}


def on_call(n, act):
    """Call `act` the nth time."""
    calls = []

    def hook():
        calls.append(None)
        if len(calls) == n:
            act()

    return hook


def test_an_attempt_that_was_given_up_ends_when_a_newer_one_is_done(train, calm, tmp_path):
    older = Hooked(on_loss=on_call(6, lambda: train("out")))  # its newer twin, from step 4 on
    with pytest.raises(InputError, match=r"attempt-000002-\w+ has taken over from attempt-000001"):
        train("out", older)
    assert content(tmp_path / "out") == calm
    assert [path.name[:14] for path in (tmp_path / "progress").iterdir()] == ["attempt-000002"]


def test_an_attempt_that_was_given_up_ends_when_its_folder_is_gone(train, calm, tmp_path):

    def newer():
        span = train("1")
        finish(span, tmp_path / "model", tmp_path / "curve.csv", tmp_path / "progress")

    with pytest.raises(InputError, match="has been taken away"):
        train("1", Hooked(on_loss=on_call(3, newer)))
    assert content(tmp_path / "1") == calm
    assert not (tmp_path / "progress").exists()


def test_an_attempt_that_was_given_up_leaves_the_next_what_it_wrote_last(train, calm, tmp_path):
    older = Hooked(on_loss=on_call(5, lambda: Attempt(tmp_path / "progress")))
    with pytest.raises(InputError, match="has taken over"):
        train("out", older)
    assert not (tmp_path / "out").exists()
    steps = []
    assert content(train("out", Hooked(on_loss=lambda: steps.append(1)))) == calm
    assert len(steps) == STEPS - 4  # the last checkpoint before the other began is of step 4


def test_an_attempt_that_was_given_up_while_it_writes_its_result_publishes_nothing(train, tmp_path):
    with pytest.raises(InputError, match="has taken over"):
        train("out", Hooked(on_save=lambda: Attempt(tmp_path / "progress")))
    assert [path.name for path in tmp_path.glob("*out*")] == []
    assert is_finished(train("out", Hooked(on_loss=pytest.fail)))


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.pt", "curve.json"])
@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    name, damage, train, calm, tmp_path, caplog
):
    with pytest.raises(KeyboardInterrupt):
        train("out", Hooked(on_loss=on_call(6, _interrupt)))
    path = next((tmp_path / "progress").glob("*/step-00000004")) / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    steps = []
    assert content(train("out", Hooked(on_loss=lambda: steps.append(1)))) == calm
    assert "is damaged and not continued" in caplog.text
    assert len(steps) == STEPS - 2


def _interrupt():
    raise KeyboardInterrupt


def finish_into(span, tmp_path):
    finish(span, tmp_path / "checkpoint", tmp_path / "training.csv", tmp_path / "progress")
    return {
        path.relative_to(tmp_path / "checkpoint").as_posix(): path
        for path in (tmp_path / "checkpoint").rglob("*")
        if path.is_file()
    }


def test_finishing_links_the_weights_and_removes_what_is_done_with(train, tmp_path):
    (tmp_path / "spans" / "2").mkdir(parents=True)  # of an earlier, longer training
    span = train("spans/1")
    found = finish_into(span, tmp_path)
    assert not (tmp_path / "progress").exists()
    assert [path.name for path in (tmp_path / "spans").iterdir()] == ["1"]
    sources = {
        path.relative_to(span / "checkpoint").as_posix(): path
        for path in (span / "checkpoint").rglob("*")
        if path.is_file()
    }
    assert found.keys() == sources.keys()
    assert "unet/diffusion_pytorch_model.safetensors" in found
    assert all(path.samefile(sources[name]) for name, path in found.items())
    assert (tmp_path / "training.csv").read_bytes() == (span / "training.csv").read_bytes()
    assert not (tmp_path / "training.csv").samefile(span / "training.csv")
    again = finish_into(span, tmp_path)
    assert again.keys() == sources.keys()


def test_finishing_copies_where_there_are_no_links(train, tmp_path, monkeypatch):
    span = train("spans/1")

    def refuse(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(files.os, "link", refuse)
    found = finish_into(span, tmp_path)
    path = found["unet/diffusion_pytorch_model.safetensors"]
    source = span / "checkpoint/unet/diffusion_pytorch_model.safetensors"
    assert path.read_bytes() == source.read_bytes()
    assert not path.samefile(source)


def test_finishing_refuses_a_span_that_was_not_the_last(train, clock, tmp_path):
    span = train("spans/1", Hooked(on_loss=minutes(clock, 5)), limit=TimeLimit(30))
    with pytest.raises(InputError, match="is not finished"):
        finish_into(span, tmp_path)
    assert (tmp_path / "progress").exists()
    (span / "span.json").write_text("{")
    with pytest.raises(InputError, match="not the state of a fine-tuning span"):
        finish_into(span, tmp_path)
