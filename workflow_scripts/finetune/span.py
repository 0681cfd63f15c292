"""A span of fine-tuning: what one job leaves, between two time limits or at the end.

The folder of a span holds `span.json`, which says how far training is and which job made it, and of
the last span the result: `checkpoint/` and `training.csv`. Snakemake reads it while it plans, so
nothing heavy is imported here.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.files import whole_folder, write_text

CHECKPOINT: Final = "checkpoint"
CURVE: Final = "training.csv"
_STATE: Final = "span.json"


def write_span(
    folder: Path,
    step: int,
    steps: int,
    write_result: Callable[[Path], None] | None,
    check: Callable[[], None],
    made: dict[str, Any],
) -> None:
    """Write a span's folder, whole or not at all.

    Args:
        folder: to write; what was there before is replaced.
        step: optimiser steps done, of this and all earlier spans.
        steps: how many there are.
        write_result: writes `checkpoint/` and `training.csv` into the folder it gets; None where
            training is not finished.
        check: called just before the folder appears; what it raises leaves `folder` as it was.
        made: the span's provenance, of `records.provenance`.
    """
    with whole_folder(folder) as temporary:
        if write_result is not None:
            write_result(temporary)
        state: dict[str, Any] = {"finished": write_result is not None, "step": step, "steps": steps}
        state["provenance"] = made
        write_text(temporary / _STATE, json.dumps(state) + "\n")
        check()


def is_finished(folder: str | Path) -> bool:
    """Return whether a span was the last.

    Raises:
        InputError: the folder is no span's.
    """
    path = Path(folder) / _STATE
    try:
        finished = json.loads(path.read_text(encoding="utf-8"))["finished"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(
            "no state of a fine-tuning span",
            error,
            path,
            f"delete the folder {folder}: the span continues from its progress",
        ) from None
    return bool(finished)
