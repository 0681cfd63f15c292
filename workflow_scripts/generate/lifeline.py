"""Child processes that end when their parent ends, even if the parent is killed.

The parent holds one end of a pipe and never writes to it. A child waits at the other end. When the
parent ends, the pipe is closed and the child ends itself.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_VARIABLE: Final = "LIFELINE_OF_PARENT"


@contextmanager
def lifeline() -> Iterator[tuple[int, int]]:
    """Yield the child's and the parent's end of the pipe. Children end when the context does."""
    child, parent = os.pipe()
    try:
        yield child, parent
    finally:
        for end in (child, parent):
            os.close(end)


def forked(ends: tuple[int, int]) -> None:
    """Watch the parent from a process that was forked within `lifeline`."""
    child, parent = ends
    os.close(parent)  # otherwise this process would keep its own pipe open
    _watch(child)


def environment(child: int) -> dict[str, str]:
    """Return the environment of a process that is started with `pass_fds=(child,)`."""
    return {_VARIABLE: str(child)}


def started() -> None:
    """Watch the parent if this process was started with `environment`."""
    if end := os.environ.pop(_VARIABLE, ""):
        _watch(int(end))


def _watch(end: int) -> None:
    def wait() -> None:
        os.read(end, 1)  # returns when the other end is closed
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
