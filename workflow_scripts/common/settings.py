"""Settings classes: one typed class per script, from which everything else is derived.

A class is a frozen dataclass. Its fields are annotated with a `Key`:

    @dataclass(frozen=True)
    class TrainSettings:
        size: Annotated[int, Key("Side in pixels.", minimum=16)]
        seed: Annotated[int, Key("Of the noise.", minimum=0)] = 42

The class gives the block of the config's schema (`schema_of`; `config.schema.yaml` names the
class), the flags of the script with their help (`add_flags`, `settings_of_flags`), the flags in a
rule's command (`flag_values`) and, by the schema, the reference of the config in the documentation.
Names, types, bounds and defaults are written nowhere else.

Types: `int`, `float`, `bool`, `str`, `Path`, `Literal[...]`; any of them `| None`; `tuple[X, ...]`;
a mapping of options; another settings class `| None`, with the field's name as prefix of its flags.
"""

import argparse
import dataclasses
import functools
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from workflow_scripts.common.errors import InputError

LARGEST_SEED: Final = 2**31 - 1
"""The largest seed that every library with random numbers accepts."""

APART: Final = {"apart": True}
"""The metadata of a field that is no setting; scripts fill it in another way."""

_NO_VALUE: Final = object()
_JSON_TYPES: Final = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    Path: "string",
}


@dataclass(frozen=True)
class Key:
    """The description of a setting, besides its name, type and default.

    Attributes:
        says: the meaning in one or two sentences, for the flag's help and the key's description.
        minimum, above, maximum, below: bounds of a number, or of each item of a tuple; `above` and
            `below` are exclusive.
        optional: whether the config may leave it out. Otherwise the config has to state the value
            even if the class has a default, which is for commands written by hand.
        absent: the value of an optional field that cannot have a default in the class, because
            fields without a default follow it.
        min_items: fewest items of a tuple.
        unique: whether the items of a tuple must differ.
        flag: the name of the flag, if it differs from the field's.
        parse: for a mapping, reads a word `NAME=VALUE` of the command line.
        schema: JSON Schema keywords in place of type and bounds, if the config is stricter than the
            script.
    """

    says: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    optional: bool = False
    absent: Any = _NO_VALUE
    min_items: int | None = None
    unique: bool = False
    flag: str | None = None
    parse: Callable[[str], tuple[str, Any]] | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Setting:
    """A field of a settings class.

    Attributes:
        name: the field's name.
        kind: its type without `None`; for a tuple, the type of an item.
        many: whether it is a tuple.
        nullable: whether None is among its values.
        nested: whether `kind` is a settings class.
        default: its default; `MISSING` if a value has to be given.
        key: see `Key`.
    """

    name: str
    kind: Any
    many: bool
    nullable: bool
    nested: bool
    default: Any
    key: Key

    @property
    def given(self) -> bool:
        """Whether a value has to be given."""
        return self.default is MISSING

    @property
    def flag(self) -> str:
        """The flag's name as a Python name: `batch_size` for `--batch-size`."""
        return self.key.flag or self.name

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The allowed values, if they are listed."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else None


MISSING: Final = dataclasses.MISSING
"""The default of a setting that has to be given."""

Class = TypeVar("Class")


def settings_in(cls: Any) -> tuple[Setting, ...]:
    """Return the settings of a class, in the order of its fields.

    Raises:
        TypeError: a field has no `Key`, has an unknown type, or is optional without a default.
    """
    return _read(cls)


@functools.cache
def _read(cls: Any) -> tuple[Setting, ...]:
    hints = get_type_hints(cls, include_extras=True)
    return tuple(
        _setting(field, hints[field.name])
        for field in dataclasses.fields(cls)
        if not field.metadata.get("apart")
    )


def _setting(field: Any, hint: Any) -> Setting:
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{field.name}: annotate the field with a Key")
    kind, key = get_args(hint)[:2]
    nullable = get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)
    if nullable:
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    many = get_origin(kind) is tuple
    if many:
        kind = get_args(kind)[0]
    nested = dataclasses.is_dataclass(kind)
    if not (nested or kind in _JSON_TYPES or get_origin(kind) is Literal or key.parse):
        raise TypeError(f"{field.name}: {kind} is no type of a setting")
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    elif key.absent is not _NO_VALUE:
        default = key.absent
    optional = key.optional or key.absent is not _NO_VALUE
    if optional and default is MISSING:
        raise TypeError(f"{field.name}: the config may leave it out, and it has no default")
    key = dataclasses.replace(key, optional=optional)
    return Setting(field.name, kind, many, nullable, nested, default, key)


