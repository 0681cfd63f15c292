"""Records: the measured values of one stage, model and metric family, as validated JSON.

Tables are a pure join of records. A record therefore has everything that a table shows: the value,
its interval, the number of images, which direction is better, and, if there is no value, the
reason.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import write_text
from workflow_scripts.common.record_faults import DIRECTIONS, record_faults
from workflow_scripts.common.user_environment import KEPT
from workflow_scripts.common.version import major, version

SCHEMA_VERSION: Final = 2
"""The version of what records mean. It is raised when a value changes its meaning, so that one
table never compares old and new values. Version 2: patients are the units on both sides, and p
takes several training runs into account."""
_LIBRARIES: Final = ("torch", "diffusers", "transformers", "accelerate", "numpy", "scipy", "h5py")


@dataclass(frozen=True)
class Value:
    """One measured value.

    Attributes:
        metric: the metric's key, lower case (`fid`, `kid`, `reid_mean_of_max`, `auroc`, ...).
        value: a finite number, or None where it cannot be computed (then `reason` says why).
        direction: whether `higher` or `lower` is better; `none` for counts.
        n: number of generated images, prompts or test images behind the value.
        subset: `all`, or one of the 14 findings.
        n_reference: number of reference images; None where there are none.
        interval: lower and upper bound, or None; `interval_kind` says how they were computed
            (`bootstrap 95%`).
        reason: why `value` is None.
        p: two-sided p-value of a gain: the probability of a gain at least this far from zero if
            there is none, in [0, 1]; None where it cannot be computed.
    """

    metric: str
    value: float | None
    direction: str
    n: int
    subset: str = "all"
    n_reference: int | None = None
    interval: tuple[float, float] | None = None
    interval_kind: str | None = None
    reason: str | None = None
    p: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction {self.direction!r} is none of {DIRECTIONS}")
        if (self.value is None) != (self.reason is not None):
            raise ValueError(f"{self.metric}: a value, or the reason why there is none")
        numbers = [] if self.value is None else [self.value]
        numbers += list(self.interval or ())
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{self.metric}/{self.subset}: {numbers} is not finite")


@dataclass(frozen=True)
class Record:
    """The values of one stage, model and metric family, with their provenance.

    Attributes:
        stage: `fidelity`, `privacy`, `downstream`, ...
        model: the model's key in the config; `real` for real data alone.
        family: the metric family (`rad_dino`, `pairwise`, `classification/augmented`, ...).
        protocol: `sound` or `as_published`.
        values: the measured values.
        details: settings and by-products for the reader (JSON types only).
        provenance: see `provenance`.
    """

    stage: str
    model: str
    family: str
    protocol: str
    values: list[Value]
    details: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def get(self, metric: str, subset: str = "all") -> Value:
        """Return one value.

        Raises:
            KeyError: the record has no such metric and subset.
        """
        for value in self.values:
            if (value.metric, value.subset) == (metric, subset):
                return value
        raise KeyError(f"{self.stage}/{self.model}: no {metric} for {subset}")


def write_record(record: Record, path: str | Path) -> None:
    """Write a record as JSON with sorted keys, whole or not at all.

    Raises:
        ValueError: `read_record` would refuse it.
    """
    content = asdict(record)
    for value in content["values"]:
        if value["p"] is None:  # only gains over several training runs have one
            del value["p"]
    if faults := record_faults(content):
        raise ValueError("; ".join(faults))
    payload = {"schema": SCHEMA_VERSION, **content}
    write_text(path, json.dumps(payload, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_record(path: str | Path) -> Record:
    """Read a record and check everything that a table may read from it.

    Records from before version 1.0.0 name no version and are accepted.

    Raises:
        InputError: the file is not a record of this schema version, it has faults (see
            `record_faults`; the message names each with its metric), or another major version of
            the workflow measured it.
    """
    remedy = "delete it and rerun the stage that writes it"
    try:
        payload = json.loads(
            Path(path).read_text(encoding="utf-8"), object_pairs_hook=_without_repeated_keys
        )
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable("cannot read a record", error, path, remedy) from None
    if not isinstance(payload, dict) or payload.pop("schema", None) != SCHEMA_VERSION:
        raise InputError(
            f"not a record of version {SCHEMA_VERSION}: an older one measured otherwise",
            path,
            remedy,
        )
    if faults := record_faults(payload):
        raise InputError("an invalid record:\n  - " + "\n  - ".join(faults), path, remedy)
    measured_by = payload["provenance"].get("version", version())
    if major(measured_by) != major(version()):
        raise InputError(
            f"{payload['model']} was measured by version {measured_by} of the workflow: its values "
            f"mean something else than those of version {version()}",
            path,
            f"{remedy}; nothing is trained or sampled for it",
        )
    for entry in payload["values"]:
        if entry["interval"] is not None:
            entry["interval"] = tuple(entry["interval"])
    return Record(**{**payload, "values": [Value(**entry) for entry in payload["values"]]})


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; a repeated key, of which JSON keeps the last, is an error."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the key {', '.join(repeated)} stands twice in one object")
    return members


def provenance(
    settings: dict[str, Any], device: str = "cpu", inputs: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return how a record was made: version, commit, settings, libraries, device, inputs, job.

    Args:
        settings: the settings that the values depend on; the record keeps their digest.
        device: the device that computed, for example `cuda:NVIDIA H200` or `cpu`.
        inputs: the identity of each feature file that was read: encoder, digests, preprocessing.
            The record keeps them in full, because the tables compare them. They are part of the
            settings' digest.
    """
    feature_files = {"inputs": list(inputs)} if inputs else {}
    text = json.dumps({**settings, **feature_files}, sort_keys=True, default=str)
    return {
        "version": version(),
        "git_commit": _git_commit(),
        "settings_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "versions": {name: _version(name) for name in _LIBRARIES}
        | {"python": platform.python_version()},
        "device": device,
        **({"environment": KEPT} if KEPT else {}),
        **feature_files,
        **slurm_job(),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def slurm_job() -> dict[str, str | None]:
    """Return the SLURM job id and node name of this process; None if SLURM did not start it.

    The host name of a machine that SLURM does not manage is not recorded.
    """
    return {
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "slurm_node": os.environ.get("SLURMD_NODENAME"),
    }


@functools.cache
def _git_commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
