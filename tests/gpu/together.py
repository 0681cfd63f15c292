"""Two processes that share a step's batch or a shard's images, on two GPUs (or a CPU, by gloo).

A tiny Stable Diffusion trained by two processes is compared with one process that accumulates, and
the published one's step is timed in both: what exchanging gradients costs. A shard that two
processes sample is compared with one process's, byte by byte. With fewer than two GPUs the parts
say so and do nothing.
"""

import dataclasses
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pandas as pd
import torch

from tests.gpu.building import CAPTION, pipeline_for_training, train_settings
from tests.gpu.lines import Writer
from tests.gpu.measure import seconds_of
from tests.gpu.training import make_run
from workflow_scripts.generate.lifeline import environment, lifeline, started

MODEL: Final = "sd_v1_5"
STEPS: Final = 3
IMAGES: Final = 6
LIMIT_S: Final = 600


def compare_together(device: torch.device, tiny: bool, say: Writer) -> None:
    """Compare two processes with one, and time a step of both."""
    if _too_few(device, say):
        return
    with TemporaryDirectory() as name:
        alone, together = (start(processes, Path(name), device.type) for processes in (1, 2))
    losses = zip(alone["losses"], together["losses"], strict=True)
    what = f"relative, largest of {STEPS} steps of a tiny {MODEL}, two processes and one"
    bound = 1e-5 if device.type == "cpu" else 5e-3  # a GPU's convolutions multiply in TF32
    say.compare("losses", max(abs(a - b) / a for a, b in losses), bound, what)
    pairs = zip(alone["weights"], together["weights"], strict=True)
    away = max(float((a - b).abs().max()) for a, b in pairs)
    say("weights", away, "1", f"largest difference after {STEPS} steps of rate 1e-3")
    for count, found in ((1, alone), (2, together)):
        if found["seconds"] is not None:
            say(f"seconds per step, {count} GPU(s)", found["seconds"], "s", found["settings"])


def compare_sampling(device: torch.device, tiny: bool, say: Writer) -> None:
    """Compare a shard that two processes sample with one process's: the images' bytes."""
    from workflow_scripts.common.images import read_shards

    if _too_few(device, say):
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_shard_inputs(folder)
        shown, seconds = {}, {}
        for processes in (1, 2):
            began = time.perf_counter()
            sample_in(processes, folder, device.type)
            seconds[processes] = time.perf_counter() - began
            shown[processes] = {
                item.id: item.data for item in read_shards([_shard(folder, processes)])
            }
    assert len(shown[1]) == IMAGES, len(shown[1])
    differ = sum(shown[1][key] != shown[2].get(key) for key in shown[1])
    say.compare("images", differ, 0, f"of {IMAGES} of a tiny {MODEL}, whose bytes differ")
    for processes, taken in seconds.items():
        say(f"seconds, {processes} process(es)", taken, "s", "starting and loading included")


def write_shard_inputs(folder: Path) -> None:
    """Write a tiny Stable Diffusion and a prompt set of `IMAGES` captions."""
    from workflow_scripts.common.manifest import FINDINGS, write_prompts
    from workflow_scripts.world.diffusion import (
        clip_tokenizer_files,
        train_vae,
        write_tiny_pipeline,
    )

    torch.manual_seed(0)
    vae = train_vae(torch.rand(2, 3, 32, 32) * 2 - 1, 1, batch=2)
    write_tiny_pipeline(1, clip_tokenizer_files([CAPTION], 60), vae, folder / "base")
    rows = pd.DataFrame(
        {
            "prompt_id": [f"test-{i:03d}" for i in range(IMAGES)],
            "image_id": [f"image{i}" for i in range(IMAGES)],
            "caption": [f"{CAPTION} {i}" for i in range(IMAGES)],
            "replicate": 0,
            "seed": range(IMAGES),
            "caption_source": "llava_rad",
            "second_wording": False,
        }
    )
    for finding in FINDINGS:
        rows[finding] = pd.array([None] * IMAGES, dtype="Int8")
    write_prompts(rows, folder / "prompts.parquet")


