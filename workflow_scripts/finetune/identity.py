"""What a run's checkpoints and encoded images depend on: they are used only if it is the same.

A change in what these functions return discards the progress of every fine-tuning: days of GPUs.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch

from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.levels import said_of_bits
from workflow_scripts.finetune.data import digest_of_files
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.settings import TrainSettings

_HARDWARE_KEYS: Final = (
    "per_device_batch_size",
    "gradient_checkpointing",
    "checkpoint_every",
    "speed",
)
"""Settings of how the hardware is used, which change rounding alone."""


def encoding_key(
    family: Family,
    version: int,
    pipeline: Any,
    files: list[Path],
    base: Base,
    rows: pd.DataFrame,
    device: torch.device,
) -> dict[str, str]:
    """Return what encoded images depend on, besides their size.

    Args:
        family: family of the model.
        version: version of the stage.
        pipeline: the loaded base.
        files: the files of the base, as `Family.check` returns them.
        base: the checkpoint to start from.
        rows: the training images, with the column `path`.
        device: the device that encodes.
    """
    component = family.encode_with(pipeline)
    places = {base.component_of(path): path for path in sorted(files)}
    weights = {
        place: sha256_of(path)
        for place, path in places.items()
        if place.startswith(f"{component}/")
    }
    return {
        "family": family.identity,
        "version": str(version),
        "encoder": digest_of(weights),
        "precision": str(getattr(getattr(pipeline, component, None), "dtype", None)),
        "device": device.type,
        "images": digest_of_files(rows["path"].tolist()),
    }


def run_identity(
    family: Family,
    version: int,
    files: list[Path],
    base: Base,
    rows: pd.DataFrame,
    settings: TrainSettings,
    device: torch.device,
) -> dict[str, Any]:
    """Return what a checkpoint must have been made with to be continued, as JSON types.

    Args:
        family: family of the model.
        version: version of the stage.
        files: the files of the base, as `Family.check` returns them.
        base: the checkpoint to start from.
        rows: the training images with their captions.
        settings: settings of the training.
        device: the device that trains.
    """
    weights = {base.component_of(path): sha256_of(path) for path in sorted(files)}
    chosen = {key: value for key, value in asdict(settings).items() if key not in _HARDWARE_KEYS}
    identity = {
        "family": family.identity,
        "version": version,
        "base": digest_of(weights),
        "images": digest_of(rows.values.tolist()),
        "device": device.type,
        **said_of_bits(),
        **chosen,
    }
    return json.loads(json.dumps(identity))  # as it is read back: tuples are lists there


def digest_of(content: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
