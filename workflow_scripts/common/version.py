"""The workflow's version, which decides which measurements may be compared.

`pyproject.toml` holds it. It is read from there rather than repeated here, so that a new version
changes no code and reruns nothing. A new minor version changes a number. A new major version
changes what values mean, so that old and new ones must not stand in one table.
"""

import functools
import re
import tomllib
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"
_FORM: Final = re.compile(r"\d+\.\d+\.\d+")


@functools.cache
def version() -> str:
    """Return the version of this checkout, such as `1.0.0`."""
    return str(tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"])


def is_version(text: object) -> bool:
    """Return whether something is a version: three whole numbers with points between them."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


def major(text: str) -> int:
    """Return the first number of a version.

    Raises:
        ValueError: `text` is not a version.
    """
    if not is_version(text):
        raise ValueError(f"{text!r} is no version")
    return int(text.split(".")[0])
