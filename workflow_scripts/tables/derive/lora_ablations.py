"""The effect of LoRA's rank and position: the paper's Tables 13 and 14.

Models that differ in one setting of LoRA only share a row, with a number for each value of the
setting. The paper compares FID. KID is reported as well, because its noise is known.
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
"""Table 13 varies the rank; LoRA's alpha changes with it."""
_TARGETS: Final = ("lora_targets",)

_PAPERS_RANKS: Final = (32, 64, 128)
_PAPERS_PLACES: Final = {
    '["attention"]': "Attn.",
    '["attention_mlp"]': "Attn. + MLP",
    '["attention_mlp_position"]': "All Layers",
}
"""LoRA's positions in the config, mapped to the paper's names for them."""

_AVERAGE: Final = "average"
_NOT_AMONG: Final = "not run: no such model is among the run's models"


@dataclass(frozen=True)
class Ablation:
    """A setting of LoRA in which models differ.

    Attributes:
        settings: the setting, followed by settings that change with it.
        other: the settings of the other ablation.
        names: the setting's values in order, mapped to their names for readers.
    """

    settings: tuple[str, ...]
    other: tuple[str, ...]
    names: dict[str, str]


def by_rank(models: Sequence[ModelEntry]) -> Ablation:
    """Return the ablation of the rank: the paper's ranks and those of the run's models."""
    ranks = {str(rank) for rank in _PAPERS_RANKS} | _values(models, _RANK[0])
    return Ablation(_RANK, _TARGETS, {rank: f"Rank {rank}" for rank in sorted(ranks, key=int)})


def by_position(models: Sequence[ModelEntry]) -> Ablation:
    """Return the ablation of the position: the paper's positions and those of the run's models."""
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
    """Return a row for each group of models that differ in one setting only.

    A number's variant is the value of the setting. Values that no model of the run has are missing.

    Args:
        measurements: the measurements of all stages.
        models: the models of the run.
        ablation: the setting.
        metrics: key and direction of each metric.
        average: whether to add a row with the mean over the groups, if there are several.
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

    A model belongs to the other table if it differs from some model in the other setting only, and
    from no model in this setting only.
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
