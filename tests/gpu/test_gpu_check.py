"""The GPU check runs on a CPU, outlives parts that fail, and computes what it says it does."""

import csv
import dataclasses
import os
import subprocess
import sys
import time
from types import ModuleType

import pytest

from tests.gpu import __main__ as driver
from tests.gpu import lines
from tests.gpu.building import config_of
from tests.gpu.measure import MARGIN, at_steps, largest_batch
from tests.gpu.parts import PARTS, SAMPLED_IN, Machine, Part

ABOUT = {"date": "2030-01-02", "gpu": "g", "driver": "1", "torch": "2", "python": "3"}


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_largest_batch_is_on_the_line_through_two_peaks():
    # 10 GiB and 2 more for each image; of 100 GiB, 92 are used: 41 images take them all.
    assert MARGIN == 0.08
    assert largest_batch({4: 18.0, 8: 26.0}, 100) == 41
    assert largest_batch({8: 26.0, 4: 18.0}, 99) == 40
    assert largest_batch({4: 18.0, 8: 26.0}, 10) == 0
    assert largest_batch({4: 18.0, 8: 18.0}, 100) is None


def test_seconds_of_all_steps_are_on_the_line_through_two_runs():
    # One second before and after, half a second a step.
    assert at_steps((4, 3.0), (8, 5.0), 50) == 26.0
    assert at_steps((4, 3.0), (8, 3.0), 50) is None


def test_a_difference_above_its_tolerance_fails(tmp_path):
    say = lines.Writer("agree", tmp_path / "lines")
    say.compare("kept", 0.5, 0.5, "x")
    say.compare("not kept", 0.6, 0.5, "x")
    say.compare("no number", float("nan"), 0.5, "x")
    found = lines.read_lines(tmp_path / "lines")
    assert [line.failed for line in found] == [False, True, True]


def test_what_is_not_finite_is_named_and_fails(tmp_path):
    say = lines.Writer("train", tmp_path / "lines")
    say.losses([0.5, 0.25])
    say.losses([0.5, float("inf"), float("nan")])
    say("seconds", float("nan"), "s", "how")
    found = lines.read_lines(tmp_path / "lines")
    assert [(line.name, line.value, line.failed) for line in found] == [
        ("loss", None, True),
        ("seconds", None, True),
    ]
    assert [line.note for line in found] == ["NOT FINITE: inf; of step 2", "NOT FINITE: nan; how"]


def test_goals_are_met_or_not(tmp_path, pretended, capsys):
    say = lines.Writer("train", tmp_path / "lines")
    say.goal("bare / ours", 0.95, 0.95, "of a step")
    say.goal("bare / ours", 0.94, 0.95, "of a step")
    met, missed = lines.read_lines(tmp_path / "lines")
    assert (met.note, met.failed) == ("of a step; goal 0.95: met", False)
    assert (missed.note, missed.failed) == ("of a step; goal 0.95: NOT MET", False)
    assert driver.run_all([pretended("slow")], False, 600, tmp_path / "out.csv", ABOUT) == []
    assert "slow: bare / ours 0.50, of a step; goal 0.95: NOT MET" in capsys.readouterr().err


def test_a_part_that_needs_more_than_there_is_is_left_out_by_name(pretended, tmp_path):
    two = dataclasses.replace(pretended("good"), gpus=2, memory_gib=100, needs=("no_such_package",))
    fits = dataclasses.replace(pretended("good"), memory_gib=79)
    machine = Machine(1, 79.6)
    assert driver.run_all([two, fits], False, 600, tmp_path / "out.csv", ABOUT, machine) == []
    left_out, *done = rows_of(tmp_path / "out.csv")
    assert left_out["note"] == (
        "left out: no no_such_package; needs 2 GPUs, and there is 1; "
        "needs 100 GiB of a GPU's memory at least, and it has 80"
    )
    assert [row["name"] for row in done] == ["seconds", "state"]
    assert two.lacking(None) == ["no no_such_package"]  # tiny, on a CPU
    assert not dataclasses.replace(two, needs=()).lacking(Machine(2, 141))


