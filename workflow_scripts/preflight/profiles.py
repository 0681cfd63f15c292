"""What a Snakemake profile sets for GPUs, read without Snakemake: `make check PROFILE=...`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from workflow_scripts.common.errors import InputError

STAGES: Final = {"finetune_train": "finetune", "generate_sample": "generate"}
"""The rules whose GPUs' memory is checked, with their stages."""

FINETUNE_GPUS: Final = 4
"""GPUs of fine-tuning if the profile gives no number, as in rules/finetune.smk."""


@dataclass(frozen=True)
class Profile:
    """What the check needs of a profile.

    Attributes:
        gpu_memory: GB of a GPU by stage, `finetune` and `generate`, if the profile gives it.
        devices: number of devices of a fine-tuning job; None if it is not known.
        config: the config files that the profile names.
    """

    gpu_memory: Mapping[str, float] = field(default_factory=dict)
    devices: int | None = None
    config: tuple[str, ...] = ()


def read_profile(folder: Path) -> Profile:
    """Read a profile's folder.

    Raises:
        InputError: there is no profile, or it cannot be read.
    """
    import yte

    file = folder / "config.yaml"
    if not file.is_file():
        raise InputError(
            "the profile does not exist", file, "give a folder such as profiles/slurm_h200"
        )
    try:
        with file.open(encoding="utf-8") as stream:
            content = yte.process_yaml(stream, require_use_yte=True)
    except Exception as error:  # of YAML, or of an expression in it
        raise InputError(f"not a profile: {error}", file, "correct the file") from None
    rules = content.get("set-resources") or {}
    requested = {stage: rules.get(rule) or {} for rule, stage in STAGES.items()}
    memory = {
        stage: float(resources["gpu_memory_gb"])
        for stage, resources in requested.items()
        if resources.get("gpu_memory_gb")
    }
    gpus = requested["finetune"].get("gpu", FINETUNE_GPUS if memory else None)
    configs = content.get("configfile") or ()
    return Profile(memory, gpus or None, (configs,) if isinstance(configs, str) else tuple(configs))
