"""A span of fine-tuning: the part that one job does, up to its time limit or the end.

The folder of a span holds `span.json`: how far training has come, and the provenance. The last span
also has the result, `checkpoint/` and `training.csv`. Snakemake reads the folder while it plans, so
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
        folder: the folder to write, which is replaced if it exists.
        step: optimiser steps done in this and all earlier spans.
        steps: optimiser steps of the whole training.
        write_result: writes `checkpoint/` and `training.csv` into the folder that it is given; None
            if training is not finished.
        check: called just before the folder appears; if it raises, `folder` stays as it was.
        made: the span's provenance, see `records.provenance`.
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
        InputError: the folder is not that of a span.
    """
    path = Path(folder) / _STATE
    try:
        finished = json.loads(path.read_text(encoding="utf-8"))["finished"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(
            "not the state of a fine-tuning span",
            error,
            path,
            f"delete the folder {folder}: the span continues from its progress",
        ) from None
    return bool(finished)
