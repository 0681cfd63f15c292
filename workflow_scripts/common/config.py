"""Validation of the config against its schema, before anything is planned.

`config.schema.yaml` in this folder describes every key, or names the settings class that does
(settings.py). Errors name the key, say what it is for and what to do. Preflight checks the files
that the config points to; this module does not.
"""

import difflib
import functools
import importlib
from math import isfinite
from pathlib import Path
from typing import Any, Final

import jsonschema
import yaml

from workflow_scripts.common.config_text import text_faults
from workflow_scripts.common.encoder_names import distance_encoders, encoder_names
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.folders import every_part, parts
from workflow_scripts.common.manifest import PROMPT_SETS, STRESS
from workflow_scripts.common.settings import schema_of

SCHEMA_PATH = Path(__file__).with_name("config.schema.yaml")

SETTINGS: Final = "x-settings"
"""Schema keyword: settings classes, `stage.module:Class`, that add their keys to a block."""

PARTS: Final = "x-parts"
"""Schema keyword: a stage in which each score or task that is a folder has its own block."""

ENCODERS: Final = "x-encoders"
"""Schema keyword: the block of encoders that have no block of their own in the schema."""

NAMES: Final = "x-names"
"""Schema keyword: the kind of names that a key may have as values, see `_names`."""


def _is_whole(_: Any, value: Any) -> bool:
    """Return whether a value is written as a whole number; `20.0` is not, since flags reject it."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(_: Any, value: Any) -> bool:
    """Return whether a value is a finite number; `.nan` would pass every bound of the schema."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


_Validator: Final[Any] = jsonschema.validators.extend(
    jsonschema.Draft7Validator,
    type_checker=jsonschema.Draft7Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_whole, "number": _is_finite}
    ),
)


