"""The seeded, resumable training loop that all networks of the evaluation share.

A task defines its loss (`Task`); the loop does the rest. Everything random in an epoch depends on
(seed, epoch, step) alone and never on what ran before. So a run that is killed and started again
continues after its last checkpoint and ends with the same bytes on a CPU. The loop uses accelerate:
one process on one device runs as plain torch, and `accelerate launch` makes the same loop
data-parallel. Checkpoints belong to an attempt (attempts.py), so a job that was given up but still
runs cannot touch those of its retry.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from workflow_scripts.common.access import require_access
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.progress import Progress

log = logging.getLogger(__name__)

_ORDER, _STEP = 0, 1  # the streams of random numbers that the loop itself draws


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


def random_stream(seed: int, *place: int) -> np.random.Generator:
    """Return the random generator that belongs to a seed and a place (epoch, step, purpose)."""
    return np.random.default_rng([seed, *place])


def epoch_batches(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the row numbers of an epoch's batches: a shuffle of all n rows, each used once.

    Batch sizes differ by at most one row. A last batch of one or two rows, which plain slicing
    leaves, would break batch normalisation and give these rows the weight of a whole batch.
    """
    order = random_stream(seed, epoch, _ORDER).permutation(n)
    return np.array_split(order, max(1, -(-n // batch_size)))


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
        seed: of order, augmentation and dropout.
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
    world, rank = accelerator.num_processes, accelerator.process_index
    if task.n_train < 2 * world:
        raise InputError(f"{label}: {task.n_train} training rows are too few to train on")
    base_rates = [group["lr"] for group in optimizer.param_groups]
    state = _resume(attempt, stage, key, network, optimizer, scheduler)
    history = state.history
    wrapped, stepper = accelerator.prepare(network, optimizer)
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
                for group, base in zip(stepper.param_groups, base_rates, strict=True):
                    group["lr"] = base * schedule(share_done)
            torch.manual_seed(_torch_seed(seed, epoch, step, rank))
            own = batch[rank::world]
            # The first process has the largest share; all processes take as many pieces as it does.
            largest = len(batch[::world])
            pieces = -(-largest // (per_device_batch_size or largest))
            weight = task.weight(batch)
            stepper.zero_grad()
            mean_loss = 0.0
            for piece, rows in enumerate(np.array_split(own, pieces)):
                share = task.weight(rows) * world / weight
                if len(rows) == 0:  # every process must take part, if with a row of weight zero
                    rows, share = (own if len(own) else batch)[:1], 0.0
                # Gradients are exchanged between processes once, with the last piece.
                apart = piece + 1 < pieces
                with accelerator.no_sync(wrapped) if apart else contextlib.nullcontext():
                    # Pieces and processes may differ in size: with their shares as weights, the
                    # mean of means is the mean over the batch.
                    loss = task.loss(wrapped, rows, epoch) * share
                    accelerator.backward(loss)
                mean_loss += float(accelerator.reduce(loss.detach(), "mean"))
            _check_finite(mean_loss, f"training loss of {label}", f"epoch {epoch + 1}, step {step}")
            if max_grad_norm is not None:
                accelerator.clip_grad_norm_(wrapped.parameters(), max_grad_norm)
            stepper.step()
            state.total += mean_loss * weight
            state.weight += weight
            state.step = step + 1
            meter.update(note=f"epoch {epoch + 1}, loss {mean_loss:.4f}")
            if checkpoint_every and state.step % checkpoint_every == 0 and state.step < steps:
                if attempt:
                    _save(attempt, stage, key, network, optimizer, scheduler, state)
                accelerator.wait_for_everyone()
        learning_rate = float(stepper.param_groups[0]["lr"])
        wrapped.eval()
        with torch.no_grad():
            validation_loss = task.validation_loss(wrapped)
        if validation_loss is not None:
            validated = torch.tensor(validation_loss, dtype=torch.float64)
            validation_loss = float(broadcast(validated.to(accelerator.device)))
            _check_finite(validation_loss, f"validation loss of {label}", f"epoch {epoch + 1}")
        if scheduler is not None and validation_loss is not None:
            scheduler.step(validation_loss)
        history.append(Epoch(epoch, state.total / state.weight, validation_loss, learning_rate))
        state.step, state.total, state.weight = 0, 0.0, 0
        if not keep_best or best_epoch(history) == epoch:
            state.best = _trained_state(network)
        if attempt:
            _save(attempt, stage, key, network, optimizer, scheduler, state)
        accelerator.wait_for_everyone()
        log.info(
            "%s: epoch %d of %d, training loss %.4f, %s%s",
            label,
            epoch + 1,
            epochs,
            history[-1].training_loss,
            "no validation"
            if validation_loss is None
            else f"validation loss {validation_loss:.4f}",
            ", the best so far" if keep_best and best_epoch(history) == epoch else "",
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
    """Return the history in the form that records hold, with epochs counted from 1."""
    return [asdict(entry) | {"epoch": entry.epoch + 1} for entry in history]


def _torch_seed(*place: int) -> int:
    seed, *rest = place
    return int(random_stream(seed, *rest, _STEP).integers(2**63))


def _check_finite(value: float, name: str, where: str) -> None:
    if not np.isfinite(value):
        raise InputError(
            f"the {name} is {value}",
            where,
            "lower the learning rate; if it happens in the first step, check the initial weights",
        )


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


def _save(
    attempt: Attempt,
    stage: str,
    key: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: ReduceLROnPlateau | None,
    state: _State,
) -> None:
    saved = {
        "key": key,
        "history": [asdict(entry) for entry in state.history],
        "network": _trained_state(network),
        "best": state.best,
        "step": state.step,
        "total": state.total,
        "weight": state.weight,
        "optimizer": optimizer.state_dict(),
        "scheduler": None if scheduler is None else scheduler.state_dict(),
    }
    with (
        attempt.writing() as folder,
        whole_file(folder / f"{stage}.pt", make_parents=False) as temporary,
    ):
        torch.save(saved, temporary)


def _resume(
    attempt: Attempt | None,
    stage: str,
    key: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: ReduceLROnPlateau | None,
) -> _State:
    """Load the checkpoint if it exists, is whole and belongs to this run; else start anew."""
    # All processes read the checkpoint that the main process's attempt has inherited.
    folder = broadcast_object_list([str(attempt.folder) if attempt else None])[0]
    path = Path(folder) / f"{stage}.pt"
    if not path.exists():
        return _State()
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        require_access(error, path)
        log.warning("%s cannot be read (%s): training starts anew", path, error)
        return _State()
    if saved["key"] != key:
        log.warning("%s belongs to other settings or data: training starts anew", path)
        return _State()
    network.load_state_dict(saved["network"], strict=False)
    optimizer.load_state_dict(saved["optimizer"])
    if scheduler is not None:
        scheduler.load_state_dict(saved["scheduler"])
    history = [Epoch(**entry) for entry in saved["history"]]
    return _State(history, saved["best"], saved["step"], saved["total"], saved["weight"])
