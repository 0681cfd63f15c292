"""The workflow's version: which measurements may be compared.

Its one place is `pyproject.toml`. It is read there rather than written here, so that a new version
is no edited code and reruns nothing. A changed number is a new minor version. Where values mean
something else, so that old and new must not stand in one table, it is a new major version.
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
        ValueError: it is no version.
    """
    if not is_version(text):
        raise ValueError(f"{text!r} is no version")
    return int(text.split(".")[0])
