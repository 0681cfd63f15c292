"""Checks before a fine-tuning loads anything: do the settings fit the model and the device?"""

from typing import Final

import torch

from workflow_scripts.common.devices import check_bf16
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import check_kernel, check_speed
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.lora import module_endings
from workflow_scripts.finetune.settings import TrainSettings

PRECISIONS: Final = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_before_loading(family: Family, settings: TrainSettings) -> None:
    """Refuse a size or method that the family cannot train with.

    Raises:
        InputError: the size is not a multiple of 8; the family is not fine-tuned; LoRA's settings
            come without the method `lora`, or the reverse; a position of LoRA is unknown.
    """
    if settings.size % 8:
        raise InputError("the size is not a multiple of 8 pixels", "--size")
    check_trained(family)
    if (settings.method == "lora") != (settings.lora is not None):
        raise InputError(
            f"method {settings.method} {'with' if settings.lora else 'without'} LoRA settings",
            "--method, --lora-rank",
            "LoRA's settings belong to the method `lora`",
        )
    if settings.lora:
        module_endings(family, settings.lora.targets)


def check_trained(family: Family) -> None:
    """Refuse to fine-tune a family that is only sampled.

    Raises:
        InputError: the family has no component to train.
    """
    if not family.trained:
        raise InputError(
            f"the family {family.name} can be sampled as published, but not fine-tuned",
            "finetune",
            "remove the model's `finetune` block",
        )


def check_device(family: Family, settings: TrainSettings, device: torch.device) -> None:
    """Refuse a precision or a switch of speed that the device or the family does not have.

    Raises:
        InputError: fp16 on a CPU; a GPU without bf16; a switch that does not work here.
    """
    if settings.mixed_precision == "fp16" and device.type == "cpu":
        raise InputError("fp16 training needs a GPU", "--mixed-precision", "use no or bf16")
    check_bf16(settings.mixed_precision, device)
    precision = str(PRECISIONS[settings.mixed_precision]).removeprefix("torch.")
    check_speed(settings.speed, family.takes, f"the family {family.name}", device.type, precision)
    check_kernel(settings.speed, settings.optimiser)
