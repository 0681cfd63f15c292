"""Settings of the scripts that train, sample and show a model, from its block of the config.

Rules turn these settings into flags. No function here needs Snakemake.
"""

import json
from collections.abc import Mapping
from typing import Any

from workflow_scripts.common.settings import flag_values
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.settings import TrainSettings
from workflow_scripts.generate.settings import BatchSettings

Block = Mapping[str, Any]
"""A model's block of the config, as its schema describes it."""


def canonical(settings: Any) -> str:
    """Return settings as text that does not depend on the order of keys, for comparisons."""
    return json.dumps(settings, sort_keys=True)


def base_settings(block: Block) -> dict[str, Any]:
    """Return the settings that name the folders of a model's base checkpoint."""
    return {"family": block["family"], "base": block["base"], "part": block.get("parts", {})}


def training_settings(block: Block) -> dict[str, Any]:
    """Return the settings of fine-tuning by their flags: the base, and the block's `finetune`."""
    return base_settings(block) | flag_values(TrainSettings, block["finetune"])


def sampling_settings(block: Block, checkpoint: str | None) -> dict[str, Any]:
    """Return the settings of sampling by their flags: paths of the weights, and `generate`.

    Args:
        block: the model's.
        checkpoint: the fine-tuned checkpoint; None or empty for a model used as published.
    """
    weights = base_settings(block)
    if checkpoint and block["finetune"]["method"] == "lora":
        weights["lora"] = checkpoint
    elif checkpoint:
        weights |= {"base": checkpoint, "part": {}}
    for cls in (SampleSettings, BatchSettings):
        weights |= flag_values(cls, block["generate"])
    return weights


def ablation_settings(block: Block, caption_source: str | None) -> dict[str, str | None]:
    """Return the settings behind a model, by name: two models that differ in one are an ablation.

    Args:
        block: the model's.
        caption_source: the source of the captions for training and prompts; None if the cohort has
            none.
    """
    if block["family"] == "control":
        return {"control": block["control"]["kind"]}
    if block["family"] == "external":
        return {}
    tuned = dict(block.get("finetune") or {})
    lora = tuned.pop("lora", {})
    return {
        "base": canonical(base_settings(block)),
        "generate": canonical(block["generate"]),
        "finetune": canonical(tuned),
        "caption_source": caption_source,
        **{f"lora_{name}": canonical(value) for name, value in lora.items()},
    }


def tuning(block: Block) -> str:
    """Return a model's fine-tuning as in Table 11; `-` for controls and a user's own images."""
    if block["family"] in ("control", "external"):
        return "-"
    tuned = block.get("finetune")
    if not tuned:
        return "N/A"
    return f"LoRA (r={tuned['lora']['rank']})" if "lora" in tuned else "FFT"


def named_display(block: Block) -> dict[str, Any]:
    """Return the block `display` of a model, with the privacy guarantee added to its name."""
    display = dict(block["display"])
    privacy = (block.get("finetune") or {}).get("privacy")
    if privacy and display.get("name"):
        guarantee = f"ε = {privacy['epsilon']:g}, δ = {privacy['delta']:g}"
        known = privacy.get("noise_seed") is not None
        display["name"] += " (no guarantee: its noise is known)" if known else f" ({guarantee})"
    return display


def launcher(processes: int) -> str:
    """Return the command that starts a training script, with one process for each GPU.

    `accelerate` takes a process of its own, so it is used only for several GPUs. Its flags leave
    nothing to be read from the machine or the user's settings.
    """
    if processes == 1:
        return "python -m"
    return (
        f"python -m accelerate.commands.launch --multi_gpu --num_processes {processes}"
        " --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 -m"
    )
