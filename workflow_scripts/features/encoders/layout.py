"""Checks of weights against the expected names and shapes, and readers of configurations."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]

_SHOWN: Final = 5
_REMEDY: Final = "use the published checkpoint of this network (docs/how-to/mimic-and-weights.md)"


def check_shapes(
    found: Shapes, expected: Shapes, path: str | Path, optional: Collection[str] = ()
) -> None:
    """Check that `found` has exactly the keys and shapes of `expected`.

    Args:
        found: the shapes in the file.
        expected: the shapes that the network needs; keys in `optional` may be absent.
        path: the file, for the error.
        optional: keys that may be absent (tied weights, old buffers); those that are not in
            `expected` may have any shape.

    Raises:
        InputError: keys are missing, unexpected or misshapen, all named.
    """
    faults = {
        "missing": [key for key in expected if key not in found and key not in optional],
        "unexpected": [key for key in found if key not in expected and key not in optional],
        "of another shape": [
            f"{key} {found[key]}, not {shape}"
            for key, shape in expected.items()
            if key in found and found[key] != shape
        ],
    }
    lines = [
        f"{len(keys)} key(s) {fault}: {', '.join(keys[:_SHOWN])}{', ...' * (len(keys) > _SHOWN)}"
        for fault, keys in faults.items()
        if keys
    ]
    if lines:
        raise InputError("; ".join(lines), path, _REMEDY)


def strip_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries whose keys start with `prefix`, with the prefix removed."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def need(state: Mapping[str, Any], key: str, path: str | Path) -> Any:
    """Return `state[key]`.

    Raises:
        InputError: there is no such key.
    """
    if key not in state:
        raise InputError(f"1 key(s) missing: {key}", path, _REMEDY)
    return state[key]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing, damaged or does not hold an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable("cannot read a configuration", error, path, _REMEDY) from None
    if not isinstance(content, dict):
        raise InputError("a JSON object was expected", path, _REMEDY)
    return content


def read_number(config: Mapping[str, Any], key: str, path: Path) -> int:
    """Return a positive integer of a configuration.

    Raises:
        InputError: it is missing or not a positive integer.
    """
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{key!r} is {value!r}, not a positive integer", path, _REMEDY)
    return value