def test_the_gpus_of_this_process_are_counted(monkeypatch, tmp_path):
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\necho 'NVIDIA H200, 570.1, 143771'\necho 'NVIDIA A100, 570.1, 81920'\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert driver.machine_here() == Machine(2, 80)
    assert driver.circumstances(False)["gpu"] == "NVIDIA H200"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert driver.machine_here() == Machine(1, 80)


def test_sampling_and_extraction_have_parts_for_all_precisions():
    names = {part.name for part in PARTS}
    for model, own in SAMPLED_IN.items():
        assert own == config_of(model)["generate"]["precision"]
        assert f"sample:{model}" in names
        others = {f"sample:{model}:{p}" for p in ("fp32", "fp16", "bf16") if p != own}
        assert others <= names
    for encoder in ("rad_dino", "inception_v3", "densenet_121", "biovil_t_image", "biovil_t_text",
                    "reid", "cxas"):  # fmt: skip
        assert {f"encode:{encoder}{p}" for p in ("", ":fp16", ":bf16")} <= names
    two = {part.name for part in PARTS if part.gpus == 2}
    assert two == {"together", "together:sampling"}


@pytest.mark.full
@pytest.mark.parametrize(
    "model", ["sd_v1_5", "sd_v2_1", "pixart_sigma", "sana", "sd_v3_5", "flux_1_dev"]
)
def test_memory_that_parts_ask_for_is_what_their_networks_take(model):
    from tests.gpu.count import published_phases

    least = {phase.name: phase.least / 2**30 for phase in published_phases(model)}
    parts = {part.name: part for part in PARTS}
    steps, sampling = parts[f"train:{model}"].memory_gib, parts[f"sample:{model}"].memory_gib
    assert 0.85 * max(least["steps"], least["images encoded"]) < steps <= least["steps"]
    assert 0.8 * least["sampling"] < sampling <= least["sampling"]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    lines.Writer("one", tmp_path / "lines")("a", 1, "s")
    with (tmp_path / "lines").open("a") as stream:
        stream.write('{"part": "one", "na')
    assert [line.name for line in lines.read_lines(tmp_path / "lines")] == ["a"]


@pytest.fixture
def pretended(monkeypatch):
    """Parts of the test's own, which a forked process finds already imported."""
    module = ModuleType("tests.gpu.pretended")

    def good(device, tiny, say):
        assert (device.type, tiny) == ("cuda", False)
        say("seconds", 1.5, "s", "a note, with a comma")

    def slow(device, tiny, say):
        say.goal("bare / ours", 0.5, 0.95, "of a step")

    def fails(device, tiny, say):
        say("before", 1, "s")
        raise RuntimeError("out of memory\nand more")

    def hangs(device, tiny, say):
        time.sleep(60)

    def crashes(device, tiny, say):
        os._exit(9)

    def disagrees(device, tiny, say):
        say.compare("FID", 1.0, 0.1, "relative")

    for work in (good, slow, fails, hangs, crashes, disagrees):
        setattr(module, work.__name__, work)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(driver, "_can_fork", lambda tiny: True)
    return lambda name, limit=30, needs=(): Part(name, limit, needs, "pretended", name)


def test_parts_that_fail_cost_themselves_alone(pretended, tmp_path):
    parts = [
        pretended("fails"),
        pretended("hangs", limit=1),
        pretended("crashes"),
        pretended("disagrees"),
        pretended("good", needs=("json", "no_such_package")),
        pretended("good"),
    ]
    failed = driver.run_all(parts, False, 600, tmp_path / "new" / "out.csv", ABOUT)
    assert failed == ["fails", "hangs", "crashes", "disagrees"]
    rows = rows_of(tmp_path / "new" / "out.csv")
    assert tuple(rows[0]) == lines.COLUMNS
    assert all({name: row[name] for name in ABOUT} == ABOUT for row in rows)
    said = {(row["part"], row["name"]): row for row in rows if row["part"] != "good"}
    assert said["fails", "before"]["value"] == "1"
    assert said["fails", "error"]["note"] == "RuntimeError: out of memory"
    assert said["hangs", "state"]["note"] == "ended after 1 s: over its time limit"
    assert said["crashes", "state"]["note"] == "failed: exit code 9"
    assert said["disagrees", "FID"]["note"] == "relative; tolerance 0.1: NOT KEPT"
    left_out, seconds, done = [row for row in rows if row["part"] == "good"]
    assert left_out["note"] == "left out: no no_such_package"
    assert (seconds["value"], seconds["unit"], seconds["note"]) == (
        "1.5", "s", "a note, with a comma",
    )  # fmt: skip
    assert (done["name"], done["note"]) == ("state", "done")


