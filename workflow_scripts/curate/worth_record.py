"""The record of what a curated set is worth for one task, however the task is scored."""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow_scripts.common.records import Record, Value, provenance, write_record
from workflow_scripts.curate.worth_sets import SETS
from workflow_scripts.downstream.outcomes import Outcomes

log = logging.getLogger(__name__)


def absent(ways: Sequence[str], metrics: Sequence[str], reason: str, n: int) -> Iterator[Value]:
    """Yield the values of arms and filter without numbers, for sets that cannot be trained on.

    Args:
        ways: the ways in which a set is used, for instance `added`.
        metrics: names of the task's metrics.
        reason: why nothing could be trained.
        n: number of test radiographs.
    """
    for way in ways:
        for metric in metrics:
            for name in SETS:
                key = f"{name}_{way}_{metric}"
                yield Value(key, None, "higher", n, reason=reason)
                yield Value(f"{key}_gain", None, "higher", n, reason=reason)
            yield Value(f"filter_{way}_{metric}", None, "higher", n, reason=reason)


def write_worth(
    args: argparse.Namespace,
    family: str,
    results: Sequence[Value],
    sets: Mapping[str, Any],
    real: Sequence[Outcomes],
    arms: Mapping[str, Sequence[Outcomes]],
    described: Mapping[str, Any],
) -> None:
    """Write the record of a task.

    Args:
        args: see `worth_sets.add_score_flags`.
        family: the record's family.
        results: the values.
        sets: see `worth_sets.read_sets`.
        real: the outcomes of real data alone.
        arms: the outcomes of each arm, by `{set}_{way}`.
        described: further details: the test images.
    """
    settings = {"bootstrap": args.bootstrap, "seed": args.seed}
    details: dict[str, Any] = {
        **sets,
        "settings": settings,
        **described,
        "runs": [
            {"arm": arm, **outcomes.run}
            for arm, repeats in {"real": real, **arms}.items()
            for outcomes in repeats
        ],
    }
    made = provenance(settings, real[0].run["provenance"]["device"])
    record = Record("curate", args.model, family, args.protocol, list(results), details, made)
    write_record(record, args.output)
    log.info("%s: %s", args.model, sets["reason"] or f"{len(arms)} arms and real data alone")
