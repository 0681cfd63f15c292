"""Every attempt of every job: from benchmark files, the SLURM executor's logs, the accounting."""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.csv_cells import csv_text, plain_cell
from workflow_scripts.common.errors import InputError
from workflow_scripts.costs.jobs import Job, RulePattern, job_of_benchmark, logged_jobs
from workflow_scripts.costs.slurm_accounting import Accounting, Allocation

COMPLETED: Final = "COMPLETED"
UNFINISHED: Final = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING")
"""States of jobs of which nobody knows yet how they end."""

UNTRACKED: Final = "SLURM's accounting does not track GPUs on this cluster"

UNSAID: Final = "the rule does not say how many GPUs each of its jobs has"

LEFT_OUT: Final = ("costs", "paper_audit", "tables")
"""What is not counted: the joins, or the table would count its own making, and the audit."""

_USAGE_LINE: Final = re.compile(
    r"took [\d.]+ s, [\d.]+ s of CPU, at most ([\d.]+) MiB$", re.MULTILINE
)
"""See `USAGE` of `common/errors.py`."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job.

    Attributes:
        rule, stage, model, wildcards: the job's; the model is `SHARED` or `OTHER` where it is
            not one of the run's.
        source: what is known of it comes from: `accounting` (SLURM's), `benchmark` (Snakemake's
            file, of the last attempt that succeeded), or `log` (nothing is known but that it was).
        job_id: SLURM's number; empty without SLURM.
        state: how it ended; empty where that is unknown.
        exit_code, start, end: see `Allocation`.
        elapsed_s: seconds; None where that is unknown, for `reason`.
        gpus, gpu_model, cpus, node: allocated; None or empty where that is unknown.
        max_rss_mib: MiB.
        members: how many jobs share what it took: those of a SLURM group.
        reason: why something is unknown.
    """

    rule: str
    stage: str
    model: str
    wildcards: str
    source: str
    job_id: str = ""
    state: str = ""
    exit_code: str = ""
    start: str = ""
    end: str = ""
    elapsed_s: float | None = None
    gpus: int | None = None
    gpu_model: str = ""
    cpus: int | None = None
    node: str = ""
    max_rss_mib: float | None = None
    members: int = 1
    reason: str = ""

    @property
    def job(self) -> Job:
        """The job that it is an attempt of."""
        return Job(self.rule, self.stage, self.model, self.wildcards)


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark file says: seconds, and the largest resident memory in MiB (None: none)."""

    seconds: float
    max_rss_mib: float | None


def read_benchmark(path: Path) -> Benchmark:
    """Read one of Snakemake's benchmark files (TSV); of repetitions, the sum and the largest.

    Raises:
        InputError: no such file.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        if not rows:
            raise ValueError("no rows")
        seconds = sum(float(row["s"]) for row in rows)
        # Of a job too short to be looked at Snakemake writes NA or -.
        memory = [float(row["max_rss"]) for row in rows if row["max_rss"] not in ("NA", "-")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(
            "cannot read a benchmark file", error, path, "delete it: its job is not counted"
        ) from None
    return Benchmark(seconds, max(memory, default=None))


def memory_in_log(path: Path) -> float | None:
    """Return the largest resident memory that a job's own log names, in MiB; None: it names none.

    Snakemake looks at processes below the job's shell, every few seconds: a short job may end
    unseen, and a warm Python's script (`world/warm_python.py`) runs elsewhere.

    Args:
        path: the rule's `log:`; it need not be there.
    """
    try:
        said = _USAGE_LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return max(map(float, said), default=None)


def every_attempt(
    benchmarks: Path,
    job_logs: Path,
    logs: Path,
    patterns: Sequence[RulePattern],
    models: Sequence[str],
    ask: Callable[[Iterable[str]], Accounting],
) -> list[Attempt]:
    """Return every attempt that anything is known of, in the order of stage files and job ids.

    Args:
        benchmarks: Snakemake's folder of benchmark files.
        job_logs: the folder of the rules' `log:` files, named as the benchmark files are.
        logs: the SLURM executor's folder of logs; without it, the run was without SLURM.
        patterns: of all rules.
        models: the run's.
        ask: SLURM's accounting; not asked where there are no logs.

    Raises:
        InputError: a benchmark file that is none, or see `ask`.
    """
    done: dict[Job, Benchmark] = {}
    for path in sorted(benchmarks.rglob("*.tsv")):
        name = f"benchmarks/{path.relative_to(benchmarks).as_posix()}"
        job = job_of_benchmark(name, patterns, models)
        if job.stage not in LEFT_OUT:
            own_log = job_logs / path.relative_to(benchmarks).with_suffix(".log")
            done[job] = read_benchmark(path)
            memory = [done[job].max_rss_mib, memory_in_log(own_log)]
            largest = max((mib for mib in memory if mib is not None), default=None)
            done[job] = replace(done[job], max_rss_mib=largest)
    ids = {
        job_id: [job for job in jobs if job.stage not in LEFT_OUT]
        for job_id, jobs in logged_jobs(logs, patterns, models).items()
    }
    ids = {job_id: jobs for job_id, jobs in ids.items() if jobs}
    accounting = ask(ids) if ids else Accounting({}, {})
    asked = {rule.name: rule.gpus for rule in patterns}
    attempts: dict[Job, list[Attempt]] = {}
    for job_id in sorted(ids, key=int):
        for job in ids[job_id]:
            own = attempts.setdefault(job, [])
            lost = accounting.reasons.get(job_id, "")
            for run in accounting.runs.get(job_id, []):
                own.append(_of_accounting(job, run, len(ids[job_id]), asked.get(job.rule)))
            if job_id not in accounting.runs:
                own.append(_of(job, "log", job_id=job_id, members=len(ids[job_id]), reason=lost))
    for job, benchmark in done.items():
        gpus = asked.get(job.rule)
        attempts[job] = _with_benchmark(job, attempts.get(job, []), benchmark, gpus)
    return [attempt for own in attempts.values() for attempt in own]


def _of(job: Job, source: str, **known: Any) -> Attempt:
    return Attempt(job.rule, job.stage, job.model, job.wildcards, source, **known)


def _of_accounting(job: Job, run: Allocation, members: int, asked: int | None) -> Attempt:
    gpus, reason = run.gpus, ""
    if gpus is None:
        # No GPUs among the resources: the job had none, or nobody counts them.
        gpus, reason = (0, "") if asked == 0 else (None, UNTRACKED)
    return _of(
        job,
        "accounting",
        job_id=run.job_id,
        state=run.state,
        exit_code=run.exit_code,
        start=run.start,
        end=run.end,
        elapsed_s=run.elapsed_s,
        gpus=gpus,
        gpu_model=run.gpu_model,
        cpus=run.cpus,
        node=run.node,
        max_rss_mib=run.max_rss_mib,
        members=members,
        reason=reason,
    )


def _with_benchmark(
    job: Job, attempts: list[Attempt], benchmark: Benchmark, gpus: int | None
) -> list[Attempt]:
    """Return a job's attempts with what its benchmark file says of the last that succeeded.

    Its memory is the whole process tree's, sampled more often than SLURM's; the larger counts.
    Where the accounting does not know that attempt, the file is what is known of it: of the
    attempts that left nothing but a log, it is the newest one's.
    """
    # The accounting may lag behind: what it says still runs has succeeded if there is a file.
    ended = (COMPLETED, *UNFINISHED)
    last = max((i for i, a in enumerate(attempts) if a.state in ended), default=None)
    if last is not None:
        both = (attempts[last].max_rss_mib, benchmark.max_rss_mib)
        memory = max((number for number in both if number is not None), default=None)
        attempts[last] = replace(attempts[last], max_rss_mib=memory)
        return attempts
    bare = max((i for i, a in enumerate(attempts) if a.source == "log"), default=None)
    found = _of(
        job,
        "benchmark",
        state=COMPLETED,
        elapsed_s=benchmark.seconds,
        gpus=gpus,
        max_rss_mib=benchmark.max_rss_mib,
        reason="" if gpus is not None else UNSAID,
    )
    if bare is None:
        return [*attempts, found]
    # Its own time, not the group's: nothing is shared out.
    known = replace(found, job_id=attempts[bare].job_id, reason=attempts[bare].reason)
    return [*attempts[:bare], known, *attempts[bare + 1 :]]


_COLUMNS: Final = tuple(field.name for field in fields(Attempt))
_NUMBERS: Final = {
    "elapsed_s": float,
    "gpus": int,
    "cpus": int,
    "max_rss_mib": float,
    "members": int,
}


def attempts_to_csv(attempts: Iterable[Attempt]) -> str:
    """Render attempts as CSV, a row each; what is unknown is empty."""
    rows = [[getattr(attempt, name) for name in _COLUMNS] for attempt in attempts]
    return csv_text([_COLUMNS, *rows])


def read_attempts(path: str | Path) -> list[Attempt]:
    """Read what `attempts_to_csv` wrote.

    Raises:
        InputError: no such file.
    """
    remedy = "delete it and run the workflow again"
    try:
        rows = list(csv.reader(Path(path).read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise unreadable("cannot read the attempts", error, path, remedy) from None
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise InputError("no table of attempts", path, remedy)
    found = []
    for row in rows[1:]:
        values: dict[str, Any] = dict(zip(_COLUMNS, map(plain_cell, row), strict=True))
        for name, kind in _NUMBERS.items():
            values[name] = kind(values[name]) if values[name] else None
        found.append(Attempt(**values))
    return found