@functools.cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of the config, with the keys of the scripts' settings classes."""
    return _assembled(yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8")))


def _assembled(node: Any) -> Any:
    """Return a part of the schema in which the keys of settings classes are written out."""
    if isinstance(node, list):
        return [_assembled(item) for item in node]
    if not isinstance(node, dict):
        return node
    if NAMES in node:
        return {"enum": _names(node[NAMES])}
    marks = (SETTINGS, PARTS, ENCODERS)
    assembled = {name: _assembled(value) for name, value in node.items() if name not in marks}
    for place in node.get(SETTINGS, ()):
        module, _, name = place.partition(":")
        cls = getattr(importlib.import_module(f"workflow_scripts.{module}"), name)
        derived = schema_of(cls)
        assembled["required"] = assembled.get("required", []) + derived["required"]
        assembled["properties"] = assembled.get("properties", {}) | derived["properties"]
        assembled = {**derived, **assembled}
    if ENCODERS in node:
        block = _assembled(node[ENCODERS])
        known = assembled["properties"]
        known |= {name: block for name in encoder_names() if name not in known}
    if PARTS in node:
        blocks = {x.name: schema_of(x.settings) for x in parts(node[PARTS]) if x.settings}
        described = {name: {"description": f"Of `{name}`.", **blocks[name]} for name in blocks}
        assembled["properties"] = described | assembled["properties"]
    return assembled


def _names(stage: str) -> list[str]:
    """Return the encoders that fidelity may take distances in, or the tasks of downstream."""
    if stage == "fidelity":
        return list(distance_encoders())
    return [part.name for part in parts(stage)]


def validate_config(config: dict[str, Any]) -> None:
    """Check a config without changing it.

    Raises:
        InputError: every fault found, each with its key, what the key is for and the remedy.
    """
    validator = _Validator(schema())
    faults = text_faults(config)
    if not faults:
        faults = [_describe(error) for error in sorted(validator.iter_errors(config), key=_place)]
    if not faults:
        faults = _model_faults(config)
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise InputError(
            f"{len(faults)} fault{plural} in the config:\n  - " + "\n  - ".join(faults),
            "config.yaml, the profile's overlay, or --config",
            "mend the keys named above; the reference of the config (`make docs`) describes each",
        )


def caption_source_of(config: dict[str, Any], model: str | None = None) -> str | None:
    """Return the source of a model's captions, or of the cohort's captions if `model` is None.

    For `mimic_cxr_jpg` it is a text of the annotations. For `image_folder` it is a column of the
    table, or None where the config maps no caption column.
    """
    cohort = config["cohort"]
    if model is not None and (given := config["models"][model].get("caption_source")):
        return given
    if cohort["source"] == "mimic_cxr_jpg":
        return cohort["caption_source"]
    return cohort["image_folder"]["columns"].get("caption")


_CONTROL_NEEDS: Final = {
    "blurred_real": ("blur", "size"),
    "warped_real": ("warp", "size"),
    "recoded_copies": ("quality", "size"),
    "flipped_copies": ("size",),
    "brightened_copies": ("brighten", "size"),
    "noise": ("size",),
}


def prompt_sets_of(config: dict[str, Any], model: str) -> list[str]:
    """Return the prompt sets that a model has images of, in the paper's order, `stress` last.

    The default is all of them. A model with captions of its own has no `augment` set by default:
    its captions belong to other radiographs than the downstream baseline's. The stress set has no
    radiographs, so controls never have it; an external model has it if `prompt_sets` names it.
    """
    block = config["models"][model]
    left_out = set()
    if caption_source_of(config, model) != caption_source_of(config):
        left_out.add("augment")
    if block.get("family") in ("control", "external"):
        left_out.add(STRESS)
    given = block.get("prompt_sets", [name for name in PROMPT_SETS if name not in left_out])
    return [name for name in PROMPT_SETS if name in given]


def _place(error: jsonschema.ValidationError) -> str:
    return "/".join(str(part) for part in error.absolute_path)


def _describe(error: jsonschema.ValidationError) -> str:
    place = ".".join(str(part) for part in error.absolute_path) or "the top level"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {}))
        unknown = [key for key in error.instance if key not in known]
        hints = [
            f"{key!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
            for key in unknown
            for close in [difflib.get_close_matches(str(key), known, n=1)]
        ]
        return f"{place}: unknown key {', '.join(hints)}; known: {', '.join(known)}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        notes = [
            f"{key!r} ({error.schema['properties'].get(key, {}).get('description', '')})"
            for key in missing
        ]
        return f"{place}: missing {', '.join(notes)}"
    purpose = error.schema.get("description")
    return f"{place}: {error.message}" + (f" ({purpose})" if purpose else "")


