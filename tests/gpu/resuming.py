"""How close a resumed training comes to an uninterrupted one, on a tiny Stable Diffusion.

On a CPU it comes to the same bits. On a GPU it need not: backward passes add in an order that
changes from run to run (atomic additions), which two uninterrupted runs show as well.
"""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from tests.gpu.building import pipeline_for_training, train_settings
from tests.gpu.lines import Writer
from tests.gpu.training import make_run
from workflow_scripts.finetune.resume import Checkpoint
from workflow_scripts.finetune.run import Run

STEPS: Final = 4
STOP: Final = 2


def compare_resumed(device: torch.device, tiny: bool, say: Writer) -> None:
    """Compare a resumed training, and a second uninterrupted one, with an uninterrupted one."""
    whole, again = (train(device, STEPS) for _ in "ab")
    resumed = train(device, STEPS, train(device, STOP).checkpoint())
    for name, other in (("twice", again), ("resumed", resumed)):
        say.compare(
            f"{name}, losses",
            max(abs(a[2] - b[2]) / a[2] for a, b in zip(whole.curve, other.curve, strict=True)),
            1e-2 if device.type == "cuda" else 0.0,
            f"relative, largest of {STEPS} steps",
        )
        pairs = zip(whole.network.parameters(), other.network.parameters(), strict=True)
        say(
            f"{name}, weights",
            max(float((a - b).detach().abs().max()) for a, b in pairs),
            "1",
            f"largest difference after {STEPS} steps of rate 1e-3",
        )


def train(device: torch.device, until: int, checkpoint: Checkpoint | None = None) -> Run:
    """Train a tiny Stable Diffusion until a step, from the beginning or from a checkpoint."""
    settings = dataclasses.replace(train_settings("sd_v1_5", tiny=True), learning_rate=1e-3)
    pipeline = pipeline_for_training("sd_v1_5", device, tiny=True)
    with TemporaryDirectory() as name:
        run = make_run("sd_v1_5", pipeline, settings, device, Path(name), checkpoint, STEPS)
        for batch in run.batches():
            run.advance(batch)
            if run.step == until:
                break
    run.images.close()
    return run
