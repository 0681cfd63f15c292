"""Which job of the workflow a file is of: Snakemake's benchmark files, the SLURM executor's logs.

Which rule and wildcards a SLURM job had is known from where the executor put its log,
`rule_{name}/{wildcards}/{job id}.log`; a group's log (`group_{name}/...`) names the benchmark files
of its members. An attempt that succeeded also leaves a benchmark file, with or without SLURM.

Why a job does not write down itself what it is: the executor makes that folder before it submits,
so it is there for a job that was killed before its Snakemake had started (a node that failed, too
little memory to import). A line that the job appends would be missing of exactly these.
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
"""The model of a job that works for all of them."""

OTHER: Final = "?"
"""The model of a job whose model is not in the run, or cannot be told."""

_REAL: Final = "real"

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
