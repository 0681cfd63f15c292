"""Change one entry of nested mappings and lists, to plant a fault in a file's content."""

from typing import Any, Final

GONE: Final = object()
"""As the value of `put`: delete the entry."""


def put(content: Any, place: str, value: Any) -> None:
    """Set or delete one entry of `content`, in place.

    Args:
        content: Nested mappings and lists.
        place: Keys and list indices from the outside in, joined by dots.
        value: The new value; `GONE` deletes the entry.
    """
    *parents, last = place.split(".")
    for part in parents:
        content = content[_key(content, part)]
    if value is GONE:
        del content[_key(content, last)]
    else:
        content[_key(content, last)] = value


def _key(content: Any, part: str) -> int | str:
    return int(part) if isinstance(content, list) else part
