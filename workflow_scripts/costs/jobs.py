"""Find the job of the workflow that a benchmark file or a log of the SLURM executor belongs to.

The path of the executor's log gives the rule and the wildcards of a SLURM job:
`rule_{name}/{wildcards}/{job id}.log`. A group's log (`group_{name}/...`) names the benchmark files
of its members. An attempt that succeeded also leaves a benchmark file, with or without SLURM.

Jobs do not record themselves, because the record would be missing for a job that was killed before
its Snakemake started (a failed node, too little memory to import). The executor's folder exists
even then, since it is made before the job is submitted.
"""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workflow_scripts.common.errors import InputError

SHARED: Final = ""
"""The model of a job that serves all models."""

OTHER: Final = "?"
"""The model of a job whose model is unknown or not in the run."""

_REAL: Final = "real"

_BENCHMARK_LINE: Final = re.compile(r"^\s+benchmark: (benchmarks/\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class RulePattern:
    """The properties of a rule that identify the job of a file.

    Attributes:
        name: the rule's name.
        stage: the stage of its outputs; for downstream rules the task.
        benchmark: pattern of the benchmark file, with wildcards as named groups.
        wildcards: name and constraint of each wildcard, in the order of the rule's output.
        gpus: GPUs that its jobs request; None if they differ.
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


def parse_patterns(text: str) -> list[RulePattern]:
    """Parse the `--rules` argument, a JSON list.

    Raises:
        InputError: the text is not such a list.
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
    """Return the job that a benchmark file belongs to.

    Several rules may match: `lenses_sd.tsv` may be of the rule privacy_lenses and the model `sd`,
    or of privacy_score and a model `lenses_sd`. A rule that gives a model of the run is preferred,
    then the rule with the fewest characters in wildcards.

    Args:
        name: path relative to the repository, `benchmarks/...`.
        patterns: the patterns of all rules.
        models: the run's models.
    """
    known = set(models)
    candidates = []
    for rule in patterns:
        match = rule.benchmark.fullmatch(name)
        if match is not None:
            values = match.groupdict()
            model = _model(values, known)
            free = sum(map(len, values.values()))
            wildcards = "_".join(values[name] for name, _ in rule.wildcards).replace("/", "_")
            candidates.append((model == OTHER, free, Job(rule.name, rule.stage, model, wildcards)))
    if not candidates:
        path = Path(name)
        return Job("", path.parts[1], OTHER, "/".join(path.with_suffix("").parts[2:]))
    return min(candidates, key=lambda entry: entry[:2])[2]


def job_of_log(
    folder: str, wildcards: str, patterns: Sequence[RulePattern], models: Iterable[str]
) -> Job:
    """Return the job that a log of the SLURM executor belongs to.

    Args:
        folder: `rule_{name}`.
        wildcards: the path below it; empty for a rule without wildcards.
        patterns: the patterns of all rules.
        models: the run's models.
    """
    name = folder.removeprefix("rule_")
    rule = next((rule for rule in patterns if rule.name == name), None)
    if rule is None:
        return Job(name, name.split("_")[0], OTHER, wildcards)
    # The executor joins the wildcards' values by `_` and replaces their slashes by `_`. Only the
    # names of the models tell where the model ends.
    known = "|".join(re.escape(m) for m in sorted([_REAL, *models], key=len, reverse=True))
    groups = [
        f"(?P<{key}>{known if key == 'model' else constraint.replace('/', '_')})"
        for key, constraint in rule.wildcards
    ]
    # A job that is an input of another may have the wildcards in the other's order.
    for order in itertools.permutations(groups):
        match = re.fullmatch("_".join(order), wildcards)
        if match is not None:
            values = match.groupdict()
            ordered = "_".join(values[key] for key, _ in rule.wildcards)
            return Job(name, rule.stage, _model(values, set(models)), ordered)
    return Job(name, rule.stage, OTHER, wildcards)


def _model(values: Mapping[str, str], known: set[str]) -> str:
    model = values.get("model", _REAL)
    return SHARED if model == _REAL else model if model in known else OTHER


def logged_jobs(
    logs: Path, patterns: Sequence[RulePattern], models: Sequence[str]
) -> dict[str, list[Job]]:
    """Return the workflow's jobs in each SLURM job, by SLURM's number.

    The jobs of a group are those whose benchmark files its log names. A group that ended before it
    named any counts as one job of an unknown model.

    Args:
        logs: the executor's folder of logs; it need not exist.
        patterns: the patterns of all rules.
        models: the run's models.
    """
    jobs_by_id: dict[str, list[Job]] = {}
    for path in sorted(logs.glob("*/**/*.log")):
        folder, *rest = path.relative_to(logs).parent.parts
        if not path.stem.isdigit():
            continue
        if folder.startswith("group_"):
            text = path.read_text(encoding="utf-8", errors="replace")
            names = dict.fromkeys(_BENCHMARK_LINE.findall(text))
            jobs = [job_of_benchmark(name, patterns, models) for name in names]
            jobs_by_id[path.stem] = jobs or [Job(folder, "group", OTHER, "")]
        elif folder.startswith("rule_"):
            jobs_by_id[path.stem] = [job_of_log(folder, "/".join(rest), patterns, models)]
    return jobs_by_id
