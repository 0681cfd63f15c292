"""How the text-to-image models were fine-tuned and sampled: the paper's Table 11, from the config.

The paper prints the kind of fine-tuning and the learning rate. The other settings that affect a
model's images are reported as well.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from workflow_scripts.tables.derive.long_table import Head, LongTable, Number, without_rows
from workflow_scripts.tables.models import NOT_RUN, ModelEntry
from workflow_scripts.tables.published import Key

_OPTIMISERS: Final = {"adamw": "AdamW", "came": "CAME", "came_sana": "CAME as Sana's"}

GENERATE: Final = "generate"
"""The variant of sampling settings; settings of fine-tuning have none."""


def t2i_settings(models: Sequence[ModelEntry], settings: Sequence[tuple[str, str]]) -> LongTable:
    """Return the settings of each model.

    Args:
        models: the models without the controls.
        settings: name and variant of each setting.
    """
    if not models:
        return without_rows(NOT_RUN)
    numbers: dict[Key, Number] = {}
    for model in models:
        tuned, sampled = _block(model, "finetune"), _block(model, GENERATE)
        for name, variant in settings:
            value = (sampled if variant == GENERATE else tuned).get(name)
            numbers[model.key, name, "all", variant] = (
                Number(None, reason=_why_missing(model, variant))
                if value is None
                else Number(float(value))
            )
    return LongTable(tuple(map(_head, models)), numbers)


def _head(model: ModelEntry) -> Head:
    tuned = _block(model, "finetune")
    targets = json.loads(model.settings.get("lora_targets", "[]"))
    optimiser = _OPTIMISERS[str(tuned.get("optimiser", "adamw"))]
    if tuned.get("auto_learning_rate"):
        optimiser += ", LR times sqrt(batch / 256)"
    attributes = {
        "Fine-Tuning": model.attributes["Fine-Tuning"],
        "LoRA at": ", ".join(target.replace("_", " ") for target in targets) or "–",
        "Optimiser": optimiser if tuned else "–",
    }
    return Head(model.key, model.name, "model", attributes)


def _block(model: ModelEntry, name: str) -> dict[str, Any]:
    """Return a block of the model's config; empty if it has no such block."""
    block: dict[str, Any] = json.loads(model.settings.get(name, "{}"))
    return block


def _why_missing(model: ModelEntry, variant: str) -> str:
    if not model.settings:
        return "its images were made outside of the workflow"
    return "its sampler has no such setting" if variant == GENERATE else "not fine-tuned"