def sample_in(processes: int, folder: Path, device: str) -> None:
    """Sample the shard in so many processes, as the workflow does.

    Raises:
        RuntimeError: one of them failed.
    """
    gpus = 0 if device == "cpu" else processes
    command = [
        sys.executable, "-m", "workflow_scripts.generate.sample",
        "--model", "tiny", "--family", "stable_diffusion",
        "--base", str(folder / "base"), "--prompts", str(folder / "prompts.parquet"),
        "--output", str(_shard(folder, processes)), "--progress", str(folder / f"p{processes}"),
        "--steps", "2", "--guidance", "2", "--size", "32", "--batch-size", "2",
        "--gpus", str(gpus), "--processes", str(processes),
    ]  # fmt: skip
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace").strip().splitlines()[-1][:300])


def _shard(folder: Path, processes: int) -> Path:
    return folder / f"by{processes}.parquet"


def _too_few(device: torch.device, say: Writer) -> bool:
    if device.type != "cuda" or torch.cuda.device_count() >= 2:
        return False
    say("left out", None, "state", f"{torch.cuda.device_count()} GPU: two are needed")
    return True


def start(processes: int, folder: Path, device: str) -> dict[str, Any]:
    """Run so many processes of this module and return what the first of them leaves.

    Raises:
        RuntimeError: one of them failed or took too long.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = folder / f"{processes}.pt"
    command = [sys.executable, "-m", "tests.gpu.together", device, str(target)]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    more = {"ACCELERATE_USE_CPU": "true"} if device == "cpu" else {}
    running = []
    with lifeline() as (child, _):
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            given = {**shared, **own, **more} if processes > 1 else {}
            given = os.environ | given | environment(child)
            running.append(
                subprocess.Popen(command, env=given, stderr=subprocess.PIPE, pass_fds=(child,))
            )
        try:
            ends = [process.communicate(timeout=LIMIT_S) for process in running]
        finally:
            for process in running:
                process.kill()
    for process, (_, said) in zip(running, ends, strict=True):
        if process.returncode:
            raise RuntimeError(said.decode(errors="replace").strip().splitlines()[-1][:300])
    return torch.load(target, weights_only=True)


def work(device_type: str, target: Path) -> None:
    """Train as one of the processes; the first writes losses, weights and seconds."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    cpu = device_type == "cpu"
    if cpu:
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(rank)
    device = torch.device("cpu") if cpu else torch.device("cuda", rank)
    settings = dataclasses.replace(
        train_settings(MODEL, tiny=True),
        mixed_precision="no",
        learning_rate=1e-3,
        batch_size=4,
        per_device_batch_size=2,
    )
    pipeline = pipeline_for_training(MODEL, device, tiny=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.float()
    with TemporaryDirectory() as folder:
        run = make_run(MODEL, pipeline, settings, device, Path(folder), steps=STEPS)
        for batch in run.batches():
            run.advance(batch)
    weights = [value.detach().cpu() for value in run.network.parameters()]
    found: dict[str, Any] = {"losses": [row[2] for row in run.curve], "weights": weights}
    found |= {"seconds": None, "settings": ""}
    if not cpu:
        del pipeline, run
        found |= _timed(device)
    if rank == 0:
        torch.save(found, target)


def _timed(device: torch.device) -> dict[str, Any]:
    settings = train_settings(MODEL, tiny=False)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    images = settings.per_device_batch_size
    settings = dataclasses.replace(settings, batch_size=world * images, mixed_precision="no")
    pipeline = pipeline_for_training(MODEL, device, tiny=False)
    for part in (pipeline.vae, pipeline.text_encoder):
        part.float()
    with TemporaryDirectory() as folder:
        run = make_run(MODEL, pipeline, settings, device, Path(folder))
        batch = next(run.batches())
    note = f"{settings.method}, {settings.mixed_precision}, {settings.size} px, {images} images"
    seconds = seconds_of(lambda: run.advance(batch), device, 5)
    return {"seconds": seconds, "settings": f"{note} on each GPU"}


if __name__ == "__main__":
    started()
    work(sys.argv[1], Path(sys.argv[2]))
