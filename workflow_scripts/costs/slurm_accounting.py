"""What SLURM's accounting knows of jobs: every run of them, how it ended and what it took."""

import logging
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

log = logging.getLogger(__name__)

FIELDS: Final = (
    "JobIDRaw",
    "JobName",
    "State",
    "ExitCode",
    "Start",
    "End",
    "ElapsedRaw",
    "AllocTRES",
    "NodeList",
    "MaxRSS",
)
"""What sacct is asked for, in this order."""

NOT_KNOWN: Final = "SLURM's accounting does not know the job"

_ODD: Final = "SLURM's accounting cannot be read here"

_BATCH: Final = 200
"""Jobs of one call: the command line stays short."""

_TIMEOUT_S: Final = 120
"""Without slurmdbd sacct may wait for ever."""

_ID: Final = re.compile(r"(\d+)(?:\.(\w+))?")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]?)")
_MIB: Final = {"": 2.0**-20} | {
    unit: 2.0 ** (10 * power - 10) for power, unit in enumerate("KMGTPE")
}


@dataclass(frozen=True)
class Allocation:
    """One run of a job; a job that SLURM requeued has several.

    Attributes:
        job_id: SLURM's number.
        name: the job's name.
        state: how it ended (`COMPLETED`, `FAILED`, `TIMEOUT`, `NODE_FAIL`, ...), or its state now.
        exit_code: `code:signal`.
        start, end: local time, as sacct writes it; empty where there is none.
        elapsed_s: seconds that the allocation lasted; 0 for a job that never started.
        gpus: allocated GPUs; None where the accounting has no GPUs at all among its resources,
            which it also has not where a cluster does not track them.
        gpu_model: the GPUs' type where SLURM has types, else empty.
        cpus: allocated CPUs.
        node: the nodes.
        max_rss_mib: largest resident memory of any task of any step, MiB; None where the
            accounting has none (a job shorter than its sampling interval).
    """

    job_id: str
    name: str
    state: str
    exit_code: str
    start: str
    end: str
    elapsed_s: float
    gpus: int | None
    gpu_model: str
    cpus: int | None
    node: str
    max_rss_mib: float | None


@dataclass(frozen=True)
class Accounting:
    """The answer for a set of jobs.

    Attributes:
        runs: the runs of each job that is known, the first first.
        reasons: of every other job, why nothing is known of it.
    """

    runs: dict[str, list[Allocation]]
    reasons: dict[str, str]


def ask_accounting(job_ids: Iterable[str], command: str = "sacct") -> Accounting:
    """Ask SLURM's accounting for every run of some jobs.

    A cluster without accounting is no error: the jobs then have the reason.

    Args:
        job_ids: SLURM's numbers.
        command: the program.

    """
    ids = sorted(set(job_ids), key=int)
    runs: dict[str, list[Allocation]] = {}
    reasons: dict[str, str] = {}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        text, reason = _run(command, batch)
        found = parse_sacct(text)
        runs |= found.runs
        reasons |= {
            name: found.reasons.get(name) or reason or NOT_KNOWN
            for name in batch
            if name not in found.runs
        }
    return Accounting(runs, reasons)


def _run(command: str, batch: Sequence[str]) -> tuple[str, str | None]:
    """Return what sacct writes, and why it wrote nothing."""
    words = [command, "--jobs", ",".join(batch), "--parsable2", "--noheader", "--duplicates"]
    words += [f"--format={','.join(FIELDS)}"]
    environment = {**os.environ, "SLURM_TIME_FORMAT": "standard", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=False
        )
    except FileNotFoundError:
        return "", f"SLURM's accounting cannot be asked: there is no {command} on this machine"
    except subprocess.TimeoutExpired:
        return "", f"SLURM's accounting did not answer within {_TIMEOUT_S} s"
    except OSError as error:
        return "", f"SLURM's accounting cannot be asked: {error.strerror}"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return "", f"SLURM's accounting cannot be asked: {lines[-1].removeprefix('sacct: ')}"
    return done.stdout, None


