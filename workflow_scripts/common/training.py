"""The seeded, resumable training loop that all networks of the evaluation share.

A task defines its loss (`Task`); the loop does the rest. Everything random in an epoch depends on
(seed, epoch, step) alone and never on what ran before. So a run that is killed and started again
continues after its last checkpoint and ends with the same bytes on a CPU. The loop uses accelerate:
one process on one device runs as plain torch, and `accelerate launch` makes the same loop
data-parallel. Checkpoints belong to an attempt (attempts.py), so a job that was given up but still
runs cannot touch those of its retry.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.resuming import is_of_same_run, read_unless_damaged
from workflow_scripts.common.seeded_order import STEP, epoch_batches, random_stream
from workflow_scripts.common.training_step import (
    check_finite,
    gradient_exchange,
    number_of_main,
    object_of_main,
)

log = logging.getLogger(__name__)

_REMEDY: Final = (
    "lower the learning rate; if it happens in the first step, check the initial weights"
)


class Task(Protocol):
    """What the loop needs of a task.

    Attributes:
        n_train: number of training rows (images, pairs, reports).
    """

    n_train: int

    def weight(self, rows: np.ndarray) -> int:
        """Return how many items (images, tokens) the mean loss of these rows averages over."""

    def loss(self, network: nn.Module, rows: np.ndarray, epoch: int) -> Tensor:
        """Return the mean training loss, a scalar, of rows in [0, n_train)."""

    def validation_loss(self, network: nn.Module) -> float | None:
        """Return the mean loss over all validation rows; None where there are none."""


@dataclass(frozen=True)
class Epoch:
    """One epoch's entry in the history; its losses are means over the items of `Task.weight`."""

    epoch: int
    training_loss: float
    validation_loss: float | None
    learning_rate: float


def train(
    network: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    scheduler: ReduceLROnPlateau | None,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    attempt: Attempt | None,
    key: str,
    accelerator: Accelerator,
    label: str,
    schedule: Callable[[float], float] | None = None,
    per_device_batch_size: int | None = None,
    checkpoint_every: int | None = None,
    keep_best: bool = True,
    max_grad_norm: float | None = None,
    stage: str = "state",
) -> list[Epoch]:
    """Train a network; it ends with the weights of the epoch with the lowest validation loss.

    Args:
        network: on the accelerator's device already, as are the optimiser's parameters.
        task: the losses.
        optimizer: over the network's trainable parameters.
        scheduler: stepped once per epoch with the validation loss, if there is one; None keeps the
            learning rate.
        epochs: number of epochs.
        batch_size: rows per optimiser step, over all processes together.
        seed: seed of order, augmentation and dropout.
        attempt: see `begin_attempt`; a checkpoint is written to its folder after each epoch. The
            caller calls `check` before it writes its outputs, and `end` once they are in place.
        key: digest of everything that the result depends on; a checkpoint with another key is not
            continued.
        accelerator: gives the number of processes that share a batch.
        label: names the run in the log.
        schedule: factor of the learning rate as a function of the share of steps done, in [0, 1),
            for schedules that change with every step; not together with `scheduler`.
        per_device_batch_size: rows that a process computes at once; gradients are accumulated over
            its part of a larger batch. None takes the whole part at once.
        checkpoint_every: write a checkpoint also after this many steps within an epoch; None does
            not.
        keep_best: False keeps the last epoch's weights instead, as it must be without validation.
        max_grad_norm: gradients are clipped to this norm; None does not clip.
        stage: names the checkpoint, for attempts that train more than one network.

    Returns:
        One entry per epoch.

    Raises:
        InputError: there are too few rows, the loss is not finite (the message names epoch and
            step), or another attempt took over.
    """
    if task.n_train < 2 * accelerator.num_processes:
        raise InputError(f"{label}: {task.n_train} training rows are too few to train on")
    initial_rates = [group["lr"] for group in optimizer.param_groups]
    checkpoints = _Checkpoints(attempt, stage, key, network, optimizer, scheduler, accelerator)
    state = checkpoints.load()
    history = state.history
    wrapped, prepared = accelerator.prepare(network, optimizer)
    stepper = _Stepper(
        wrapped, task, prepared, accelerator, seed, label, per_device_batch_size, max_grad_norm
    )
    steps = len(epoch_batches(task.n_train, batch_size, seed, 0))
    done = len(history) * steps + state.step
    meter = Progress(label, epochs * steps, "steps", done=done)
    for epoch in range(len(history), epochs):
        wrapped.train()
        for step, batch in enumerate(epoch_batches(task.n_train, batch_size, seed, epoch)):
            if step < state.step:
                continue
            if schedule is not None:
                share_done = (epoch * steps + step) / (epochs * steps)
                for group, rate in zip(prepared.param_groups, initial_rates, strict=True):
                    group["lr"] = rate * schedule(share_done)
            loss = stepper.do(batch, epoch, step)
            state.count_step(loss, task.weight(batch))
            meter.update(note=f"epoch {epoch + 1}, loss {loss:.4f}")
            if checkpoint_every and state.step % checkpoint_every == 0 and state.step < steps:
                checkpoints.save(state)
        learning_rate = float(prepared.param_groups[0]["lr"])
        validation_loss = stepper.validation_loss(epoch)
        if scheduler is not None and validation_loss is not None:
            scheduler.step(validation_loss)
        state.end_epoch(Epoch(epoch, state.mean_loss(), validation_loss, learning_rate))
        is_best = best_epoch(history) == epoch
        if is_best or not keep_best:
            state.best = _trained_state(network)
        checkpoints.save(state)
        log.info(
            "%s: epoch %d of %d, training loss %.4f, %s%s",
            label,
            epoch + 1,
            epochs,
            history[-1].training_loss,
            "no validation"
            if validation_loss is None
            else f"validation loss {validation_loss:.4f}",
            ", the best so far" if keep_best and is_best else "",
        )
    network.load_state_dict(state.best, strict=False)
    network.eval()
    return history


