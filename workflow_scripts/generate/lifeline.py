"""Processes that end when the one that started them does, however it ended.

The parent holds one end of a pipe and never writes; a child waits at the other end. Where the
parent is gone, killed included, the pipe is closed and the child ends itself.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_VARIABLE: Final = "LIFELINE_OF_PARENT"


@contextmanager
def lifeline() -> Iterator[tuple[int, int]]:
    """Yield the child's and the parent's end; within it children live."""
    child, parent = os.pipe()
    try:
        yield child, parent
    finally:
        for end in (child, parent):
            os.close(end)


def forked(ends: tuple[int, int]) -> None:
    """Hang on, in a process that was forked within `lifeline`."""
    child, parent = ends
    os.close(parent)  # else this process would keep itself alive
    _hang_on(child)


def environment(child: int) -> dict[str, str]:
    """Return what tells a process that is started with `pass_fds=(child,)` where it hangs."""
    return {_VARIABLE: str(child)}


def started() -> None:
    """Hang on, in a process that was started with `environment`; else do nothing."""
    if end := os.environ.pop(_VARIABLE, ""):
        _hang_on(int(end))


def _hang_on(end: int) -> None:
    def wait() -> None:
        os.read(end, 1)  # returns where the other end is closed
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
