"""How the text-to-image models were fine-tuned and sampled: the paper's Table 11, from the config.

The paper prints how a model is fine-tuned and the learning rate; what else decides its images
stands beside.
"""

import json
from typing import Any, Final

from workflow_scripts.tables.assemble import Cell, Row, Table, table_of
from workflow_scripts.tables.layout import LAYOUTS, Column
from workflow_scripts.tables.models import NOT_RUN, ModelEntry
from workflow_scripts.tables.run import Run

_OPTIMISERS: Final = {"adamw": "AdamW", "came": "CAME", "came_sana": "CAME as Sana's"}

T2I_SETTINGS: Final = LAYOUTS["table11_t2i_hyperparameters"]
"""A column's family is the block of the model's config that has the setting: `finetune` where it
names none."""


def t2i_settings_table(run: Run) -> Table:
    """Return Table 11; controls have no row."""
    rows = [_row(model) for model in run.competing]
    if not rows:
        cells = tuple(Cell(column, None, reason=NOT_RUN) for column in T2I_SETTINGS.columns)
        rows = [Row("none", "–", "model", ("–",) * len(T2I_SETTINGS.attributes), cells)]
    return table_of(T2I_SETTINGS, rows, run, counts=False)


def _row(model: ModelEntry) -> Row:
    tuned, sampled = (_settings(model, part) for part in ("finetune", "generate"))
    made_here = bool(model.settings)
    elsewhere = "its images were made outside of the workflow"
    cells = []
    for column in T2I_SETTINGS.columns:
        settings, why = tuned, "not fine-tuned"
        if column.family == "generate":
            settings, why = sampled, "its sampler has no such setting"
        cells.append(_cell(column, settings, why if made_here else elsewhere))
    targets = json.loads(model.settings.get("lora_targets", "[]"))
    optimiser = _OPTIMISERS[str(tuned.get("optimiser", "adamw"))]
    if tuned.get("auto_learning_rate"):
        optimiser += ", LR times sqrt(batch / 256)"
    attributes = (
        model.attributes["Fine-Tuning"],
        ", ".join(target.replace("_", " ") for target in targets) or "–",
        optimiser if tuned else "–",
    )
    return Row(model.key, model.name, "model", attributes, tuple(cells))


def _settings(model: ModelEntry, part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(model.settings.get(part, "{}"))
    return found


def _cell(column: Column, settings: dict[str, Any], why_missing: str) -> Cell:
    value = settings.get(column.metric)
    if value is None:
        return Cell(column, None, reason=why_missing)
    return Cell(column, float(value))
