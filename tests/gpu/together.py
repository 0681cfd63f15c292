"""Two processes that share each step's batch, on two GPUs (or, with gloo, on a CPU).

A tiny Stable Diffusion trained by two processes is compared with one process that accumulates, and
the published one's step is timed in both: what exchanging gradients costs. With fewer than two GPUs
the part says so and does nothing.
"""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from tests.gpu.building import pipeline_for_training, train_settings
from tests.gpu.lines import Writer
from tests.gpu.measure import seconds_of
from tests.gpu.training import make_run

MODEL: Final = "sd_v1_5"
STEPS: Final = 3
LIMIT_S: Final = 600


def compare_together(device: torch.device, tiny: bool, say: Writer) -> None:
    """Compare two processes with one, and time a step of both."""
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        say("left out", None, "state", f"{torch.cuda.device_count()} GPU: two are needed")
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
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment = os.environ | ({**shared, **own, **more} if processes > 1 else {})
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
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
    work(sys.argv[1], Path(sys.argv[2]))