def parse_sacct(text: str) -> Accounting:
    """Parse `sacct --parsable2 --noheader --duplicates` with `FIELDS`.

    A run is a line of its own, followed by a line for each of its steps, which have the memory.
    A number that SLURM has given twice (its counter was reset) is told by the name, which
    Snakemake gives each of its runs: the last one's runs are kept.

    What sacct should not write costs the job that it stands at, and no other: a size of memory is
    unknown then, and of a job whose time or resources cannot be read nothing is known.

    Returns:
        The runs of each job, in sacct's order, and the reasons of those that cannot be read.
    """
    runs: dict[str, list[Allocation]] = {}
    reasons: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != len(FIELDS):
            known = _ID.match(fields[0])
            if known:
                reasons[known[1]] = f"{_ODD}: {len(fields)} fields, not {len(FIELDS)}"
            continue
        row = dict(zip(FIELDS, fields, strict=True))
        found = _ID.fullmatch(row["JobIDRaw"])
        if found is None:  # a part of a heterogeneous job, which Snakemake does not submit
            continue
        job_id, step = found.groups()
        own = runs.setdefault(job_id, [])
        if step is None:
            try:
                own.append(_allocation(job_id, row))
            except ValueError as error:
                reasons[job_id] = f"{_ODD}: {error}"
        elif own:
            own[-1] = replace(own[-1], max_rss_mib=_larger(own[-1].max_rss_mib, mib(row["MaxRSS"])))
    for job_id, reason in reasons.items():
        runs.pop(job_id, None)
        log.warning("job %s: %s", job_id, reason)
    known_runs = {
        job_id: [run for run in own if run.name == own[-1].name]
        for job_id, own in runs.items()
        if own
    }
    return Accounting(known_runs, reasons)


def _allocation(job_id: str, row: dict[str, str]) -> Allocation:
    gpus, gpu_model = gpus_in(row["AllocTRES"])
    cpus = _tres(row["AllocTRES"]).get("cpu")
    elapsed = float(row["ElapsedRaw"] or 0)
    start, end = ("" if t in ("Unknown", "None") else t for t in (row["Start"], row["End"]))
    node = "" if row["NodeList"] == "None assigned" else row["NodeList"]
    # "CANCELLED by 1000" names the user.
    state = row["State"].split(" ")[0]
    return Allocation(
        job_id,
        row["JobName"],
        state,
        row["ExitCode"],
        start,
        end,
        elapsed,
        gpus if gpus is not None or row["AllocTRES"] else 0,
        gpu_model,
        int(cpus) if cpus else None,
        node,
        mib(row["MaxRSS"]),
    )


def gpus_in(tres: str) -> tuple[int | None, str]:
    """Return how many GPUs are among allocated resources, and of which types.

    Args:
        tres: as sacct writes it, `billing=4,cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=200G,node=1`.

    Returns:
        None where it names no GPUs.
    """
    counts = {k: v for k, v in _tres(tres).items() if k.split(":")[0] == "gres/gpu"}
    typed = {k.split(":", 1)[1]: v for k, v in counts.items() if ":" in k}
    if not counts:
        return None, ""
    # The untyped count holds the typed ones; a cluster may track either alone.
    number = counts.get("gres/gpu")
    total = sum(map(int, typed.values())) if number is None else int(number)
    return total, "+".join(sorted(typed))


def _tres(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def mib(size: str) -> float | None:
    """Return a size as sacct writes it (`1843200K`, `1.50G`, bytes without a unit) in MiB.

    None where there is none, or what stands there is no size; the log says so.
    """
    if not size:
        return None
    found = _SIZE.fullmatch(size)
    if found is None:
        log.warning("%s: %r is no size of memory, which stays unknown", _ODD, size)
        return None
    return float(found[1]) * _MIB[found[2]]


def _larger(one: float | None, other: float | None) -> float | None:
    known = [number for number in (one, other) if number is not None]
    return max(known, default=None)
