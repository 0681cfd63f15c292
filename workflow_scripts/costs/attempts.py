"""All attempts of all jobs: benchmark files, the SLURM executor's logs and SLURM's accounting."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.csv_cells import csv_text, plain_cell
from workflow_scripts.common.errors import InputError
from workflow_scripts.costs.jobs import Job, RulePattern, job_of_benchmark, logged_jobs
from workflow_scripts.costs.slurm_accounting import Accounting, Allocation, larger

COMPLETED: Final = "COMPLETED"
UNFINISHED: Final = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING")
"""States of jobs that have not ended yet."""

UNTRACKED: Final = "SLURM's accounting does not track GPUs on this cluster"

UNSAID: Final = "the rule does not say how many GPUs each of its jobs has"

LEFT_OUT: Final = ("costs", "paper_audit", "tables")
"""Stages that are not counted: costs and tables, which would count themselves, and the audit."""

_USAGE_LINE: Final = re.compile(
    r"took [\d.]+ s, [\d.]+ s of CPU, at most ([\d.]+) MiB$", re.MULTILINE
)
"""The last line of a script's log, see `USAGE` in `common/errors.py`."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job.

    Attributes:
        rule: the job's rule.
        stage: the job's stage or downstream task.
        model: the job's model; `SHARED` or `OTHER` if it is none of the run's.
        wildcards: the job's wildcards as text.
        source: where the attempt's data come from: `accounting` (SLURM's), `benchmark` (Snakemake's
            file, for the last attempt that succeeded), or `log` (only its existence is known).
        job_id: SLURM's number; empty without SLURM.
        state: how the attempt ended; empty if unknown.
        exit_code: see `Allocation`.
        start: see `Allocation`.
        end: see `Allocation`.
        elapsed_s: elapsed time, seconds; None if unknown (see `reason`).
        gpus: allocated GPUs; None if unknown.
        gpu_model: type of the GPUs; empty if unknown.
        cpus: allocated CPUs; None if unknown.
        node: the nodes; empty if unknown.
        max_rss_mib: largest resident memory, MiB; None if unknown.
        members: number of jobs that share the attempt's resources (those of a SLURM group).
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
    """A benchmark file: seconds, and the largest resident memory in MiB (None if not sampled)."""

    seconds: float
    max_rss_mib: float | None


