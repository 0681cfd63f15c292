"""The models of the tables: their order, their descriptions, and why a value may be missing."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import PROMPT_SETS

STAGES: Final = ("fidelity", "privacy", "downstream", "faithfulness", "curate")
"""The stages whose records the tables join."""

PROMPT_SET_OF: Final = {
    "fidelity": "test",
    "privacy": "privacy",
    "downstream": "augment",
    "faithfulness": "test",
    "faithfulness/stress": "stress",
}
"""The prompt set whose images each stage, or a family of it, measures: the keys of `missing`."""

NOT_RUN: Final = "not run"

CAPTION_SOURCES: Final = {"llava_rad": "LLaVA-Rad", "impression": "Original MIMIC"}
"""MIMIC-CXR's caption sources as the paper names them."""

_DISPLAY: Final = {"name", "size", "default_resolution", "previously_available"}
_KEYS: Final = {"key", "family", "display", "finetuning", "missing", "settings"}


@dataclass(frozen=True)
class ModelEntry:
    """A model as the tables show it.

    Attributes:
        key: its key in the config and in records.
        family: `control` for a control, else the text-to-image family or `external`.
        name: its name in tables.
        attributes: texts about it, by the header of a table's column; – if unknown.
        missing: the reason for each prompt set of which it has no images.
        settings: the settings that made it, as text; empty if the workflow did not make it.
    """

    key: str
    family: str
    name: str
    attributes: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def is_control(self) -> bool:
        """Whether it calibrates the tables and does not compete in them."""
        return self.family == "control"

    @property
    def kind(self) -> str:
        """The kind of its rows, `model` or `control`."""
        return "control" if self.is_control else "model"

    @property
    def tuned(self) -> dict[str, Any]:
        """The settings of its fine-tuning except LoRA's; empty if there is none."""
        return dict(json.loads(self.settings.get("finetune") or "{}"))

    @property
    def epochs(self) -> float | None:
        """Epochs of its fine-tuning; None if there is none."""
        return self.tuned.get("epochs")

    def why_missing(self, stage: str, family: str | None = None) -> str:
        """Return why there is no record of a stage, or of a family of it."""
        prompt_set = PROMPT_SET_OF.get(f"{stage}/{family}", PROMPT_SET_OF[stage])
        return self.missing.get(prompt_set, NOT_RUN)


def parse_models(text: str) -> list[ModelEntry]:
    """Parse the `--models` argument, a JSON list in the order of the tables' rows.

    Raises:
        InputError: no such list, an unknown key, or a repeated model.
    """
    where = "--models"
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where) from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError("a JSON list of objects was expected", where)
    models = [_model(entry, f"{where}[{i}]") for i, entry in enumerate(entries)]
    keys = [model.key for model in models]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise InputError(f"repeated model(s): {', '.join(repeated)}", where)
    return models


def _model(entry: dict[str, Any], where: str) -> ModelEntry:
    display, missing = entry.get("display") or {}, entry.get("missing") or {}
    for given, allowed, what in (
        (entry, _KEYS, "key"),
        (display, _DISPLAY, "display key"),
        (missing, set(PROMPT_SETS), "prompt set in `missing`"),
    ):
        unknown = sorted(set(given) - allowed)
        if unknown:
            raise InputError(
                f"unknown {what}: {', '.join(unknown)}", where, f"known are {sorted(allowed)}"
            )
    if not entry.get("key") or not entry.get("family"):
        raise InputError("a model has a `key` and a `family`", where)
    available = {None: "–", True: "✓", False: "✗"}[display.get("previously_available")]
    settings = {name: str(value) for name, value in (entry.get("settings") or {}).items()}
    source = settings.get("caption_source")
    attributes = {
        "Size": _text(display.get("size")),
        "Default Resolution": _text(display.get("default_resolution")),
        "Prev. Available For CXR?": available,
        "Fine-Tuning": _text(entry.get("finetuning")),
        "Prompt Type": _text(CAPTION_SOURCES.get(str(source), source)),
    }
    return ModelEntry(
        entry["key"],
        entry["family"],
        str(display.get("name") or entry["key"]),
        attributes,
        {prompt_set: str(reason) for prompt_set, reason in missing.items()},
        settings,
    )


def controls_last(models: Iterable[ModelEntry]) -> list[ModelEntry]:
    """Return the models in their order, followed by the controls in theirs."""
    return sorted(models, key=lambda model: model.is_control)


def alike(models: Sequence[ModelEntry], *settings: str) -> list[list[ModelEntry]]:
    """Group the models that have the first of these settings and agree in all other settings.

    Groups are in the order of their first models; a group keeps the order of its models.
    """
    groups: dict[tuple[tuple[str, str], ...], list[ModelEntry]] = {}
    for model in models:
        if settings[0] in model.settings:
            rest = tuple(sorted((k, v) for k, v in model.settings.items() if k not in settings))
            groups.setdefault(rest, []).append(model)
    return list(groups.values())


def variants(models: Sequence[ModelEntry], *settings: str) -> list[ModelEntry]:
    """Return the models that differ from another model in these settings only, group by group.

    Args:
        models: the models of the run.
        settings: the setting that differs, followed by settings that change with it (LoRA's rank
            and alpha).
    """
    groups = alike(models, *settings)
    differing = [group for group in groups if len({m.settings[settings[0]] for m in group}) > 1]
    return [model for group in differing for model in group]


def trainings(models: Sequence[ModelEntry]) -> list[list[ModelEntry]]:
    """Group the models that are checkpoints of one training, in the order of their epochs.

    They differ only in the epochs of their fine-tuning. The images and the learning rate of a step
    do not depend on the number of epochs, so a shorter training is the beginning of a longer one.
    The noise of a guarantee does depend on it: a model with a guarantee is a group of its own, and
    so is one that was not fine-tuned.
    """
    groups: dict[str, list[ModelEntry]] = {}
    for model in models:
        alone = model.epochs is None or "privacy" in model.tuned
        rest = {**model.settings, "finetune": {**model.tuned, "epochs": None}}
        key = json.dumps(model.key if alone else rest, sort_keys=True)
        groups.setdefault(key, []).append(model)
    return [sorted(group, key=lambda model: model.epochs or 0) for group in groups.values()]


def _text(value: Any) -> str:
    return "–" if value in (None, "", "-") else str(value)
