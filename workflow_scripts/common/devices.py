"""The device a job computes on. torch is imported only when a function needs it."""

import os
from typing import TYPE_CHECKING

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.user_environment import remove_from

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


def pick_device(gpus: int) -> "torch.device":
    """Return the device for a job that was given `gpus` GPUs; call it before loading weights.

    Raises:
        InputError: the job asked for a GPU and finds none.
    """
    import torch

    if gpus == 0:
        return torch.device("cpu")
    if torch.cuda.device_count() < gpus:
        raise InputError(
            f"the job asked for {gpus} GPU(s) and finds {torch.cuda.device_count()}",
            "CUDA_VISIBLE_DEVICES, the driver and the CUDA build of torch",
            "run on a GPU node, install envs/cuda.txt, or set the rule's `gpu` resource to 0",
        )
    return torch.device("cuda")


def accelerator_on(device: "torch.device", mixed_precision: str = "no") -> "Accelerator":
    """Return accelerate's view of this process and its peers, set by its arguments alone.

    accelerate's environment variables (`ACCELERATE_GRADIENT_ACCUMULATION_STEPS`) override its
    arguments, so they are removed first. The training loops accumulate gradients themselves.
    """
    remove_from(os.environ)
    from accelerate import Accelerator

    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=1,
        dynamo_backend="no",
    )


def check_bf16(mixed_precision: str, device: "torch.device") -> None:
    """Refuse bf16 on a GPU that does not support it.

    Raises:
        InputError: this GPU has no bf16.
    """
    import torch

    if mixed_precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bf16", "mixed_precision", "use no")


def device_name(device: "torch.device") -> str:
    """Return the device as records name it: `cpu` or `cuda:NVIDIA H200`."""
    if device.type != "cuda":
        return "cpu"
    import torch

    return f"cuda:{torch.cuda.get_device_name(device)}"
