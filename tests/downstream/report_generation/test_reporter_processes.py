"""Training processes: stopped and continued, several in parallel, in half precision."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.stops import STOPS, stop
from workflow_scripts.downstream.outcomes import read_outcomes

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "workflow_scripts.downstream.report_generation.train"]
SMALL = {"real_images": 48, "max_new_tokens": 12, "generate_batch_size": 8}


@pytest.fixture(scope="module")
def whole_run(world):
    return world.run("whole", **SMALL)


@pytest.mark.parametrize("how", STOPS)
@pytest.mark.parametrize(
    ("where", "awaited"),
    [
        ("projector", "*/projector.pt"),
        ("adapter", "*/adapter.pt"),
        ("reports", "reports-*.json"),
    ],
)
def test_a_stopped_run_continues_to_the_same_bytes(world, whole_run, caplog, where, awaited, how):
    name = f"{how}-{where}"
    folder = world.folder / "runs" / name
    stop(
        how,
        lambda: any((folder / "progress").glob(awaited)),
        lambda: world.run(name, **SMALL),
        [*COMMAND, *world.arguments(name, **SMALL)],
        cwd=ROOT,
    )
    assert not (folder / "repeat-0.parquet").exists()
    with caplog.at_level("INFO"):
        world.run(name, **SMALL)
    assert "continuing at" in caplog.text
    one, other = read_outcomes(folder / "repeat-0.parquet"), read_outcomes(whole_run)
    pd.testing.assert_frame_equal(one.rows, other.rows)
    assert one.run["stages"] == other.run["stages"]


@pytest.mark.full
def test_two_processes_train_as_one(world):
    """Data-parallel over gloo: equal losses up to rounding, and one report per image."""
    small = {
        "real_images": 36,
        "lora_dropout": 0.0,
        "epochs": 1,
        "projector_epochs": 1,
        # Nine rows: five and four, in two pieces and in one, if each process counted its own.
        "projector_batch_size": 9,
        "per_device_batch_size": 4,
    }
    alone = read_outcomes(world.run("alone", **small))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*COMMAND, *world.arguments("together", **small)]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ
            | {
                "WORLD_SIZE": "2",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "ACCELERATE_USE_CPU": "true",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ends = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    together = read_outcomes(world.folder / "runs" / "together" / "repeat-0.parquet")
    assert together.rows["image_id"].tolist() == alone.rows["image_id"].tolist()
    for ours, theirs in zip(together.run["stages"], alone.run["stages"], strict=True):
        for one, other in zip(ours["curve"], theirs["curve"], strict=True):
            assert one["training_loss"] == pytest.approx(other["training_loss"], rel=1e-3)
            assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-3)


@pytest.mark.full
def test_half_precision_and_recomputed_activations_train_too(taught_world):
    world = taught_world
    arguments = world.arguments("bf16", mixed_precision="bf16", real_images=48)
    # A process of its own: accelerate keeps the precision of the first run in this one.
    subprocess.run([*COMMAND, *arguments, "--gradient-checkpointing"], cwd=ROOT, check=True)
    outcomes = read_outcomes(world.folder / "runs" / "bf16" / "repeat-0.parquet")
    curves = [entry for stage in outcomes.run["stages"] for entry in stage["curve"]]
    assert curves[-1]["training_loss"] < curves[0]["training_loss"] / 2
    assert outcomes.rows["generated"].str.len().gt(0).all()