def read_benchmark(path: Path) -> Benchmark:
    """Read one of Snakemake's benchmark files (TSV); seconds of repetitions are added up.

    Raises:
        InputError: the file is missing or not a benchmark file.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        if not rows:
            raise ValueError("no rows")
        seconds = sum(float(row["s"]) for row in rows)
        # For a job that ended before its memory was sampled Snakemake writes NA or -.
        memory = [float(row["max_rss"]) for row in rows if row["max_rss"] not in ("NA", "-")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(
            "cannot read a benchmark file", error, path, "delete it: its job is not counted"
        ) from None
    return Benchmark(seconds, max(memory, default=None))


def memory_in_log(path: Path) -> float | None:
    """Return the largest resident memory in a job's own log, in MiB; None if it has none.

    Snakemake's benchmark file is not enough. Snakemake samples the processes below the job's shell
    every few seconds, so it may miss a short job. It does not see a script that runs in a warm
    Python process (`world/warm_python.py`).

    Args:
        path: the rule's `log:`; it need not exist.
    """
    try:
        peaks = _USAGE_LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return max(map(float, peaks), default=None)


def every_attempt(
    benchmarks: Path,
    job_logs: Path,
    logs: Path,
    patterns: Sequence[RulePattern],
    models: Sequence[str],
    ask: Callable[[Iterable[str]], Accounting],
) -> list[Attempt]:
    """Return every known attempt, in the order of SLURM's job ids and of benchmark files.

    Args:
        benchmarks: Snakemake's folder of benchmark files.
        job_logs: the folder of the rules' `log:` files, named like the benchmark files.
        logs: the SLURM executor's folder of logs; it is missing for a run without SLURM.
        patterns: the patterns of all rules.
        models: the run's models.
        ask: queries SLURM's accounting; not called if there are no logs.

    Raises:
        InputError: a benchmark file is invalid, or see `ask`.
    """
    ids = {
        job_id: [job for job in jobs if job.stage not in LEFT_OUT]
        for job_id, jobs in logged_jobs(logs, patterns, models).items()
    }
    ids = {job_id: jobs for job_id, jobs in ids.items() if jobs}
    accounting = ask(ids) if ids else Accounting({}, {})
    gpus = {rule.name: rule.gpus for rule in patterns}
    attempts: dict[Job, list[Attempt]] = {}
    for job_id in sorted(ids, key=int):
        members = len(ids[job_id])
        for job in ids[job_id]:
            known = [
                _of_accounting(job, run, members, gpus.get(job.rule))
                for run in accounting.runs.get(job_id, [])
            ]
            if job_id not in accounting.runs:
                reason = accounting.reasons.get(job_id, "")
                known = [_of(job, "log", job_id=job_id, members=members, reason=reason)]
            attempts.setdefault(job, []).extend(known)
    by_job = dict(_benchmarks(benchmarks, job_logs, patterns, models))
    for job, benchmark in by_job.items():
        known = attempts.get(job, [])
        attempts[job] = _with_benchmark(job, known, benchmark, gpus.get(job.rule))
    return [attempt for of_job in attempts.values() for attempt in of_job]


def _benchmarks(
    folder: Path, job_logs: Path, patterns: Sequence[RulePattern], models: Sequence[str]
) -> Iterator[tuple[Job, Benchmark]]:
    """Yield each counted job that has a benchmark file, with the larger of its two memories."""
    for path in sorted(folder.rglob("*.tsv")):
        name = path.relative_to(folder)
        job = job_of_benchmark(f"benchmarks/{name.as_posix()}", patterns, models)
        if job.stage not in LEFT_OUT:
            benchmark = read_benchmark(path)
            in_log = memory_in_log(job_logs / name.with_suffix(".log"))
            yield job, replace(benchmark, max_rss_mib=larger(benchmark.max_rss_mib, in_log))


def _of(job: Job, source: str, **known: Any) -> Attempt:
    return Attempt(job.rule, job.stage, job.model, job.wildcards, source, **known)


def _of_accounting(job: Job, run: Allocation, members: int, requested: int | None) -> Attempt:
    known = asdict(run)
    del known["name"]
    reason = ""
    if run.gpus is None:
        # The resources name no GPUs: the job had none, or the cluster does not track them.
        known["gpus"], reason = (0, "") if requested == 0 else (None, UNTRACKED)
    return _of(job, "accounting", **known, members=members, reason=reason)


def _with_benchmark(
    job: Job, attempts: list[Attempt], benchmark: Benchmark, gpus: int | None
) -> list[Attempt]:
    """Add a benchmark file to a job's attempts. It belongs to the last attempt that succeeded.

    Its memory is that of the whole process tree and is sampled more often than SLURM's, so the
    larger of the two is kept. If the accounting does not know the attempt, the file describes the
    newest attempt that left only a log.
    """
    # The accounting may lag behind: an attempt that it lists as running has ended if there is a
    # benchmark file.
    ended = (COMPLETED, *UNFINISHED)
    last = max((i for i, a in enumerate(attempts) if a.state in ended), default=None)
    if last is not None:
        memory = larger(attempts[last].max_rss_mib, benchmark.max_rss_mib)
        attempts[last] = replace(attempts[last], max_rss_mib=memory)
        return attempts
    bare = max((i for i, a in enumerate(attempts) if a.source == "log"), default=None)
    from_file = _of(
        job,
        "benchmark",
        state=COMPLETED,
        elapsed_s=benchmark.seconds,
        gpus=gpus,
        max_rss_mib=benchmark.max_rss_mib,
        reason="" if gpus is not None else UNSAID,
    )
    if bare is None:
        return [*attempts, from_file]
    # The time in the file is the job's own and not its group's, so it is not divided.
    from_file_with_id = replace(
        from_file, job_id=attempts[bare].job_id, reason=attempts[bare].reason
    )
    return [*attempts[:bare], from_file_with_id, *attempts[bare + 1 :]]


_COLUMNS: Final = tuple(field.name for field in fields(Attempt))
_NUMBERS: Final = {
    "elapsed_s": float,
    "gpus": int,
    "cpus": int,
    "max_rss_mib": float,
    "members": int,
}


def attempts_to_csv(attempts: Iterable[Attempt]) -> str:
    """Return attempts as CSV, one row each, with empty cells for unknown values."""
    rows = [[getattr(attempt, name) for name in _COLUMNS] for attempt in attempts]
    return csv_text([_COLUMNS, *rows])


def read_attempts(path: str | Path) -> list[Attempt]:
    """Read a CSV of `attempts_to_csv`.

    Raises:
        InputError: the file is missing or has other columns.
    """
    remedy = "delete it and run the workflow again"
    try:
        rows = list(csv.reader(Path(path).read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise unreadable("cannot read the attempts", error, path, remedy) from None
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise InputError("not a table of attempts", path, remedy)
    attempts = []
    for row in rows[1:]:
        values: dict[str, Any] = dict(zip(_COLUMNS, map(plain_cell, row), strict=True))
        for name, kind in _NUMBERS.items():
            values[name] = kind(values[name]) if values[name] else None
        attempts.append(Attempt(**values))
    return attempts
