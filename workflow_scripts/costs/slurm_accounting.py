"""SLURM's accounting of jobs: how each run ended and which resources it used."""

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
"""The fields that are requested from sacct, in this order."""

NOT_KNOWN: Final = "SLURM's accounting does not know the job"

_ODD: Final = "SLURM's accounting cannot be read here"

_BATCH: Final = 200
"""Jobs per call, which keeps the command line short."""

_TIMEOUT_S: Final = 120
"""Time limit of a call: without slurmdbd, sacct may never return."""

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
        start: local time in sacct's format; empty if there is none.
        end: local time in sacct's format; empty if there is none.
        elapsed_s: seconds that the allocation lasted; 0 for a job that never started.
        gpus: allocated GPUs; None if the accounting lists no GPUs, which is also the case if the
            cluster does not track them.
        gpu_model: the GPUs' type if SLURM has types, else empty.
        cpus: allocated CPUs.
        node: the nodes.
        max_rss_mib: largest resident memory of any task of any step, MiB; None if it was not
            sampled (a job shorter than the sampling interval).
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
        runs: the runs of each known job, in order.
        reasons: for each other job, the reason why its runs are not known.
    """

    runs: dict[str, list[Allocation]]
    reasons: dict[str, str]


def ask_accounting(job_ids: Iterable[str], command: str = "sacct") -> Accounting:
    """Ask SLURM's accounting for every run of some jobs.

    A cluster without accounting is not an error: the reasons then say so.

    Args:
        job_ids: SLURM's numbers.
        command: the program to call.
    """
    ids = sorted(set(job_ids), key=int)
    runs: dict[str, list[Allocation]] = {}
    reasons: dict[str, str] = {}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        text, reason = _run(command, batch)
        answer = parse_sacct(text)
        runs |= answer.runs
        reasons |= {
            name: answer.reasons.get(name) or reason or NOT_KNOWN
            for name in batch
            if name not in answer.runs
        }
    return Accounting(runs, reasons)


def _run(command: str, batch: Sequence[str]) -> tuple[str, str | None]:
    """Return sacct's output, and the reason if it failed."""
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

    Each run has a line, followed by a line for each of its steps, which give the memory. If SLURM
    used a number twice (because its counter was reset), the jobs differ in their names, which are
    unique to each run of Snakemake; the runs of the last name are kept.

    A malformed line affects only its own job. A malformed size of memory is unknown. A job with a
    malformed time or malformed resources is dropped, with the reason.

    Returns:
        The runs of each job, in sacct's order, and the reasons for jobs that cannot be parsed.
    """
    runs: dict[str, list[Allocation]] = {}
    reasons: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != len(FIELDS):
            job_number = _ID.match(fields[0])
            if job_number:
                reasons[job_number[1]] = f"{_ODD}: {len(fields)} fields, not {len(FIELDS)}"
            continue
        row = dict(zip(FIELDS, fields, strict=True))
        job_and_step = _ID.fullmatch(row["JobIDRaw"])
        if job_and_step is None:  # part of a heterogeneous job, which Snakemake does not submit
            continue
        job_id, step = job_and_step.groups()
        job_runs = runs.setdefault(job_id, [])
        if step is None:
            try:
                job_runs.append(_allocation(job_id, row))
            except ValueError as error:
                reasons[job_id] = f"{_ODD}: {error}"
        elif job_runs:
            job_runs[-1] = replace(
                job_runs[-1], max_rss_mib=larger(job_runs[-1].max_rss_mib, mib(row["MaxRSS"]))
            )
    for job_id, reason in reasons.items():
        runs.pop(job_id, None)
        log.warning("job %s: %s", job_id, reason)
    known_runs = {
        job_id: [run for run in job_runs if run.name == job_runs[-1].name]
        for job_id, job_runs in runs.items()
        if job_runs
    }
    return Accounting(known_runs, reasons)


def _allocation(job_id: str, row: dict[str, str]) -> Allocation:
    gpus, gpu_model = gpus_in(row["AllocTRES"])
    cpus = _tres(row["AllocTRES"]).get("cpu")
    elapsed = float(row["ElapsedRaw"] or 0)
    start, end = ("" if t in ("Unknown", "None") else t for t in (row["Start"], row["End"]))
    node = "" if row["NodeList"] == "None assigned" else row["NodeList"]
    # "CANCELLED by 1000" holds the user's number.
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
    """Return the number and the types of GPUs in allocated resources.

    Args:
        tres: sacct's text, `billing=4,cpu=32,gres/gpu:h200=4,gres/gpu=4,mem=200G,node=1`.

    Returns:
        The number, None if the text names no GPUs; and the types, joined by `+`.
    """
    counts = {k: v for k, v in _tres(tres).items() if k.split(":")[0] == "gres/gpu"}
    typed = {k.split(":", 1)[1]: v for k, v in counts.items() if ":" in k}
    if not counts:
        return None, ""
    # The untyped count includes the typed ones; a cluster may track only one kind of count.
    number = counts.get("gres/gpu")
    total = sum(map(int, typed.values())) if number is None else int(number)
    return total, "+".join(sorted(typed))


def _tres(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def mib(size: str) -> float | None:
    """Convert a size in sacct's format (`1843200K`, `1.50G`, bytes without a unit) to MiB.

    None if the text is empty or malformed; a malformed text is logged.
    """
    if not size:
        return None
    parsed = _SIZE.fullmatch(size)
    if parsed is None:
        log.warning("%s: %r is not a size of memory; the memory stays unknown", _ODD, size)
        return None
    return float(parsed[1]) * _MIB[parsed[2]]


def larger(first: float | None, second: float | None) -> float | None:
    """Return the larger of two numbers, either of which may be unknown."""
    numbers = [number for number in (first, second) if number is not None]
    return max(numbers, default=None)
