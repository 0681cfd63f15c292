"""What both training loops do in a step: those of the evaluation's networks and of fine-tuning.

The loops are `training.py` and `finetune/train.py`. Their processes agree on a value, exchange
gradients, and stop at a loss that is not finite.
"""

import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from torch import nn

from workflow_scripts.common.errors import InputError

T = TypeVar("T")


def number_of_main(accelerator: Accelerator, value: float) -> float:
    """Return the main process's number in all processes. Every process has to call this."""
    if accelerator.num_processes == 1:
        return value
    sent = torch.tensor(value, dtype=torch.float64, device=accelerator.device)
    return float(broadcast(sent))


def object_of_main(value: T) -> T:
    """Return the main process's object, such as a path, in all processes. All have to call this."""
    objects: list[Any] = broadcast_object_list([value])
    return objects[0]


def all_agree(accelerator: Accelerator, holds: bool) -> bool:
    """Return whether `holds` is true in every process. Every process has to call this."""
    if accelerator.num_processes == 1:
        return holds
    against = torch.tensor([float(not holds)], device=accelerator.device)
    return not accelerator.reduce(against, "sum").item()


def gradient_exchange(
    accelerator: Accelerator, network: nn.Module, now: bool
) -> AbstractContextManager[Any]:
    """Return the context of one backward pass of a step that has several.

    Args:
        accelerator: the processes that share the step.
        network: as the accelerator has prepared it.
        now: whether the processes add up their gradients in this pass: once a step, in its last.
    """
    return contextlib.nullcontext() if now else accelerator.no_sync(network)


def check_processes(gpus: int, accelerator: Accelerator) -> None:
    """Refuse a job that does not have one GPU for each of its processes.

    Args:
        gpus: the GPUs that the job was given; 0 for a job on the CPU.
        accelerator: the processes.

    Raises:
        InputError: there are more or fewer GPUs than processes.
    """
    if gpus and gpus != accelerator.num_processes:
        raise InputError(
            f"{gpus} GPUs were given to {accelerator.num_processes} process(es)",
            "--gpus",
            f"start with `accelerate launch --num_processes {gpus} -m ...`",
        )


def check_finite(
    value: float, name: str, where: str, remedy: str, details: Callable[[], str] | None = None
) -> None:
    """Stop a training if its loss or gradient is infinite or not a number.

    Args:
        value: value of the loss or gradient norm.
        name: what it is, such as `training loss of the classifier`.
        where: the epoch and step, or the stage.
        remedy: what the user can do.
        details: returns the rest of the message; called only if the value is not finite.

    Raises:
        InputError: the value is not finite.
    """
    if not math.isfinite(value):
        raise InputError(f"the {name} is {value}{details() if details else ''}", where, remedy)