def begin_attempt(progress: Path, accelerator: Accelerator) -> Attempt | None:
    """Begin a new attempt, which takes over the checkpoints of earlier ones and ends them.

    Args:
        progress: folder of the checkpoints.
        accelerator: says which process is the main one.

    Returns:
        The attempt; None in every process but the main one.

    Raises:
        InputError: another attempt took over.
    """
    if not accelerator.is_main_process:
        return None
    attempt = Attempt(progress)
    attempt.inherit()
    return attempt


def best_epoch(history: list[Epoch]) -> int:
    """Return the number (from 0) of the epoch with the lowest validation loss.

    The first of equal ones wins. Epochs without a validation loss rank last.
    """

    def rank(entry: Epoch) -> tuple[float, int]:
        loss = entry.validation_loss
        return (float("inf") if loss is None else loss), entry.epoch

    return min(history, key=rank).epoch


def curve(history: list[Epoch]) -> list[dict[str, float | None]]:
    """Return the history in the form of records, with epochs counted from 1."""
    return [asdict(entry) | {"epoch": entry.epoch + 1} for entry in history]


@dataclass(frozen=True)
class _Stepper:
    """The optimiser steps of a run, and its validation; see `train` for the attributes.

    Attributes:
        network: as the accelerator has prepared it.
        optimizer: as the accelerator has prepared it.
    """

    network: nn.Module
    task: Task
    optimizer: Any
    accelerator: Accelerator
    seed: int
    label: str
    per_device_batch_size: int | None
    max_grad_norm: float | None

    def do(self, batch: np.ndarray, epoch: int, step: int) -> float:
        """Do one optimiser step; return its mean training loss, over all processes.

        Args:
            batch: the rows of all processes.
            epoch: the epoch, from 0.
            step: the step within the epoch, from 0.

        Raises:
            InputError: the loss is not finite.
        """
        accelerator, task = self.accelerator, self.task
        processes, rank = accelerator.num_processes, accelerator.process_index
        torch.manual_seed(_torch_seed(self.seed, epoch, step, rank))
        share_of_process = batch[rank::processes]
        # The first process has the largest share; all processes take as many pieces as it does.
        largest = len(batch[::processes])
        pieces = -(-largest // (self.per_device_batch_size or largest))
        weight = task.weight(batch)
        self.optimizer.zero_grad()
        mean_loss = 0.0
        for piece, rows in enumerate(np.array_split(share_of_process, pieces)):
            share = task.weight(rows) * processes / weight
            if len(rows) == 0:  # every process must take part, so it gets a row of weight zero
                rows, share = (share_of_process if len(share_of_process) else batch)[:1], 0.0
            with gradient_exchange(accelerator, self.network, now=piece + 1 == pieces):
                # Pieces and processes may differ in size: with their shares as weights, the
                # mean of means is the mean over the batch.
                loss = task.loss(self.network, rows, epoch) * share
                accelerator.backward(loss)
            mean_loss += float(accelerator.reduce(loss.detach(), "mean"))
        place = f"epoch {epoch + 1}, step {step}"
        check_finite(mean_loss, f"training loss of {self.label}", place, _REMEDY)
        if self.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)
        self.optimizer.step()
        return mean_loss

    def validation_loss(self, epoch: int) -> float | None:
        """Return the validation loss after an epoch: the main process's, in all processes.

        Raises:
            InputError: it is not finite.
        """
        self.network.eval()
        with torch.no_grad():
            loss = self.task.validation_loss(self.network)
        if loss is not None:
            loss = number_of_main(self.accelerator, loss)
            check_finite(loss, f"validation loss of {self.label}", f"epoch {epoch + 1}", _REMEDY)
        return loss


