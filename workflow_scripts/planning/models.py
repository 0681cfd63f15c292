"""What a model's block of the config says to the scripts that train, sample and show it.

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
    """Return settings as text that does not depend on the order of keys, so that runs compare."""
    return json.dumps(settings, sort_keys=True)


def base_settings(block: Block) -> dict[str, Any]:
    """Return the settings that name the folders of a model's base checkpoint."""
    return {"family": block["family"], "base": block["base"], "part": block.get("parts", {})}


def training_settings(block: Block) -> dict[str, Any]:
    """Return the settings of fine-tuning by their flags: the base, and the block's `finetune`."""
    return base_settings(block) | flag_values(TrainSettings, block["finetune"])


def sampling_settings(block: Block, checkpoint: str | None) -> dict[str, Any]:
    """Return the settings of sampling by their flags: where the weights lie, and `generate`.

    Args:
        block: the model's.
        checkpoint: its fine-tuned one; None or empty for a model that runs as it was published.
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
    """Return what made a model, as text by name: two that differ in one of them are an ablation.

    Args:
        block: the model's.
        caption_source: where the captions come from that it is trained and prompted with; None
            where the cohort has none.
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
    """Return how a model was fine-tuned, as Table 11 writes it; `-` for one that nobody trained."""
    if block["family"] in ("control", "external"):
        return "-"
    tuned = block.get("finetune")
    if not tuned:
        return "N/A"
    return f"LoRA (r={tuned['lora']['rank']})" if "lora" in tuned else "FFT"


def named_display(block: Block) -> dict[str, Any]:
    """Return how tables show a model: its name says the guarantee that it is fine-tuned with."""
    display = dict(block["display"])
    privacy = (block.get("finetune") or {}).get("privacy")
    if privacy and display.get("name"):
        said = f"ε = {privacy['epsilon']:g}, δ = {privacy['delta']:g}"
        known = privacy.get("noise_seed") is not None
        display["name"] += " (no guarantee: its noise is known)" if known else f" ({said})"
    return display


def launcher(processes: int) -> str:
    """Return how a script starts that trains in one process or several: one per GPU.

    `accelerate` costs a process of its own, so only where it is needed; told that there are
    several, it asks neither the machine nor a user's own settings.
    """
    if processes == 1:
        return "python -m"
    return (
        f"python -m accelerate.commands.launch --multi_gpu --num_processes {processes}"
        " --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 -m"
    )
