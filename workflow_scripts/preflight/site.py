"""Check that SLURM can ever grant what the planned jobs request.

A request may name a partition that does not exist, a GPU by a name that SLURM does not use, or more
time than a partition allows. `sbatch` refuses some of these requests, one job after another and
each after its retries. Other requests stay pending forever. So requests are compared with `sinfo`,
which lists all nodes, including those that are down or drained. `sbatch --test-only` is no
alternative: it refuses requests for drained nodes, and accepts requests for too much time.
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
    """What a job requests from SLURM.

    Attributes:
        partition: one partition or several, separated by commas; None leaves it to SLURM.
        minutes: wall time.
        cpus: CPUs on one node.
        mem_mb: memory on one node at the first attempt, MB; it grows with further attempts.
        gpus: GPUs on one node.
        gpu_model: SLURM's name of the GPU; None takes any.
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
    """The resources of each node of one kind in one partition.

    Attributes:
        partition: the partition's name.
        minutes: the longest wall time that the partition allows; infinite if it has no limit.
        cpus: CPUs of a node.
        mem_mb: memory of a node, MB.
        gpus: number of a node's GPUs by model; GPUs without a model are under "".
    """

    partition: str
    minutes: float
    cpus: int
    mem_mb: int
    gpus: dict[str, int]


def request_of(resources: Mapping[str, Any], threads: int) -> Request | None:
    """Return what Snakemake's executor requests for a job with these resources.

    A number that is not known yet is 0 (such as Snakemake's default for memory, before the inputs
    exist). The request is None if it goes to another cluster.
    """
    if resources.get("cluster") or resources.get("clusters") or resources.get("slurm_cluster"):
        return None

    def number(name: str, default: int = 0) -> int:
        value = resources.get(name, default)
        return value if isinstance(value, int) else 0

    model = resources.get("gpu_model") or ""
    requested = gpus_in(resources.get("gres") or "") or {model: number("gpu", int(bool(model)))}
    (model, gpus), *_ = requested.items()
    nodes = number("nodes") or max(gpus, 1)  # each GPU may be on a node of its own
    return Request(
        partition=resources.get("slurm_partition"),
        minutes=number("runtime"),
        cpus=number("cpus_per_task") or gpus * number("cpus_per_gpu") or threads,
        mem_mb=number("mem_mb"),
        gpus=-(-gpus // nodes),
        gpu_model=model or None,
    )


def read_nodes() -> list[Nodes]:
    """Ask SLURM for the nodes of all partitions, including hidden ones.

    Raises:
        OSError: sinfo cannot be run.
        subprocess.SubprocessError: sinfo fails or does not answer.
        ValueError: the answer cannot be parsed.
    """
    command = ["sinfo", "--all", "--noheader", "--exact", "--format=%R|%l|%c|%m|%G"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    nodes = [parse_nodes(line) for line in done.stdout.split("\n") if line.strip()]
    if not nodes:
        raise ValueError("sinfo lists no partition")
    return nodes


def parse_nodes(line: str) -> Nodes:
    """Parse a line of sinfo: partition, time limit, CPUs, MB and generic resources.

    Raises:
        ValueError: the line has another format.
    """
    partition, limit, cpus, memory, resources = line.strip().split("|")
    return Nodes(partition, parse_minutes(limit), int(cpus), int(memory), gpus_in(resources))


_FLAGS: Final = ("no_consume",)
"""Flags in generic resources that are not models."""


def gpus_in(resources: str) -> dict[str, int]:
    """Return the number of GPUs of each model in generic resources: `gpu:h200:8(S:0-1),nvme:1`.

    Raises:
        ValueError: they have another format.
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
    """Return the minutes of a time limit in sinfo's format: [days-][hours:]minutes:seconds.

    Raises:
        ValueError: it is not a time limit.
    """
    if limit in ("infinite", "n/a"):
        return inf
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = [0, 0, *map(int, clock.split(":"))][-3:]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def check_request(request: Request, nodes: Sequence[Nodes]) -> None:
    """Check that some node could grant a request once it is free.

    Raises:
        InputError: no node ever can.
    """
    if request.partition is None:
        return
    names = request.partition.split(",")
    candidates = [kind for kind in nodes if kind.partition in names]
    if not candidates:
        partitions = ", ".join(sorted({kind.partition for kind in nodes}))
        raise InputError(
            f"there is no partition {request.partition}; SLURM has {partitions}",
            WHERE,
            "name the partitions in its SITE block as `sinfo` does",
        )
    longest = max(kind.minutes for kind in candidates)
    candidates = [kind for kind in candidates if kind.minutes >= request.minutes]
    if not candidates:
        raise InputError(
            f"jobs request {request.minutes} minutes, and partition {request.partition} allows "
            f"{longest:.0f}: they would stay pending forever",
            WHERE,
            "set a lower `runtime` in its set-resources (fine-tuning continues in another job)",
        )
    if request.gpus:
        gpus_by_model = {
            model: number for kind in candidates for model, number in kind.gpus.items()
        }
        candidates = [kind for kind in candidates if _gpus(kind, request.gpu_model) >= request.gpus]
        if not candidates:
            listed = ", ".join(f"{n} x {model or 'no model'}" for model, n in gpus_by_model.items())
            raise InputError(
                f"no node of partition {request.partition} has {request.gpus} GPU(s) "
                f"{request.gpu_model or ''}".rstrip()
                + f"; a node has {listed or 'none'}",
                WHERE,
                "write `gpu_model` in its SITE block as `sinfo -o %G` does, or set fewer GPUs",
            )
    for name, requested, has in (
        ("CPUs", request.cpus, [kind.cpus for kind in candidates]),
        ("MB of memory", request.mem_mb, [kind.mem_mb for kind in candidates]),
    ):
        if requested > max(has):
            raise InputError(
                f"jobs request {requested} {name}, and a node of partition {request.partition} "
                f"has at most {max(has)}",
                WHERE,
                "set less in its set-resources (`cpus_per_task`, `mem_mb`)",
            )


def _gpus(kind: Nodes, model: str | None) -> int:
    if model is None:
        return sum(kind.gpus.values())
    return sum(n for name, n in kind.gpus.items() if name.lower() == model.lower())
