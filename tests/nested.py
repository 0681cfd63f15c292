"""One place of nested mappings and lists changed, as a fault in a file."""

from typing import Any, Final

GONE: Final = object()
"""The value that takes a place away."""


def put(content: Any, place: str, value: Any) -> None:
    """Set `content`'s place, its keys and list positions joined by dots; `GONE` takes it away."""
    *parents, last = place.split(".")
    for part in parents:
        content = content[_key(content, part)]
    if value is GONE:
        del content[_key(content, last)]
    else:
        content[_key(content, last)] = value


def _key(content: Any, part: str) -> int | str:
    return int(part) if isinstance(content, list) else part