def test_what_there_is_no_time_for_is_named(pretended, tmp_path):
    assert driver.run_all([pretended("good")], True, 1, tmp_path / "out.csv", ABOUT) == []
    assert rows_of(tmp_path / "out.csv")[-1]["note"] == "left out: no time was left"


def test_limits_leave_room_for_the_most_valuable_parts():
    assert len({part.name for part in PARTS}) == len(PARTS)
    # Within 8 minutes even where every one of the first six takes all that it may.
    assert sum(part.limit for part in PARTS[:6]) <= 8 * 60


def test_unknown_part_is_refused():
    with pytest.raises(SystemExit) as end:
        driver.main(["--cpu", "train:nothing"])
    assert end.value.code == 2


def test_without_a_gpu_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="nvidia-smi names no GPU"):
        driver.main(["hardware"])


@pytest.mark.full
def test_a_part_runs_in_a_process_that_was_started_anew(tmp_path):
    hardware = next(part for part in PARTS if part.name == "hardware")
    assert driver._run(hardware, True, tmp_path / "lines", 120, forks=False) is None
    names = [line.name for line in lines.read_lines(tmp_path / "lines")]
    assert names == ["product, bf16", "product, float32", "copy"]
    unknown = Part("hardware", 60, (), "nothing", "nothing")
    assert driver._run(unknown, True, tmp_path / "absent" / "lines", 120, forks=False)


@pytest.mark.full
def test_every_part_runs_tiny_on_a_cpu(tmp_path):
    out = tmp_path / "out.csv"
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu", "--cpu", "--minutes", "60", "--out", str(out)],
        cwd=driver.RESULTS.parents[2], capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    rows = rows_of(out)
    found = {(row["part"], row["name"]): row["value"] for row in rows}
    states = {row["part"]: row["note"] for row in rows if row["name"] == "state"}
    for part in PARTS:
        assert states[part.name] == "done"
        wanted = {
            "train": (
                "seconds per step",
                "images encoded per second",
                "peak memory",
                "bare / ours",
                "FLOP per step",
            ),
            "sample": ("images per second", "peak memory"),
            "encode": ("decoding", "preparing", "whole / bare", "whole, generated"),
            "classify": ("images per second",),
            "unet": ("seconds per step",),
            "reid": ("pairs per second", "peak memory"),
            "likeness": ("pairs per second", "peak memory"),
            "judge": (
                "passes per second",
                "passes with evidence per second",
                "images measured per second",
            ),
            "read": ("reports per second",),
            "report": (f"{'reports' if part.name == 'report:write' else 'images'} per second",),
            "switch": ("none",),
            "together": ("images",) if part.name == "together:sampling" else ("losses", "weights"),
        }.get(part.name.split(":")[0], ())
        if part.name.startswith("encode:biovil_t_text"):  # no image is decoded
            wanted = ("whole, generated",)
        for name in wanted:
            assert (part.name, name) in found, (part.name, name)
    # On one device there is no difference at all, and a resumed run comes to the same bits.
    for name in ("FID", "KID", "memberships", "closest, rows", "closest, distances"):
        assert float(found["agree:scores", name]) == 0
    assert float(found["agree:losses", "losses"]) == 0
    assert float(found["agree:features", "features, rad_dino"]) == 0
    assert float(found["resume", "resumed, weights"]) == 0