def schema_of(cls: type) -> dict[str, Any]:
    """Return the part of the config's JSON schema that describes a settings class."""
    settings = settings_in(cls)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [setting.name for setting in settings if not setting.key.optional],
        "properties": {setting.name: _key_schema(setting) for setting in settings},
    }


def _key_schema(setting: Setting) -> dict[str, Any]:
    described = {"description": setting.key.says}
    if setting.nested:
        return described | schema_of(setting.kind)
    if setting.key.schema:
        return described | dict(setting.key.schema)
    if not setting.many:
        return described | _value_schema(setting)
    limits = {"minItems": setting.key.min_items, "uniqueItems": setting.key.unique or None}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    return described | {"type": "array", **given, "items": _value_schema(setting)}


def _value_schema(setting: Setting) -> dict[str, Any]:
    if setting.choices:
        return {"enum": [*setting.choices, *([None] if setting.nullable else [])]}
    name = _JSON_TYPES[setting.kind]
    found = {"type": [name, "null"] if setting.nullable and not setting.many else name}
    return found | _bounds(setting.key)


def _bounds(key: Key) -> dict[str, Any]:
    bounds = {
        "minimum": key.minimum,
        "exclusiveMinimum": key.above,
        "maximum": key.maximum,
        "exclusiveMaximum": key.below,
    }
    return {name: bound for name, bound in bounds.items() if bound is not None}


def add_flags(
    parser: argparse.ArgumentParser, cls: type, only: Collection[str] | None = None
) -> None:
    """Add the flags of a settings class to a parser.

    The parser refuses a value outside its bounds and names the flag.

    Args:
        parser: the script's parser.
        cls: the settings class.
        only: fields to add; all by default.
    """
    _add(parser, cls, "", only)


def _add(
    parser: argparse.ArgumentParser,
    cls: type,
    prefix: str,
    only: Collection[str] | None,
    needed: bool = True,
) -> None:
    for setting in settings_in(cls):
        if only is not None and setting.name not in only:
            continue
        flag = f"--{prefix}{setting.flag.replace('_', '-')}"
        if setting.nested:
            _add(parser, setting.kind, f"{setting.flag.replace('_', '-')}-", None, False)
        elif setting.kind is bool:
            parser.add_argument(flag, action="store_true", help=_help(setting))
        elif setting.key.parse:
            parser.add_argument(
                flag,
                action="append",
                default=[],
                type=setting.key.parse,
                metavar="NAME=VALUE",
                help=_help(setting),
            )
        else:
            given = needed and setting.given
            parser.add_argument(
                flag,
                required=given,
                # In a nested class, None means that the flag was not given.
                default=None if given or not needed else setting.default,
                type=_parser_of(setting),
                choices=setting.choices,
                nargs="+" if setting.many else None,
                help=_help(setting),
            )


def _help(setting: Setting) -> str:
    text = " ".join(setting.key.says.split()).replace("%", "%%")
    default = setting.default
    if default is MISSING or default is None or setting.kind is bool or setting.key.parse:
        return text
    shown = " ".join(map(str, default)) if setting.many else default
    return f"{text} (default: {shown})"


def _parser_of(setting: Setting) -> Callable[[str], Any]:
    if setting.choices:  # argparse looks at them itself
        return str
    kind = setting.kind

    def parse(word: str) -> Any:
        value = kind(word)
        fault = _fault(setting, value)
        if fault:
            raise argparse.ArgumentTypeError(fault)
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value"
    return parse


def settings_of_flags(
    cls: type[Class], flags: argparse.Namespace, parser: argparse.ArgumentParser
) -> Class:
    """Return the settings that a parser with a class's flags has read.

    A nested class is None if none of its flags was given. If one was given, its flags without a
    default are required.

    Args:
        cls: the settings class.
        flags: what the parser read.
        parser: its `error` ends the script if flags do not belong together.
    """
    return cls(**{s.name: _of_flags(s, flags, parser) for s in settings_in(cls)})


