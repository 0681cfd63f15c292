"""Work that is begun before its result is needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Wanted = TypeVar("Wanted")
Begun = TypeVar("Begun")


def ahead(
    wanted: Iterable[Wanted], begin: Callable[[Wanted], Begun], count: int
) -> Iterator[Begun]:
    """Iterate over the results of `begin`, in order; it is called up to `count` items ahead.

    Args:
        wanted: the items to work on, read as far ahead as work is begun.
        begin: starts the work on an item, for example in a pool, and returns its future.
        count: number of items that are begun before the current one is done.
    """
    waiting: deque[Begun] = deque()
    for one in wanted:
        waiting.append(begin(one))
        if len(waiting) > count:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
