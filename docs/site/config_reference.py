"""The reference of the config, from its schema (with the scripts' settings) and `config.yaml`.

One section for each block of the schema, one row for each key: type and limits, whether it is
needed, the value of `config.yaml`, and the schema's description.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_HEAD = """# Every key of the config

This page is made when the site is built, from the config's schema: from
`workflow_scripts/common/config.schema.yaml` and the scripts' settings classes, from which their
command lines follow, too. A key that is not here is refused. `config.yaml` is the paper's config; a
profile or `--configfile` puts an overlay on it: mappings are merged, lists and values are replaced.

`{model}` stands for the key of any model. "Paper" is the value in `config.yaml`, where it has one.
"""


def config_reference(schema: Mapping[str, Any], config: Path) -> str:
    """Return the page as Markdown.

    Args:
        schema: the JSON schema of the config.
        config: `config.yaml`, whose values stand beside the keys.
    """
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    lines = [_HEAD]
    for path, block in blocks(schema):
        lines += [f"## {path or 'Top level'}", "", _sentence(block.get("description", "")), ""]
        lines += ["| key | type | needed | paper | meaning |", "|---|---|---|---|---|"]
        needed = block.get("required", ())
        for name, key in block["properties"].items():
            own = f"{path}.{name}" if path else name
            shown = "see below" if key.get("properties") else _shown(_value(values, own))
            cells = (f"`{name}`", _type(key), "yes" if name in needed else "no", shown)
            text = _sentence(key.get("description", ""))
            lines.append("| " + " | ".join([*cells, text.replace("|", "\\|")]) + " |")
        lines.append("")
    return "\n".join(lines)


def blocks(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every mapping of the schema that has keys of its own, with its dotted path."""
    if schema.get("properties"):
        yield path, schema
        for name, key in schema["properties"].items():
            yield from blocks(key, f"{path}.{name}" if path else name)
    each = schema.get("additionalProperties")
    if isinstance(each, Mapping) and path == "models":
        yield from blocks(each, f"{path}.{{model}}")


def _value(values: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(values, Mapping) or name not in values:
            return None
        values = values[name]
    return values


def _shown(value: Any) -> str:
    """Return a value as YAML writes it in one line; nothing for blocks and long lists."""
    if value is None or isinstance(value, Mapping):
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).split("\n")[0].strip()
    return f"`{text}`" if len(text) <= 60 else ""


def _type(key: Mapping[str, Any]) -> str:
    if "enum" in key:
        return "one of " + ", ".join(f"`{_plain(value)}`" for value in key["enum"])
    kinds = key.get("type", "any")
    name = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
    name = {"object": "mapping", "array": "list", "string": "text"}.get(name, name)
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {key[limit]}" for limit, sign in limits.items() if limit in key]
    return f"{name}, {', '.join(found)}" if found else name


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("{", "&#123;").replace("<", "&lt;")
