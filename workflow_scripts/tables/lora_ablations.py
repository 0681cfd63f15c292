"""What the rank and the place of LoRA change: the paper's Tables 13 and 14.

Models that are the same but for one setting of LoRA share a row, which has a column for each value
of it. The paper compares FIDs; KID, whose noise is known, stands beside.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.assemble import (
    Cell,
    Row,
    Table,
    measured_cell,
    table_of,
)
from workflow_scripts.tables.layout import LAYOUTS, Column, Layout
from workflow_scripts.tables.models import ModelEntry, alike, variants
from workflow_scripts.tables.run import Run

_RANK: Final = ("lora_rank", "lora_alpha")
"""The setting that Table 13 varies, and the scale that follows it."""
_TARGETS: Final = ("lora_targets",)

_PAPERS_RANKS: Final = (32, 64, 128)
_PAPERS_PLACES: Final = {
    '["attention"]': "Attn.",
    '["attention_mlp"]': "Attn. + MLP",
    '["attention_mlp_position"]': "All Layers",
}
"""The config's places of LoRA, as settings hold them, and the paper's names for them."""

_NOT_AMONG: Final = "not run: no such model is among the run's models"


LORA_RANK: Final = LAYOUTS["table13_lora_rank"]
LORA_POSITION: Final = LAYOUTS["table14_lora_position"]


def _columns(layout: Layout, names: dict[str, str]) -> tuple[Column, ...]:
    """Return the columns of each metric: one for each value of the setting, by its name."""
    return tuple(
        replace(column, header=f"{column.header}, {name}", setting=value)
        for column in layout.columns
        for value, name in names.items()
    )


def lora_tables(run: Run) -> dict[str, Table]:
    """Return Tables 13 and 14, by stem.

    A value of the setting that no model of the run has is a dash, the paper's values included; a
    value that the paper does not have gets a column of its own.
    """
    ranks = {str(rank) for rank in _PAPERS_RANKS} | _values(run.models, _RANK[0])
    ranks_named = {rank: f"Rank {rank}" for rank in sorted(ranks, key=int)}
    places = dict(_PAPERS_PLACES)
    for place in sorted(_values(run.models, _TARGETS[0]) - set(places)):
        places[place] = ", ".join(json.loads(place)).replace("_", " ")
    tables = {}
    for layout, names, own, other in (
        (LORA_RANK, ranks_named, _RANK, _TARGETS),
        (LORA_POSITION, places, _TARGETS, _RANK),
    ):
        layout = replace(layout, columns=_columns(layout, names))
        groups = _groups(run.models, names, own, other)
        rows = [_row(run.measurements, layout, group) for group in groups]
        if not rows:
            rows = [_no_row(layout)]
        elif layout.stem == LORA_RANK.stem and len(rows) > 1:
            rows.append(_average(rows))
        tables[layout.stem] = table_of(layout, rows, run)
    return tables


def _values(models: Sequence[ModelEntry], setting: str) -> set[str]:
    return {model.settings[setting] for model in models if setting in model.settings}


def _groups(
    models: Sequence[ModelEntry],
    names: dict[str, str],
    own: tuple[str, ...],
    other: tuple[str, ...],
) -> list[dict[str, ModelEntry]]:
    """Return the models of each row by their value of the setting, in the order of the columns.

    A model that differs from another one in the other setting alone, and from none in this one,
    belongs to the other table.
    """
    elsewhere = {
        model.key for group in alike(models, *other) for model in variants(group, *other)[1:]
    }
    rows = []
    for group in alike(models, *own):
        by_value: dict[str, ModelEntry] = {}
        for model in group:
            by_value.setdefault(model.settings[own[0]], model)
        if len(by_value) > 1 or group[0].key not in elsewhere:
            rows.append({value: by_value[value] for value in names if value in by_value})
    return rows


def _row(measurements: Measurements, layout: Layout, group: dict[str, ModelEntry]) -> Row:
    """Return the row of a group; it is named after its first model."""
    first = next(iter(group.values()))
    cells = tuple(
        _cell(measurements, column, group.get(column.setting or "")) for column in layout.columns
    )
    attributes = tuple(first.attributes[header] for header in layout.attributes)
    return Row(first.key, first.name, "model", attributes, cells)


def _cell(measurements: Measurements, column: Column, model: ModelEntry | None) -> Cell:
    if model is None:
        return Cell(column, None, reason=_NOT_AMONG)
    why = model.why_missing("fidelity")
    return measured_cell(column, measurements, "fidelity", "rad_dino", model.key, why)


def _average(rows: Sequence[Row]) -> Row:
    cells = []
    for j, first in enumerate(rows[0].cells):
        values = [row.cells[j].value for row in rows]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            cells.append(Cell(first.column, sum(known) / len(known)))
        else:
            cells.append(Cell(first.column, None, reason="not known for every model"))
    attributes = ("–",) * len(rows[0].attributes)
    return Row("average", "Average", "average", attributes, tuple(cells))


def _no_row(layout: Layout) -> Row:
    reason = "not run: no model of the run is fine-tuned by LoRA"
    cells = tuple(Cell(column, None, reason=reason) for column in layout.columns)
    return Row("none", "–", "model", ("–",) * len(layout.attributes), cells)
