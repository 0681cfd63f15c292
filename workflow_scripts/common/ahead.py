"""Work that is begun before its result is needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Wanted = TypeVar("Wanted")
Begun = TypeVar("Begun")


def ahead(
    wanted: Iterable[Wanted], begin: Callable[[Wanted], Begun], count: int
) -> Iterator[Begun]:
    """Iterate over what `begin` returns, in order; it was called for the next `count` as well.

    Args:
        wanted: what is to be worked on, read as far ahead as it is begun.
        begin: starts the work on one, say by handing it to a pool, and returns a future of it.
        count: how many are begun before the one that is waited for is done.
    """
    waiting: deque[Begun] = deque()
    for one in wanted:
        waiting.append(begin(one))
        if len(waiting) > count:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
