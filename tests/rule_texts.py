"""The text of the workflow's rules, for tests of what they declare."""

import re
from pathlib import Path

_HEADER = re.compile(r"^(?:(?:rule|checkpoint) (\w+)|use rule (\w+) as (\w+) with):$", re.MULTILINE)


def rule_texts(folder: Path) -> dict[str, str]:
    """Return the text of every rule by its name.

    The text of `use rule ORIGINAL as NAME with` is followed by that of the original, from which it
    takes the command, and all that it does not give itself.

    Args:
        folder: `rules/` of a checkout.
    """
    texts: dict[str, str] = {}
    for path in sorted(folder.glob("*.smk")):
        _, *parts = _HEADER.split(path.read_text())
        for rule, original, name, body in zip(*(parts[i::4] for i in range(4)), strict=True):
            texts[rule or name] = body + (texts[original] if original else "")
    return texts