def _of_flags(setting: Setting, flags: argparse.Namespace, parser: argparse.ArgumentParser) -> Any:
    if not setting.nested:
        value = getattr(flags, setting.flag)
        if setting.key.parse:
            return dict(value)
        return _as_tuple(setting, value, parser) if setting.many and value is not None else value
    found = {}
    for part in settings_in(setting.kind):
        value = getattr(flags, f"{setting.flag}_{part.flag}")
        if value is not None and value is not False:
            found[part.name] = _as_tuple(part, value, parser) if part.many else value
    if not found:
        return setting.default
    for part in settings_in(setting.kind):
        if part.name not in found and part.kind is bool:
            found[part.name] = False
        elif part.name not in found and part.given:
            name = f"{setting.flag}_{part.flag}".replace("_", "-")
            parser.error(f"--{name} is needed with the other --{setting.flag} flags")
    return setting.kind(**found)


def _as_tuple(
    setting: Setting, values: Sequence[Any], parser: argparse.ArgumentParser
) -> tuple[Any, ...]:
    fault = _fault_of_many(setting, values)
    if fault:
        parser.error(f"--{setting.flag.replace('_', '-')}: {fault}")
    return tuple(values)


def settings_of_block(cls: type[Class], block: Mapping[str, Any], **others: Any) -> Class:
    """Return the settings in a block of a valid config; other keys of the block are ignored.

    Args:
        cls: the settings class.
        block: the block of the config.
        others: values of fields that the block does not hold.
    """
    found: dict[str, Any] = {}
    for setting in settings_in(cls):
        if setting.name in others:
            found[setting.name] = others[setting.name]
        elif setting.name in block:
            found[setting.name] = _of_config(setting, block[setting.name])
        elif not setting.given:
            found[setting.name] = setting.default
    return cls(**found)


def _of_config(setting: Setting, value: Any) -> Any:
    if value is None:
        return None
    if setting.nested:
        return settings_of_block(setting.kind, value)
    if setting.key.parse:
        return dict(value)
    if setting.many:
        return tuple(item if setting.choices else setting.kind(item) for item in value)
    return value if setting.choices else setting.kind(value)


def flag_values(
    cls: type,
    block: Mapping[str, Any],
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Return the values that a block of the config gives a class's flags, by the flag's name.

    A key that the block leaves out is left out here. A key that belongs to no field is ignored,
    because another script reads it.

    Args:
        cls: the settings class.
        block: a block of a valid config.
        only: fields to return; all by default.
        without: fields to leave out.
    """
    found: dict[str, Any] = {}
    for setting in settings_in(cls):
        chosen = (only is None or setting.name in only) and setting.name not in without
        if not chosen or setting.name not in block:
            continue
        value = block[setting.name]
        if setting.nested:
            inner = flag_values(setting.kind, value)
            found |= {f"{setting.flag}_{name}": part for name, part in inner.items()}
        else:
            found[setting.flag] = value
    return found


def check_settings(settings: Any) -> None:
    """Check the values of a settings object that did not come through a parser.

    Raises:
        InputError: a value is none of the choices or outside its bounds; the message names the
            flag.
    """
    _check(settings, "--")


def _check(settings: Any, prefix: str) -> None:
    for setting in settings_in(type(settings)):
        value = getattr(settings, setting.name)
        if value is None or setting.key.parse:
            continue
        flag = f"{prefix}{setting.flag.replace('_', '-')}"
        if setting.nested:
            _check(value, f"{flag}-")
            continue
        items = value if setting.many else (value,)
        faults = [_fault_of_many(setting, items)] if setting.many else []
        for fault in [*faults, *(_fault(setting, item) for item in items)]:
            if fault:
                raise InputError(f"{setting.name}: {fault}", flag, f"it means: {setting.key.says}")


def _fault_of_many(setting: Setting, values: Sequence[Any]) -> str | None:
    least = setting.key.min_items or 0
    if len(values) < least:
        return f"{len(values)} of the {least} values or more that are needed"
    if setting.key.unique and len(set(values)) < len(values):
        return "a value recurs"
    return None


def _fault(setting: Setting, value: Any) -> str | None:
    """Return the fault of a value or an item, in the words of the config's check."""
    key = setting.key
    if setting.choices:
        return None if value in setting.choices else f"{value!r} is none of {setting.choices}"
    if setting.kind not in (int, float):
        return None
    if value != value or value in (float("inf"), float("-inf")):
        return f"{value} is no finite number"
    if key.minimum is not None and value < key.minimum:
        return f"{value} is less than the minimum of {key.minimum}"
    if key.above is not None and value <= key.above:
        return f"{value} is less than or equal to the minimum of {key.above}"
    if key.maximum is not None and value > key.maximum:
        return f"{value} is greater than the maximum of {key.maximum}"
    if key.below is not None and value >= key.below:
        return f"{value} is greater than or equal to the maximum of {key.below}"
    return None
