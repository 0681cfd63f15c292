"""Every attempt of every job: from Snakemake's benchmark files, its SLURM logs, SLURM's accounting.

Which rule and wildcards a SLURM job had is known from where the executor put its log,
`rule_{name}/{wildcards}/{job id}.log`; a group's log (`group_{name}/...`) names the benchmark files
of its members. An attempt that succeeded also leaves a benchmark file, with or without SLURM.
"""

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.csv_cells import csv_text, plain_cell
from workflow_scripts.common.errors import InputError
from workflow_scripts.tables.slurm_accounting import Accounting, Allocation

SHARED: Final = ""
"""The model of a job that works for all of them."""

OTHER: Final = "?"
"""The model of a job whose model is not in the run, or cannot be told."""

COMPLETED: Final = "COMPLETED"
UNFINISHED: Final = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING")
"""States of jobs of which nobody knows yet how they end."""

UNTRACKED: Final = "SLURM's accounting does not track GPUs on this cluster"

UNSAID: Final = "the rule does not say how many GPUs each of its jobs has"

_REAL: Final = "real"
_LEFT_OUT: Final = "tables"
"""The joins themselves are not counted: the table would count its own making."""

_USAGE_LINE: Final = re.compile(
    r"took [\d.]+ s, [\d.]+ s of CPU, at most ([\d.]+) MiB$", re.MULTILINE
)
"""See `USAGE` of `common/errors.py`."""

_BENCHMARK_LINE: Final = re.compile(r"^\s+benchmark: (benchmarks/\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class RulePattern:
    """What of a rule says which of its jobs a file belongs to.

    Attributes:
        name: the rule's.
        stage: what its outputs belong to; of downstream rules the task.
        benchmark: the benchmark file, wildcards as named groups.
        wildcards: name and constraint of each, in the order of the rule's output.
        gpus: how many it asks for; None where that is not the same for all of its jobs.
    """

    name: str
    stage: str
    benchmark: re.Pattern[str]
    wildcards: tuple[tuple[str, str], ...]
    gpus: int | None


@dataclass(frozen=True)
class Job:
    """A job of the workflow: its rule, its stage or task, its model, and its wildcards as text."""

    rule: str
    stage: str
    model: str
    wildcards: str


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


def parse_patterns(text: str) -> list[RulePattern]:
    """Parse the `--rules` argument, a JSON list.

    Raises:
        InputError: no such list.
    """
    try:
        entries = json.loads(text)
        if not isinstance(entries, list):
            raise TypeError("not a list")
        return [
            RulePattern(
                entry["name"],
                entry["stage"],
                re.compile(entry["benchmark"]),
                tuple((name, re.compile(rule).pattern) for name, rule in entry["wildcards"]),
                entry["gpus"],
            )
            for entry in entries
        ]
    except (ValueError, TypeError, KeyError, re.error) as error:
        raise InputError(f"no JSON list of rules: {error!r}", "--rules") from None


def job_of_benchmark(name: str, patterns: Sequence[RulePattern], models: Iterable[str]) -> Job:
    """Return the job that a benchmark file is of.

    Several rules may match (`lenses_sd.tsv` is rule privacy_lenses of `sd`, and would be
    privacy_score of a model `lenses_sd`): a model of the run comes first, then the rule that
    says most of the name itself.

    Args:
        name: relative to the repository, `benchmarks/...`.
        patterns: of all rules.
        models: the run's.
    """
    known = set(models)
    found = []
    for rule in patterns:
        match = rule.benchmark.fullmatch(name)
        if match is not None:
            values = match.groupdict()
            model = _model(values, known)
            free = sum(map(len, values.values()))
            own = "_".join(values[name] for name, _ in rule.wildcards).replace("/", "_")
            found.append((model == OTHER, free, Job(rule.name, rule.stage, model, own)))
    if not found:
        path = Path(name)
        return Job("", path.parts[1], OTHER, "/".join(path.with_suffix("").parts[2:]))
    return min(found, key=lambda entry: entry[:2])[2]


def job_of_log(
    folder: str, wildcards: str, patterns: Sequence[RulePattern], models: Iterable[str]
) -> Job:
    """Return the job that a log of the SLURM executor is of.

    Args:
        folder: `rule_{name}`.
        wildcards: the folder in it, empty for a rule without wildcards.
        patterns: of all rules.
        models: the run's.
    """
    name = folder.removeprefix("rule_")
    rule = next((rule for rule in patterns if rule.name == name), None)
    if rule is None:
        return Job(name, name.split("_")[0], OTHER, wildcards)
    # The executor joins the wildcards' values by `_`, and puts `_` for their slashes: where the
    # model ends, only the models' names say.
    known = "|".join(re.escape(m) for m in sorted([_REAL, *models], key=len, reverse=True))
    groups = [
        f"(?P<{key}>{known if key == 'model' else constraint.replace('/', '_')})"
        for key, constraint in rule.wildcards
    ]
    # A job that another one asked for may have that one's order.
    for order in itertools.permutations(groups):
        match = re.fullmatch("_".join(order), wildcards)
        if match is not None:
            values = match.groupdict()
            own = "_".join(values[key] for key, _ in rule.wildcards)
            return Job(name, rule.stage, _model(values, set(models)), own)
    return Job(name, rule.stage, OTHER, wildcards)


def _model(values: Mapping[str, str], known: set[str]) -> str:
    model = values.get("model", _REAL)
    return SHARED if model == _REAL else model if model in known else OTHER


def logged_jobs(
    logs: Path, patterns: Sequence[RulePattern], models: Sequence[str]
) -> dict[str, list[Job]]:
    """Return the jobs of the workflow that each SLURM job was, by its number.

    A group's are those whose benchmark files its log names; one that ended before it said so is
    one job of an unknown model.

    Args:
        logs: the executor's folder of logs; it need not be there.
        patterns: of all rules.
        models: the run's.
    """
    found: dict[str, list[Job]] = {}
    for path in sorted(logs.glob("*/**/*.log")):
        folder, *rest = path.relative_to(logs).parent.parts
        if not path.stem.isdigit():
            continue
        if folder.startswith("group_"):
            text = path.read_text(encoding="utf-8", errors="replace")
            names = dict.fromkeys(_BENCHMARK_LINE.findall(text))
            jobs = [job_of_benchmark(name, patterns, models) for name in names]
            found[path.stem] = jobs or [Job(folder, "group", OTHER, "")]
        elif folder.startswith("rule_"):
            found[path.stem] = [job_of_log(folder, "/".join(rest), patterns, models)]
    return found


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
        if job.stage != _LEFT_OUT:
            own_log = job_logs / path.relative_to(benchmarks).with_suffix(".log")
            done[job] = read_benchmark(path)
            memory = [done[job].max_rss_mib, memory_in_log(own_log)]
            largest = max((mib for mib in memory if mib is not None), default=None)
            done[job] = replace(done[job], max_rss_mib=largest)
    ids = {
        job_id: [job for job in jobs if job.stage != _LEFT_OUT]
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
    remedy = "delete it and run the tables again"
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
