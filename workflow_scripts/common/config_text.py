"""The config as text: faults that YAML accepts silently and that a schema cannot see afterwards.

YAML accepts a key twice in one mapping and keeps the last value, so a model's block that was copied
and not renamed replaces its original. It reads the keys in `1:` and `no:` as a number and a truth
value, not as text.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError

_REMEDY: Final = "see config.yaml of the repository for a whole one"
_LARGEST: Final = 2**63 - 1
_DIRECTION: Final = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHELL: Final = re.compile(r"~\w*/|\$\w+/|\$\{")
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read one config file, YAML or JSON.

    Raises:
        InputError: the file cannot be read, is empty, is not a mapping, or repeats a key within one
            mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        root = yaml.compose(text, Loader=_Loader)
        repeated = list(_repeated_keys(root))
        content = json.loads(text) if str(path).endswith(".json") else yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise InputError(f"cannot read the config: {_problem(error)}", path, _REMEDY) from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise unreadable("cannot read the config", error, path, _REMEDY) from None
    if repeated:
        raise InputError(
            "keys that stand twice, of which YAML would keep the last:\n  - "
            + "\n  - ".join(repeated),
            path,
            "rename or remove one of each pair",
        )
    if content is None:
        raise InputError("the config is empty", path, _REMEDY)
    if not isinstance(content, dict):
        raise InputError(
            f"the config is a {type(content).__name__}, not keys with values", path, _REMEDY
        )
    return content


def _problem(error: yaml.MarkedYAMLError) -> str:
    """Return what a YAML parser found, and in which line and column."""
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + (error.problem or error.context or type(error).__name__)


def check_config_files(paths: Iterable[str | Path]) -> None:
    """Check config files that Snakemake has read already, see `read_config_file`."""
    for path in paths:
        read_config_file(path)


def _repeated_keys(root: yaml.Node | None) -> Iterator[str]:
    """Yield each repeated key of a mapping, with its place and both line numbers."""
    waiting = [(root, "")]
    seen: set[int] = set()  # an anchor and its aliases are one node
    while waiting:
        node, place = waiting.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(part, f"{place}[{number}]") for number, part in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "a key that is no text"
            line = key.start_mark.line + 1
            full = f"{place}.{name}" if place else name
            if name in lines and name != "<<":  # several mappings may be merged into one
                yield f"{full} (lines {lines[name]} and {line})"
            lines.setdefault(name, line)
            waiting.append((value, full))


def text_faults(config: object) -> list[str]:
    """Return the faults that no key or value of the config may have; empty where there are none.

    Keys are text. Texts are not empty. They have no braces, which Snakemake takes for wildcards, no
    line breaks or other control characters, and no characters that change the reading direction.
    They do not begin with `~/` or a shell's variable, because nothing replaces these.
    Texts that go to a model verbatim (`options`) and separators of labels (`separator`) may hold
    any character but the null character. Whole numbers fit into 64 bits.
    """
    return list(_text_faults(config, ()))


def _text_faults(value: object, place: tuple[str, ...]) -> Iterator[str]:
    name = ".".join(place) or "the top level"
    if isinstance(value, dict):
        for key, part in value.items():
            if isinstance(key, str):
                yield from (f"{name}: the key {key!r} {fault}" for fault in _faults_of(key, place))
                yield from _text_faults(part, (*place, key))
            else:
                kind = {int: "a number", bool: "yes or no", type(None): "empty"}.get(type(key))
                kind = kind or f"of type {type(key).__name__}"
                yield f"{name}: the key {key!r} is {kind} for YAML: write it in quotes"
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _text_faults(part, (*place, str(number)))
    elif isinstance(value, str):
        yield from (f"{name}: {value!r} {fault}" for fault in _faults_of(value, place))
    elif isinstance(value, int) and abs(value) > _LARGEST:
        yield f"{name}: {value} does not fit into 64 bits"


def _faults_of(text: str, place: tuple[str, ...]) -> Iterator[str]:
    verbatim = "options" in place or place[-1:] == ("separator",)
    if not verbatim and ("{" in text or "}" in text):
        yield "has braces, which Snakemake takes for a wildcard: write it without them"
    if "\0" in text or (not verbatim and _CONTROL.search(text)):
        yield "has a line break or another control character: write it without"
    if not verbatim and not text.strip() and place:
        yield "is empty: take the key out, or write what it is for"
    if not verbatim and _SHELL.match(text):
        yield "begins with what only a shell replaces: write the whole path"
    if not verbatim and _DIRECTION.search(text):
        yield "has a character that turns the direction of reading: write it without"
