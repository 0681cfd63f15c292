"""The part that the tasks' scoring scripts share: flags, and the record of an arm."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.common.records import Record, Value, provenance
from workflow_scripts.downstream.outcomes import Outcomes, check_same_test, read_repeats


def score_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of the flags that the `score` of every task has, with its docstring."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--outcomes", type=Path, nargs="+", required=True, help="outcomes of every run of the arm")
    add("--baseline", type=Path, nargs="*", default=[], help="outcomes of its baseline's runs")
    add("--bootstrap", type=int, required=True, help="number of test sets to draw")
    add("--seed", type=int, required=True, help="seed of the draws, the same for all arms")
    add("--keep-draws", action="store_true", help="record the gain on each drawn test set")
    add("--output", type=Path, required=True, help="the record, JSON")
    return parser


def read_arms(args: argparse.Namespace) -> tuple[list[Outcomes], list[Outcomes] | None]:
    """Return the runs of the arm and of its baseline, which is None if it is not given.

    Raises:
        InputError: a file cannot be read, the runs of an arm differ in more than their seed, or the
            two arms were tested on other images.
    """
    arm = read_repeats(args.outcomes)
    if not args.baseline:
        return arm, None
    baseline = read_repeats(args.baseline)
    check_same_test(baseline[0], arm[0], args.outcomes[0])
    return arm, baseline


def record_of(
    task: str,
    arm: Sequence[Outcomes],
    values: list[Value],
    details: dict[str, Any],
    args: argparse.Namespace,
) -> Record:
    """Return the record of an arm.

    Args:
        task: the downstream task.
        arm: the outcomes of its runs.
        values: its metrics.
        details: further numbers that the task reports.
        args: the flags of `score_parser`.
    """
    run, rows = arm[0].run, arm[0].rows
    settings = {"bootstrap": args.bootstrap, "seed": args.seed}
    return Record(
        "downstream",
        run["model"],
        f"{task}/{run['setting']}",
        run["protocol"],
        values,
        {
            "settings": settings,
            "bootstrap": f"{args.bootstrap} draws of test patients",
            "n_test": len(rows),
            "n_test_patients": int(rows["patient_id"].nunique()),
            **details,
            "runs": [outcomes.run for outcomes in arm],
        },
        provenance(settings, run["provenance"]["device"]),
    )
