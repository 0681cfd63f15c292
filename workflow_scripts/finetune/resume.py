"""Progress of a training run that survives being killed: whole checkpoints, the last two kept."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.files import whole_folder
from workflow_scripts.common.resuming import is_of_same_run, read_unless_damaged

KEPT: Final = 2
"""Checkpoints that stay: the last one may turn out to be damaged."""


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
        private: for a training with a guarantee, its secret and the accountant's state.
    """

    step: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimiser: dict[str, Any]
    scaler: dict[str, Any] | None
    curve: list[tuple[int, float, float, float]]
    private: dict[str, Any] | None = None


def save_checkpoint(attempt: Attempt, checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    """Write a checkpoint in an attempt's folder, whole or not at all; keep it and the one before.

    Raises:
        InputError: another attempt took over.
    """
    with attempt.writing() as folder:
        with whole_folder(folder / f"step-{checkpoint.step:08d}", make_parents=False) as target:
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
            if checkpoint.private is not None:
                state["private"] = checkpoint.private
            torch.save(state, target / "optimiser.pt")
            # Plain writes, which make no missing parent.
            (target / "curve.json").write_text(json.dumps(checkpoint.curve), encoding="utf-8")
            text = json.dumps(settings, indent=1, sort_keys=True)
            (target / "settings.json").write_text(text, encoding="utf-8")
        for old in _steps([folder])[KEPT:]:
            shutil.rmtree(old)


def take_over(attempt: Attempt, settings: dict[str, Any]) -> tuple[Path, Checkpoint] | None:
    """Take over the furthest checkpoint that was made with these settings; None if there is none.

    Its checkpoint is linked into this attempt's folder, and all earlier attempts end. Progress that
    was made with other settings is not continued (the log says what differs), and neither is a
    damaged checkpoint. Both stay until this attempt has a checkpoint of its own.

    Returns:
        The checkpoint's folder, now this attempt's, and what it holds.

    Raises:
        InputError: another attempt took over from this one, or a checkpoint gives no access.
    """
    for path in _steps(attempt.earlier()):
        try:
            # It is linked first, because an attempt that is still running removes its old
            # checkpoints.
            adopted = attempt.adopt(path)
        except FileNotFoundError:
            attempt.check()
            if path.exists():
                continue
            return take_over(attempt, settings)  # it has written a newer one since
        checkpoint = _read(path, adopted, settings)
        if checkpoint is not None:
            attempt.keep()
            return adopted, checkpoint
        shutil.rmtree(adopted)
    return None


def _read(path: Path, adopted: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """Read a checkpoint by its link in this attempt's folder; the log names where it lay before."""
    return read_unless_damaged(path, lambda: read_checkpoint(adopted, settings))


def read_checkpoint(path: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """Read the checkpoint in a folder `step-...`; None where it was made with other settings.

    Raises:
        OSError, ValueError, KeyError, RuntimeError, UnpicklingError, SafetensorError: the
            checkpoint is damaged.
    """
    made_with = json.loads((path / "settings.json").read_text(encoding="utf-8"))
    if not is_of_same_run(path, made_with, settings):
        return None
    state = torch.load(path / "optimiser.pt", map_location="cpu", weights_only=True)
    curve = json.loads((path / "curve.json").read_text(encoding="utf-8"))
    averaged = settings.get("ema_decay") is not None
    return Checkpoint(
        step=int(path.name.removeprefix("step-")),
        weights=load_file(path / "weights.safetensors"),
        ema=load_file(path / "ema.safetensors") if averaged else None,
        optimiser=state["optimiser"],
        scaler=state["scaler"],
        curve=[tuple(row) for row in curve],
        private=state.get("private"),
    )


def _steps(folders: list[Path]) -> list[Path]:
    """Return the checkpoints in attempts' folders, the furthest first; of equals the newest."""
    checkpoints = [path for folder in folders for path in folder.glob("step-*")]
    return sorted(checkpoints, key=lambda path: (path.name, path.parent.name), reverse=True)
