"""A shipped profile, adapted to a machine without GPUs.

Everything that decides the placement of a job stays: partition, CPUs, memory, runtime and GPUs,
which SLURM grants as on other clusters. GPUs are requested by `gres`; the jobs themselves get
`gpu: 0` and compute on the CPU. Waiting times are reduced to those of a small cluster.
"""

import re
from pathlib import Path
from typing import Any, Final

import yaml
import yte

from tests.rule_texts import rule_texts

SMALLER: Final[dict[str, Any]] = {
    "jobs": 3,  # they share two cores
    "latency-wait": 20,
    "max-jobs-per-timespan": "1000/2s",
    "slurm-init-seconds-before-status-checks": 2,
}


def read_profile(path: Path) -> dict[str, Any]:
    """Return a profile as Snakemake reads it."""
    with path.open() as stream:
        return yte.process_yaml(stream, require_use_yte=True)


def gpus_of_rules(rules: Path) -> dict[str, int]:
    """Return the number of GPUs that each rule in a folder of rules requests."""
    texts = rule_texts(rules)
    requests = {name: re.search(r"\bgpu=(\d+)", text) for name, text in texts.items()}
    return {name: int(match[1]) for name, match in requests.items() if match and int(match[1])}


def fit_to_machine(profile: dict[str, Any], gpus: dict[str, int]) -> dict[str, Any]:
    """Return a profile with the same requests whose jobs compute on the CPU.

    Args:
        profile: The shipped profile.
        gpus: GPUs of each rule, for rules without a number in the profile.
    """
    resources = {rule: dict(wanted) for rule, wanted in profile["set-resources"].items()}
    for rule, wanted in resources.items():
        if model := wanted.pop("gpu_model", None):
            wanted["gres"] = f"gpu:{model}:{wanted.get('gpu') or gpus[rule]}"
            wanted["gpu"] = 0
    resources["finetune_train"]["cpu_processes"] = 2
    threads = dict.fromkeys(resources, 1)  # the granted CPUs do not exist
    return profile | SMALLER | {"set-resources": resources, "set-threads": threads}


def write_profile(shipped: Path, folder: Path, **changes: Any) -> Path:
    """Write the adapted form of a shipped profile to a folder; return the folder.

    Args:
        shipped: Folder of the profile in a checkout, for example `profiles/slurm_h200`.
        folder: New folder.
        changes: Other values of top-level keys, with `_` for `-`.
    """
    profile = fit_to_machine(
        read_profile(shipped / "config.yaml"), gpus_of_rules(shipped.parents[1] / "rules")
    )
    profile |= {key.replace("_", "-"): value for key, value in changes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    return folder
