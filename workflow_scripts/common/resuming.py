"""Whether an earlier run's progress can be continued: it must be whole and have the same settings.

A damaged file of progress is not an error, because the work can be done again. A file to which the
operating system gives no access is an error, because it may be whole (see access.py).
"""

import logging
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from safetensors import SafetensorError

from workflow_scripts.common.access import require_access

log = logging.getLogger(__name__)
T = TypeVar("T")

_DAMAGE: Final = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError),
    *(EOFError, struct.error, zipfile.BadZipFile, pickle.UnpicklingError, SafetensorError),
)
"""What readers of JSON, torch's archives and safetensors raise, depending on the wrong byte."""


def read_unless_damaged(path: Path, read: Callable[[], T]) -> T | None:
    """Return the result of `read` for a checkpoint; None, with a warning, if it is damaged.

    Args:
        path: the checkpoint, a file or folder.
        read: reads it, or a link to it.

    Raises:
        InputError: the operating system gives no access to it.
    """
    try:
        return read()
    except _DAMAGE as error:
        require_access(error, path)
        log.warning("%s is damaged and not continued: %s", path, error)
        return None


def is_of_same_run(path: Path, made_with: Mapping[str, Any], needed: Mapping[str, Any]) -> bool:
    """Return whether progress was made with the settings of this run; if not, log what differs.

    Args:
        path: the progress, for the log.
        made_with: the settings and digests that it was made with.
        needed: the settings and digests of this run. A key that only one of the two has counts as
            different.
    """
    differing = sorted(
        key for key in made_with.keys() | needed.keys() if made_with.get(key) != needed.get(key)
    )
    if differing:
        log.warning(
            "progress in %s was made with other settings or data and is not continued: %s",
            path,
            "; ".join(f"{key} {made_with.get(key)} -> {needed.get(key)}" for key in differing),
        )
    return not differing
