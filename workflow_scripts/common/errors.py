"""Errors that a user can act on, and how a command-line script ends on one."""

import logging
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from workflow_scripts.common.user_environment import REMOVED

log = logging.getLogger(__name__)

USAGE: Final = "took %.1f s, %.1f s of CPU, at most %.1f MiB"
"""The last line of a script's log."""


class InputError(Exception):
    """Bad input: what is wrong, where, and what to do about it.

    Args:
        what: the fault, in one sentence.
        where: the file, row or config key with the fault.
        remedy: what the user should do.
    """

    def __init__(self, what: str, where: str | Path | None = None, remedy: str | None = None):
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        """Return the message, one line each for the fault, the place and the remedy."""
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.remedy is not None:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its class name if it has none.

    A `LookupError` has its class in front: its message is the missing key alone.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return f"{type(error).__name__}: {lines[0]}" if isinstance(error, LookupError) else lines[0]


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; bad input or a full disk ends it with exit code 2.

    The user then sees one message: what is wrong, where, and what to do. Any other exception keeps
    its traceback, because it is a bug or a broken machine. Only their owner may read the files that
    the script creates: nearly all of them hold or name patients' images. The last line of the log
    gives the time and memory that the process used (`costs/attempts.py` reads it).
    """
    began = time.monotonic()
    os.umask(0o077)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    if REMOVED:
        names = ", ".join(REMOVED)
        logging.warning("not used, since it would change the numbers: %s", names)
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        from workflow_scripts.common.access import unwritable  # it needs `InputError`

        told = unwritable(error, error.filename or Path.cwd() / "output")
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        raise SystemExit(2) from error
    log.info(*usage_since(began))


def usage_since(began: float) -> tuple[str, float, float, float]:
    """Return what this process and its finished children used, as arguments of a logging call.

    Args:
        began: `time.monotonic()` at the start of the process, seconds.

    Returns:
        The message's format, the elapsed seconds, the CPU seconds, and the largest resident memory
        of one process (MiB).
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    memory = max(_own_peak(used[0].ru_maxrss), used[1].ru_maxrss) / 1024  # Linux counts KiB
    return (USAGE, time.monotonic() - began, cpu, memory)


def _own_peak(counted: int) -> int:
    """Return the peak resident memory of this process alone, KiB.

    The kernel's count, `counted`, includes the peak of the process that started this one. It is
    returned only where /proc cannot be read.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except (OSError, ValueError):
        return counted
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else counted