def _torch_seed(*place: int) -> int:
    seed, *rest = place
    return int(random_stream(seed, *rest, STEP).integers(2**63))


def _trained(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the tensors that training changes: trainable parameters and buffers."""
    frozen = {name for name, value in network.named_parameters() if not value.requires_grad}
    return ((name, value) for name, value in network.state_dict().items() if name not in frozen)


def _trained_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in _trained(network)}


@dataclass
class _State:
    """The progress of a run.

    Attributes:
        history: one entry per finished epoch.
        best: the trained tensors of the epoch that is kept so far.
        step: steps done in the current epoch.
        total: sum of the current epoch's losses, each times its weight.
        weight: sum of these weights.
    """

    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    total: float = 0.0
    weight: int = 0

    def count_step(self, loss: float, weight: int) -> None:
        """Count a step and its mean loss over `weight` items."""
        self.total += loss * weight
        self.weight += weight
        self.step += 1

    def mean_loss(self) -> float:
        """Return the current epoch's mean training loss."""
        return self.total / self.weight

    def end_epoch(self, entry: Epoch) -> None:
        """Add the current epoch to the history and begin the next one."""
        self.history.append(entry)
        self.step, self.total, self.weight = 0, 0.0, 0


@dataclass(frozen=True)
class _Checkpoints:
    """The checkpoint of a run, and its content in addition to `_State`; see `train`."""

    attempt: Attempt | None
    stage: str
    key: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: ReduceLROnPlateau | None
    accelerator: Accelerator

    def save(self, state: _State) -> None:
        """Write the checkpoint in the main process; the others wait.

        Raises:
            InputError: another attempt took over.
        """
        if self.attempt is not None:
            content = {
                "key": self.key,
                "history": [asdict(entry) for entry in state.history],
                "network": _trained_state(self.network),
                "best": state.best,
                "step": state.step,
                "total": state.total,
                "weight": state.weight,
                "optimizer": self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            }
            with (
                self.attempt.writing() as folder,
                whole_file(folder / f"{self.stage}.pt", make_parents=False) as temporary,
            ):
                torch.save(content, temporary)
        self.accelerator.wait_for_everyone()

    def load(self) -> _State:
        """Load the checkpoint if it is whole and from this run; otherwise start from scratch."""
        # All processes read the checkpoint that the main process's attempt has inherited.
        folder = object_of_main(str(self.attempt.folder) if self.attempt else "")
        path = Path(folder) / f"{self.stage}.pt"
        if not path.exists():
            return _State()
        saved: dict[str, Any] | None = read_unless_damaged(
            path, lambda: torch.load(path, map_location="cpu", weights_only=True)
        )
        if saved is None or not is_of_same_run(path, {"key": saved["key"]}, {"key": self.key}):
            log.warning("%s is not used: training starts anew", path)
            return _State()
        self.network.load_state_dict(saved["network"], strict=False)
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        history = [Epoch(**entry) for entry in saved["history"]]
        return _State(history, saved["best"], saved["step"], saved["total"], saved["weight"])
