"""Progress of a training run that survives being killed: whole checkpoints, the last two kept."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workflow_scripts.common.files import whole_folder, write_text

log = logging.getLogger(__name__)
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A training run after `step` optimiser steps.

    Attributes:
        step: optimiser steps done.
        weights: the trained parameters.
        ema: their moving average, or None.
        optimiser: its state dict.
        scaler: the gradient scaler's state dict (fp16), else None.
        curve: one row (step, epoch, loss, learning rate) per step done.
    """

    step: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimiser: dict[str, Any]
    scaler: dict[str, Any] | None
    curve: list[tuple[int, float, float, float]]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    """Write a checkpoint under `folder`, whole or not at all, then remove all but the last two."""
    with whole_folder(folder / f"step-{checkpoint.step:08d}") as target:
        save_file(
            {name: value.contiguous() for name, value in checkpoint.weights.items()},
            target / "weights.safetensors",
        )
        if checkpoint.ema is not None:
            save_file(
                {name: value.contiguous() for name, value in checkpoint.ema.items()},
                target / "ema.safetensors",
            )
        state = {"optimiser": checkpoint.optimiser, "scaler": checkpoint.scaler}
        torch.save(state, target / "optimiser.pt")
        write_text(target / "curve.json", json.dumps(checkpoint.curve))
        write_text(target / "settings.json", json.dumps(settings, indent=1, sort_keys=True))
    for old in _steps(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """Load the newest checkpoint of a run with these settings; None where there is none.

    Progress that was made with other settings is not continued; the log says what differs.
    """
    for path in reversed(_steps(folder)):
        made_with = json.loads((path / "settings.json").read_text(encoding="utf-8"))
        differing = sorted(
            key
            for key in made_with.keys() | settings.keys()
            if made_with.get(key) != settings.get(key)
        )
        if differing:
            log.warning(
                "progress in %s was made with other settings and is not continued: %s",
                path,
                "; ".join(
                    f"{key} {made_with.get(key)} -> {settings.get(key)}" for key in differing
                ),
            )
            continue
        state = torch.load(path / "optimiser.pt", map_location="cpu", weights_only=True)
        curve = json.loads((path / "curve.json").read_text(encoding="utf-8"))
        return Checkpoint(
            step=int(path.name.removeprefix("step-")),
            weights=load_file(path / "weights.safetensors"),
            ema=load_file(path / "ema.safetensors")
            if (path / "ema.safetensors").is_file()
            else None,
            optimiser=state["optimiser"],
            scaler=state["scaler"],
            curve=[tuple(row) for row in curve],
        )
    return None


def note_job(folder: Path, job: dict[str, str | None]) -> list[dict[str, str | None]]:
    """Note in `folder` that a job works on the run; return all that did, the first first."""
    path = folder / "jobs.json"
    jobs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if job not in jobs:
        jobs.append(job)
        write_text(path, json.dumps(jobs))
    return jobs


def clear(folder: Path) -> None:
    """Remove all progress, and what a killed process left half-written."""
    shutil.rmtree(folder, ignore_errors=True)


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
