"""Can SLURM ever grant what the planned jobs ask for?

`sbatch` refuses some requests one by one, each after its retries, and takes others to let them
wait for ever: a partition that is not there, a GPU that SLURM calls otherwise, more time than a
partition allows. `sinfo` says what there is, whatever is down or drained today; `sbatch
--test-only` would refuse what is only drained, and let pass what asks for too much time.
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from workflow_scripts.common.errors import InputError

WHERE: Final = "the profile"


@dataclass(frozen=True)
class Request:
    """What jobs ask of SLURM.

    Attributes:
        partition: one, or several with commas between; None leaves it to SLURM.
        minutes: wall time.
        cpus: on one node, as the two below.
        mem_mb: at the first attempt; it grows with the next.
        gpus: how many.
        gpu_model: as SLURM calls it; None takes any.
    """

    partition: str | None
    minutes: int
    cpus: int
    mem_mb: int
    gpus: int
    gpu_model: str | None

    def __str__(self) -> str:
        gpus = f"{self.gpus} x {self.gpu_model or 'GPU'}, " if self.gpus else ""
        return f"{self.partition}: {gpus}{self.cpus} CPUs, {self.mem_mb} MB, {self.minutes} min"


@dataclass(frozen=True)
class Nodes:
    """What nodes of one kind in one partition have, each.

    Attributes:
        partition: its name.
        minutes: the longest wall time that the partition allows; infinite where it has no limit.
        cpus: of a node.
        mem_mb: of a node.
        gpus: of a node, how many of each model; those without a model under "".
    """

    partition: str
    minutes: float
    cpus: int
    mem_mb: int
    gpus: dict[str, int]


def request_of(resources: Mapping[str, Any], threads: int) -> Request | None:
    """Return what Snakemake's executor asks for a job with these resources.

    What is not known yet (Snakemake's own guess of memory, before the inputs are there) is 0. None
    where another cluster than the one at hand is asked.
    """
    if resources.get("cluster") or resources.get("clusters") or resources.get("slurm_cluster"):
        return None

    def number(name: str, default: int = 0) -> int:
        value = resources.get(name, default)
        return value if isinstance(value, int) else 0

    model = resources.get("gpu_model") or ""
    asked = gpus_in(resources.get("gres") or "") or {model: number("gpu", int(bool(model)))}
    (model, gpus), *_ = asked.items()
    nodes = number("nodes") or max(gpus, 1)  # they may lie on as many
    return Request(
        partition=resources.get("slurm_partition"),
        minutes=number("runtime"),
        cpus=number("cpus_per_task") or gpus * number("cpus_per_gpu") or threads,
        mem_mb=number("mem_mb"),
        gpus=-(-gpus // nodes),
        gpu_model=model or None,
    )


def read_nodes() -> list[Nodes]:
    """Ask SLURM what nodes its partitions have, hidden ones too.

    Raises:
        OSError, subprocess.SubprocessError: no answer.
        ValueError: an answer that this does not understand.
    """
    command = ["sinfo", "--all", "--noheader", "--exact", "--format=%R|%l|%c|%m|%G"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    nodes = [parse_nodes(line) for line in done.stdout.split("\n") if line.strip()]
    if not nodes:
        raise ValueError("sinfo lists no partition")
    return nodes


def parse_nodes(line: str) -> Nodes:
    """Read a line of sinfo's: partition, time limit, CPUs, MB and generic resources.

    Raises:
        ValueError: it is another kind of line.
    """
    partition, limit, cpus, memory, resources = line.strip().split("|")
    return Nodes(partition, parse_minutes(limit), int(cpus), int(memory), gpus_in(resources))


_FLAGS: Final = ("no_consume",)
"""Words among generic resources that name no model."""


def gpus_in(resources: str) -> dict[str, int]:
    """Return how many GPUs of each model generic resources hold: `gpu:h200:8(S:0-1),nvme:1`.

    Raises:
        ValueError: they are written otherwise.
    """
    gpus: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", resources).split(","):
        name, *model = entry.split(":")
        if name == "gpu":
            number = int(model.pop()) if model and model[-1].isdigit() else 1
            key = ":".join(part for part in model if part not in _FLAGS)
            gpus[key] = gpus.get(key, 0) + number
    return gpus


def parse_minutes(limit: str) -> float:
    """Return the minutes of a time limit as sinfo writes it: [days-][hours:]minutes:seconds.

    Raises:
        ValueError: it is no time limit.
    """
    if limit in ("infinite", "n/a"):
        return inf
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = [0, 0, *map(int, clock.split(":"))][-3:]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def check_request(request: Request, nodes: Sequence[Nodes]) -> None:
    """Check that some node could be given what jobs ask for, once it is free.

    Raises:
        InputError: none ever can.
    """
    if request.partition is None:
        return
    names = request.partition.split(",")
    there = [kind for kind in nodes if kind.partition in names]
    if not there:
        known = ", ".join(sorted({kind.partition for kind in nodes}))
        raise InputError(
            f"there is no partition {request.partition}; SLURM has {known}",
            WHERE,
            "name the partitions in its SITE block as `sinfo` does",
        )
    longest = max(kind.minutes for kind in there)
    there = [kind for kind in there if kind.minutes >= request.minutes]
    if not there:
        raise InputError(
            f"{request.minutes} minutes are asked for, and partition {request.partition} allows "
            f"{longest:.0f}: the jobs would wait for ever",
            WHERE,
            "set a lower `runtime` in its set-resources (fine-tuning goes on in a next job)",
        )
    if request.gpus:
        found = {model: number for kind in there for model, number in kind.gpus.items()}
        there = [kind for kind in there if _gpus(kind, request.gpu_model) >= request.gpus]
        if not there:
            listed = ", ".join(f"{n} x {model or 'no model'}" for model, n in found.items())
            raise InputError(
                f"no node of partition {request.partition} has {request.gpus} GPU(s) "
                f"{request.gpu_model or ''}".rstrip()
                + f"; there are {listed or 'none'} a node",
                WHERE,
                "write `gpu_model` in its SITE block as `sinfo -o %G` does, or set fewer GPUs",
            )
    for name, wanted, has in (
        ("CPUs", request.cpus, [kind.cpus for kind in there]),
        ("MB of memory", request.mem_mb, [kind.mem_mb for kind in there]),
    ):
        if wanted > max(has):
            raise InputError(
                f"{wanted} {name} are asked for, and a node of partition {request.partition} has "
                f"{max(has)} at most",
                WHERE,
                "set less in its set-resources (`cpus_per_task`, `mem_mb`)",
            )


def _gpus(kind: Nodes, model: str | None) -> int:
    if model is None:
        return sum(kind.gpus.values())
    return sum(n for name, n in kind.gpus.items() if name.lower() == model.lower())
