"""What LoRA's rank and position change: the paper's Tables 13 and 14.

Models that differ in one setting of LoRA alone share a row, with a number for each value of the
setting. The paper compares FIDs. KID, whose noise is known, is reported as well.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from workflow_scripts.common.measurement import Measurements
from workflow_scripts.tables.derive.long_table import (
    ENCODER,
    Head,
    LongTable,
    Number,
    measured,
    without_rows,
)
from workflow_scripts.tables.models import ModelEntry, alike, variants
from workflow_scripts.tables.published import Key

_RANK: Final = ("lora_rank", "lora_alpha")
"""Table 13 varies the rank; the scale follows it."""
_TARGETS: Final = ("lora_targets",)

_PAPERS_RANKS: Final = (32, 64, 128)
_PAPERS_PLACES: Final = {
    '["attention"]': "Attn.",
    '["attention_mlp"]': "Attn. + MLP",
    '["attention_mlp_position"]': "All Layers",
}
"""LoRA's positions as the config has them, and the paper's names for them."""

_AVERAGE: Final = "average"
_NOT_AMONG: Final = "not run: no such model is among the run's models"


@dataclass(frozen=True)
class Ablation:
    """A setting of LoRA that models differ in.

    Attributes:
        settings: the setting that differs, and the settings that follow it.
        other: the settings of the other ablation.
        names: the setting's values in order, each with its name for readers.
    """

    settings: tuple[str, ...]
    other: tuple[str, ...]
    names: dict[str, str]


def by_rank(models: Sequence[ModelEntry]) -> Ablation:
    """Return the ablation of the rank: the paper's ranks, and those that models of the run have."""
    ranks = {str(rank) for rank in _PAPERS_RANKS} | _values(models, _RANK[0])
    return Ablation(_RANK, _TARGETS, {rank: f"Rank {rank}" for rank in sorted(ranks, key=int)})


def by_position(models: Sequence[ModelEntry]) -> Ablation:
    """Return the ablation of the layers: the paper's, and those that models of the run have."""
    names = dict(_PAPERS_PLACES)
    for place in sorted(_values(models, _TARGETS[0]) - set(names)):
        names[place] = ", ".join(json.loads(place)).replace("_", " ")
    return Ablation(_TARGETS, _RANK, names)


def lora_ablation(
    measurements: Measurements,
    models: Sequence[ModelEntry],
    ablation: Ablation,
    metrics: Sequence[tuple[str, str]],
    *,
    average: bool = False,
) -> LongTable:
    """Return a row for each group of models that differ in one setting alone.

    A number's variant is the value of the setting; one that no model of the run has is missing.

    Args:
        measurements: the measurements of all stages.
        models: the models of the run.
        ablation: the setting.
        metrics: key and direction of each.
        average: whether a last row has the mean over the groups, where there are several.
    """
    groups = _groups(models, ablation)
    if not groups:
        return without_rows("not run: no model of the run is fine-tuned by LoRA")
    heads: list[Head] = []
    numbers: dict[Key, Number] = {}
    for group in groups:
        first = next(iter(group.values()))  # the row is named after its first model
        heads.append(Head(first.key, first.name, "model", first.attributes))
        for metric, direction in metrics:
            for value in ablation.names:
                numbers[first.key, metric, "all", value] = _number(
                    measurements, metric, direction, group.get(value)
                )
    if average and len(groups) > 1:
        numbers |= _averages(heads, numbers)
        heads.append(Head(_AVERAGE, "Average", "average"))
    return LongTable(tuple(heads), numbers)


def _values(models: Sequence[ModelEntry], setting: str) -> set[str]:
    return {model.settings[setting] for model in models if setting in model.settings}


def _groups(models: Sequence[ModelEntry], ablation: Ablation) -> list[dict[str, ModelEntry]]:
    """Return the models of each row by their value of the setting, in the order of its names.

    A model that differs from another one in the other setting alone, and from none in this one,
    belongs to the other table.
    """
    elsewhere = {
        model.key
        for group in alike(models, *ablation.other)
        for model in variants(group, *ablation.other)[1:]
    }
    rows = []
    for group in alike(models, *ablation.settings):
        by_value: dict[str, ModelEntry] = {}
        for model in group:
            by_value.setdefault(model.settings[ablation.settings[0]], model)
        if len(by_value) > 1 or group[0].key not in elsewhere:
            rows.append({value: by_value[value] for value in ablation.names if value in by_value})
    return rows


def _number(
    measurements: Measurements, metric: str, direction: str, model: ModelEntry | None
) -> Number:
    if model is None:
        return Number(None, reason=_NOT_AMONG)
    why = model.why_missing("fidelity")
    return measured(measurements, "fidelity", ENCODER, model.key, metric, why, direction=direction)


def _averages(heads: Sequence[Head], numbers: Mapping[Key, Number]) -> dict[Key, Number]:
    averages: dict[Key, Number] = {}
    for place in dict.fromkeys(key[1:] for key in numbers):
        values = [numbers[(head.key, *place)].value for head in heads]
        known = [value for value in values if value is not None]
        averages[_AVERAGE, *place] = (
            Number(sum(known) / len(known))
            if len(known) == len(values)
            else Number(None, reason="not known for every model")
        )
    return averages
