"""Low-rank adapters: made by peft, saved and loaded by diffusers.

Hu et al., 2022 (LoRA); Kalajdzievski, 2023, arXiv 2312.03732 (rsLoRA: scaled by alpha / sqrt(r)).
`save_lora_weights` leaves out alpha and rsLoRA unless it is given the adapter's config. A file
without them loads at another scale, without a warning. So they are always written, and required
when an adapter is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.checkpoints import check_weight_file, safetensors_shapes
from workflow_scripts.common.errors import InputError, first_line
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.settings import LoraSettings

if TYPE_CHECKING:
    from torch import nn

LORA_FILE: Final = "pytorch_lora_weights.safetensors"


def module_endings(family: Family, targets: Sequence[str]) -> tuple[str, ...]:
    """Return the endings of module names that the targets stand for, each once.

    Raises:
        InputError: a family whose pipeline cannot save LoRA weights.
    """
    if not family.lora_positions:
        raise InputError(
            f"diffusers' pipeline of {family.name} cannot save LoRA weights",
            "finetune.method",
            "use `method: full`",
        )
    endings = [e for target in targets for e in family.lora_positions.get(target, (target,))]
    return tuple(dict.fromkeys(endings))


def add_lora(network: Any, family: Family, settings: LoraSettings) -> None:
    """Freeze a network and add an adapter in float32; torch's generator draws its first factors.

    The second factors are zero: the network's output does not change until it is trained.

    Raises:
        InputError: a target that matches no layer.
    """
    from peft import LoraConfig

    endings = match_layers(network, family, settings.targets)
    network.requires_grad_(False)
    network.add_adapter(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            use_rslora=settings.rslora,
            target_modules=list(endings),
        )
    )
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def match_layers(network: Any, family: Family, targets: Sequence[str]) -> tuple[str, ...]:
    """Return the endings of module names that the targets stand for; each matches a layer.

    Raises:
        InputError: as `module_endings`, or a target that matches no layer.
    """
    import torch

    endings = module_endings(family, targets)
    layers = [
        name
        for name, module in network.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    unmatched = [e for e in endings if not any(_ends(name, e) for name in layers)]
    if unmatched:
        raise InputError(
            f"LoRA targets that match no layer of the {family.trained}: {', '.join(unmatched)}",
            "finetune.lora.targets",
            f"name {' or '.join(family.lora_positions)}, or endings such as "
            f"{', '.join(sorted({name.rpartition('.')[2] for name in layers})[:8])}",
        )
    return endings


def save_lora(family: Family, pipeline: Any, folder: Path) -> None:
    """Write the adapter with the pipeline's `save_lora_weights`, with rank, alpha and rsLoRA."""
    from peft import get_peft_model_state_dict

    network: Any = family.network(pipeline)
    config = network.peft_config["default"].to_dict()
    # A set has a random order: the same adapter would be written differently each time.
    config["target_modules"] = sorted(config["target_modules"])
    pipeline.save_lora_weights(
        folder,
        weight_name=LORA_FILE,
        **{
            f"{family.trained}_lora_layers": get_peft_model_state_dict(network),
            f"{family.trained}_lora_adapter_metadata": config,
        },
    )


def check_lora(folder: Path) -> Path:
    """Check an adapter's file without importing torch; return it.

    Raises:
        InputError: missing, damaged, or without rank and scale.
    """
    file = folder / LORA_FILE
    check_weight_file(file)
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    if "lora_adapter_metadata" not in header.get("__metadata__", {}):
        raise InputError(
            "the LoRA file does not state its rank, alpha and scaling",
            file,
            "save it with the adapter's metadata; without it diffusers would guess them",
        )
    return file


def load_lora(family: Family, pipeline: Any, folder: Path) -> None:
    """Load an adapter into a pipeline, with its own scale.

    Raises:
        InputError: as `check_lora`, or weights that fit no layer or the wrong one.
    """
    from peft import get_peft_model_state_dict

    file = check_lora(folder)
    try:
        pipeline.load_lora_weights(
            folder, weight_name=LORA_FILE, local_files_only=True, adapter_name="default"
        )
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"the LoRA weights do not fit the base: {first_line(error)}",
            file,
            "use the base that it was trained on",
        ) from None
    stored = len(safetensors_shapes(file))
    loaded = len(get_peft_model_state_dict(family.network(pipeline)))
    if stored != loaded:
        raise InputError(
            f"only {loaded} of {stored} LoRA tensors match a layer",
            file,
            "use the base that it was trained on",
        )


def trained_parameters(network: nn.Module) -> dict[str, Any]:
    """Return the parameters that are trained, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")
