"""Options of training or sampling that only one family has, and their check."""

from collections.abc import Mapping
from typing import Any, Final

from workflow_scripts.common.errors import InputError

Option = float | bool | str

OPTIONS_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": {"type": ["number", "boolean", "string"]},
}
"""The schema of options in the config; a family knows the names."""


def parse_option(text: str) -> tuple[str, Option]:
    """Read `NAME=VALUE` from a command line: a number, `true` or `false`, otherwise text."""
    name, _, value = text.partition("=")
    if value in ("true", "false"):
        return name, value == "true"
    try:
        return name, float(value)
    except ValueError:
        return name, value


def check_options(
    family: str, given: Mapping[str, Option], known: Mapping[str, Option], where: str
) -> None:
    """Refuse options that a family does not have, and values of another kind than its defaults.

    Args:
        family: its name.
        given: the options of the config.
        known: the family's options with their defaults.
        where: the config key of the options.

    Raises:
        InputError: an unknown name, or a value of another kind.
    """
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise InputError(
            f"the family {family} has no option {', '.join(unknown)}",
            where,
            f"known: {', '.join(known) or 'none'}",
        )
    for name, value in given.items():
        if _kind(value) != _kind(known[name]):
            raise InputError(
                f"the option {name} is {_kind(known[name])}, not {value!r}",
                where,
                f"its default is {known[name]!r}",
            )


def _kind(value: Option) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "a text" if isinstance(value, str) else "a number"