def _model_faults(config: dict[str, Any]) -> list[str]:
    faults = []
    source = config["cohort"]["source"]
    if source not in config["cohort"]:
        faults.append(f"cohort.{source}: missing, although cohort.source names it")
    for name in config["fidelity"]["encoders"]:
        if name not in config["encoders"]:
            faults.append(f"encoders.{name}: missing, although fidelity.encoders names it")
    faults += _part_faults(config)
    reports = config["downstream"]["report_generation"]
    if "llava_rad" in config["faithfulness"]["judges"] and not reports["metrics"].get("chexbert"):
        faults.append(
            "downstream.report_generation.metrics.chexbert: null, although faithfulness.judges "
            "names llava_rad, whose reports it reads"
        )
    unet = config["downstream"]["segmentation"]
    if unet["size"] % 2 ** (len(unet["channels"]) - 1):
        faults.append(
            f"downstream.segmentation.size: {unet['size']} is not divisible by 2 for each of the "
            f"{len(unet['channels'])} levels of `channels` but the first"
        )
    models = config["models"]
    for key in config["run_models"]:
        if key not in models:
            close = difflib.get_close_matches(key, models, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            faults.append(f"run_models: {key!r} is no key of models{hint}")
    for key, block in models.items():
        faults += _block_faults(config, key, block, usable=not faults)
    return faults or _curated_faults(config)


def _curated_faults(config: dict[str, Any]) -> list[str]:
    """Return the reasons why the curated sets that every run makes cannot be made."""
    policy, faults = config["curate"], []
    pool = policy["pool"]
    for key in policy.get("models", ()):
        where = f"curate.models: {key!r}"
        if key not in config["run_models"]:
            faults.append(f"{where} is not in run_models")
        elif pool not in PROMPT_SETS:
            if pool not in config["prompt_sets"]:
                faults.append(f"{where}: curate.pool is {pool}, and prompt_sets.{pool} is missing")
            if not config["models"][key].get("generate"):
                faults.append(f"{where} is not sampled here, so that no new images can be drawn")
        elif pool not in prompt_sets_of(config, key):
            faults.append(f"{where} has no images of the prompt set {pool!r} (curate.pool)")
    if policy.get("models") and policy.get("worth"):
        if "classification" not in config["downstream"]["tasks"]:
            faults.append("curate.worth: downstream.tasks has no classification, which measures it")
        if pool == "test":
            faults.append("curate.worth: the pool's captions are those of patients it is tried on")
    for task in policy.get("worth_also", ()):
        if not policy.get("worth"):
            faults.append("curate.worth_also: nothing is measured without curate.worth")
        elif task not in config["downstream"]["tasks"]:
            faults.append(f"curate.worth_also: downstream.tasks has no {task}, which measures it")
    return faults


def _block_faults(
    config: dict[str, Any], key: str, block: dict[str, Any], usable: bool
) -> list[str]:
    """Return the faults of a model's block.

    Args:
        config: the whole config.
        key: the model's key.
        block: the model's block.
        usable: whether the config has no fault so far, so that captions' sources can be compared.
    """
    faults: list[str] = []
    if key == "real":
        faults.append("models.real: the name is taken by the real radiographs")
    family = block["family"]
    needed = {"control": ["control"], "external": ["external"]}.get(family, ["base", "generate"])
    for name in needed:
        if name not in block:
            faults.append(f"models.{key}: family {family!r} needs {name!r}")
    tuned = block.get("finetune") or {}
    if (tuned.get("method") == "lora") != ("lora" in tuned):
        faults.append(f"models.{key}.finetune: the method lora and the key `lora` go together")
    if "images_per_patient" in (tuned.get("privacy") or {}):
        faults.append(
            f"models.{key}.finetune.privacy.images_per_patient: capping images is refused: the "
            "unit is the patient, whose summed gradient is clipped (max_grad_norm)"
        )
    faults += [
        f"models.{key}.speed.{stage}: the model has no block `{stage}` that it could speed up"
        for stage in block.get("speed", {})
        if not block.get(stage)
    ]
    if (source := block.get("caption_source")) and usable and not faults:
        texts = schema()["properties"]["cohort"]["properties"]["caption_source"]["enum"]
        known = texts if config["cohort"]["source"] == "mimic_cxr_jpg" else [source]
        if source not in known:
            faults.append(f"models.{key}.caption_source: {source!r} is none of {', '.join(known)}")
        elif source != caption_source_of(config) and "augment" in block.get("prompt_sets", ()):
            faults.append(
                f"models.{key}.prompt_sets: no `augment` with a caption_source of its own: its "
                "captions point to other radiographs than the downstream baseline's"
            )
    if family == "control":
        if STRESS in block.get("prompt_sets", ()):
            faults.append(
                f"models.{key}.prompt_sets: a control has no images of `{STRESS}`: its prompts "
                "describe no radiograph"
            )
        kind = block.get("control", {}).get("kind")
        for name in _CONTROL_NEEDS.get(kind, ()):
            if name not in block["control"]:
                faults.append(f"models.{key}.control: kind {kind!r} needs {name!r}")
    return faults


def _part_faults(config: dict[str, Any]) -> list[str]:
    """Return the faults of missing blocks, for scores and tasks that are folders and will run."""
    faults = []
    for part in every_part():
        runs = part.stage != "downstream" or part.name in config["downstream"]["tasks"]
        needed = schema_of(part.settings)["required"] if part.settings and runs else []
        if needed and part.name not in config[part.stage]:
            faults.append(f"{part.stage}.{part.name}: missing, with {', '.join(needed)}")
    return faults
