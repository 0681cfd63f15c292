"""How the text-to-image models were fine-tuned and sampled: the paper's Table 11, from the config.

The paper prints how a model is fine-tuned and the learning rate; what else decides its images
stands beside.
"""

import json
from typing import Any, Final

from workflow_scripts.tables.assemble import Cell, Row, Table, table_of, with_published
from workflow_scripts.tables.layout import Column, Layout
from workflow_scripts.tables.models import NOT_RUN, ModelEntry
from workflow_scripts.tables.published import Published, model_key, printed_rows
from workflow_scripts.tables.run import Run

_TUNED: Final = (
    Column("LR", "learning_rate", "none", None),
    Column("Batch size", "batch_size", "none", None),
    Column("Epochs", "epochs", "none", None),
    Column("Warm-up steps", "warmup_steps", "none", None),
    Column("Caption dropout", "caption_dropout", "none", None),
    Column("Pixels, training", "size", "none", None),
)
_SAMPLED: Final = (
    Column("Steps, sampling", "steps", "none", None),
    Column("Guidance", "guidance", "none", None),
    Column("Pixels, sampling", "size", "none", None),
)

_OPTIMISERS: Final = {"adamw": "AdamW", "came": "CAME", "came_sana": "CAME as Sana's"}

T2I_SETTINGS: Final = Layout(
    stem="table11_t2i_hyperparameters",
    number="11",
    title="How the text-to-image models are fine-tuned and sampled",
    stage="finetune",
    family=None,
    attributes=("Fine-Tuning", "LoRA at", "Optimiser"),
    columns=(*_TUNED, *_SAMPLED),
    n_labels=("Images", "Reference images"),
    explanation=(
        "FFT trains every weight of the denoiser, LoRA an adapter of rank r. The batch is the "
        "total over devices and accumulation, the learning rate constant after the warm-up, and "
        "pixels are a side of the image. "
    ),
)


def t2i_settings_table(run: Run) -> Table:
    """Return Table 11; controls have no row."""
    rows = [_row(model) for model in run.competing]
    if not rows:
        cells = tuple(Cell(column, None, reason=NOT_RUN) for column in T2I_SETTINGS.columns)
        rows = [Row("none", "–", "model", ("–",) * len(T2I_SETTINGS.attributes), cells)]
    if run.of_the_paper:
        printed = printed_rates()
        rows = [with_published(row, printed, run.protocol) for row in rows]
    return table_of(T2I_SETTINGS, rows, run, counts=False)


def printed_rates() -> dict[tuple[str, str, str, str], Published]:
    """Return the printed learning rates, keyed as by `published_values`; two models have none."""
    found = {}
    for name, _, rate in printed_rows(T2I_SETTINGS.stem)[1:]:
        if rate != "-":
            key = (model_key(name), "learning_rate", "all", "")
            found[key] = Published(*key, float(rate), rate)
    return found


def _row(model: ModelEntry) -> Row:
    tuned, sampled = (_settings(model, part) for part in ("finetune", "generate"))
    made_here = bool(model.settings)
    elsewhere = "its images were made outside of the workflow"
    cells = [
        _cell(column, tuned, "not fine-tuned" if made_here else elsewhere) for column in _TUNED
    ]
    cells += [
        _cell(column, sampled, "its sampler has no such setting" if made_here else elsewhere)
        for column in _SAMPLED
    ]
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
