"""The workflow as it is planned: its rules, the rules that each reads from, and its jobs.

Snakemake's own `--rulegraph` needs a second Snakemake. This module follows the rules within the
running one, as Snakemake plans: from the files of a target to the rules that make them, and on to
their inputs.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from workflow_scripts.common.errors import InputError

DEFAULT: Final = "all"
"""The target that a run without arguments has."""

_ALIKE: Final = ("shard", "shards", "repeat", "span")
"""Wildcards that change which files a job reads, but not which rules make them."""

_DECIDED_LATER: Final = "span"
"""The wildcard of a checkpoint, whose number of jobs is known only after it has run."""


@dataclass(frozen=True)
class Node:
    """A rule.

    Attributes:
        name: the rule's name.
        jobs: its number of jobs in a run of the default target; a checkpoint counts once, however
            often it runs.
        inputs: names of the rules whose outputs it reads.
    """

    name: str
    jobs: int
    inputs: tuple[str, ...]

    @property
    def stage(self) -> str:
        """The stage that the rule belongs to: the name's first word."""
        return self.name.split("_")[0]


def rule_graph(rules: Iterable[Any]) -> list[Node]:
    """Return the rules that make files, in the order of the Snakefile.

    Args:
        rules: Snakemake's rules (`workflow.rules`), targets included.
    """
    every = list(rules)
    makers = [rule for rule in every if rule.output]
    walk = _Walk(makers)
    targets = [rule for rule in every if not rule.output]
    for target in sorted(targets, key=lambda rule: rule.name != DEFAULT):
        walk.follow(target, {}, counted=target.name == DEFAULT)
    for rule in makers:
        walk.follow_unasked(rule)
    return [
        Node(rule.name, len(walk.jobs[rule.name]), tuple(sorted(walk.inputs[rule.name])))
        for rule in makers
    ]


class _Walk:
    """The jobs and inputs of each rule so far, and the wildcards of all jobs."""

    def __init__(self, makers: Sequence[Any]):
        self.makers = [
            (rule, tuple(str(made.constant_prefix()) for made in rule.products()))
            for rule in makers
        ]
        self.maker_of: dict[str, Any | None] = {}
        self.jobs: dict[str, set[str]] = {rule.name: set() for rule in makers}
        self.inputs: dict[str, set[str]] = {rule.name: set() for rule in makers}
        self.seen: set[tuple[str, str]] = set()
        self.known: list[dict[str, str]] = []

    def follow(self, rule: Any, wildcards: dict[str, str], counted: bool) -> None:
        """Follow a rule to all rules that it needs; `counted`: their jobs are part of the run."""
        waiting = [(rule, wildcards)]
        while waiting:
            reader, values = waiting.pop()
            files, _, named, _ = reader.expand_input(values)
            for file in files:
                maker = named.get(file) or self._maker(str(file))
                if maker is None:
                    continue
                if reader.output and maker is not reader:
                    self.inputs[reader.name].add(maker.name)
                made_with = maker.get_wildcards(str(file))
                if counted:
                    self.jobs[maker.name].add(_key(made_with, (_DECIDED_LATER,)))
                job = (maker.name, _key(made_with, _ALIKE))
                if job not in self.seen:
                    self.seen.add(job)
                    self.known.append(made_with)
                    waiting.append((maker, made_with))

    def _maker(self, file: str) -> Any | None:
        """Return the rule that makes a file; as in Snakemake, one without wildcards comes first."""
        if file not in self.maker_of:
            # The beginnings of the paths are compared first, because matching all patterns is slow.
            producers = [
                rule
                for rule, beginnings in self.makers
                if file.startswith(beginnings) and rule.is_producer(file)
            ]
            self.maker_of[file] = min(
                producers, key=lambda rule: rule.has_wildcards(), default=None
            )
        return self.maker_of[file]

    def follow_unasked(self, rule: Any) -> None:
        """Follow a rule that no target needs, with the wildcards of a job that has them all.

        Some models may lack what the rule reads, such as images of one prompt set. The first model
        whose jobs can be planned is taken. Without one the rule stands alone.
        """
        from snakemake.exceptions import WorkflowError  # planning has loaded it, jobs need not

        if any(name == rule.name for name, _ in self.seen):
            return
        for wildcards in list(self.known):
            if rule.wildcard_names <= wildcards.keys():
                given = {name: wildcards[name] for name in rule.wildcard_names}
                if rule.is_producer(str(rule.output[0].apply_wildcards(given))):
                    seen, known = set(self.seen), list(self.known)
                    try:
                        self.follow(rule, given, counted=False)
                        return
                    except WorkflowError:
                        self.seen, self.known = seen, known


def _key(wildcards: dict[str, str], without: Sequence[str]) -> str:
    rest = {name: value for name, value in wildcards.items() if name not in without}
    return json.dumps(rest, sort_keys=True)


def to_json(nodes: Sequence[Node]) -> str:
    """Return the nodes as JSON that `parse_nodes` reads."""
    return json.dumps([asdict(node) for node in nodes])


def parse_nodes(text: str, where: str = "--rules") -> list[Node]:
    """Parse what `to_json` returned.

    Raises:
        InputError: it is no such list, or a rule reads from an unknown rule.
    """
    try:
        nodes = [
            Node(str(entry["name"]), int(entry["jobs"]), tuple(entry["inputs"]))
            for entry in json.loads(text)
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"no list of rules: {error!r}", where) from None
    names = {node.name for node in nodes}
    unknown = sorted({name for node in nodes for name in node.inputs} - names)
    if unknown:
        raise InputError(f"unknown rule(s): {', '.join(unknown)}", where)
    return nodes
