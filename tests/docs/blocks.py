"""Parts of the documentation: pages, code blocks, links."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.workflow.checkouts import ROOT

DOCS = ROOT / "docs"
GENERATED = ("reference/config.md", "reference/commands.md", "changelog.md")
"""Pages that `docs/site/hooks.py` generates when the site is built."""


def pages() -> list[Path]:
    """Return every handwritten page, including the README."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    """Return a page's name in messages."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path, language: str) -> list[str]:
    """Return a page's blocks of one language, without the indentation of a list."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [
        "\n".join(line.removeprefix(indent) for line in block.split("\n"))
        for indent, block in found
    ]


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links and images."""
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(page))


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def inline_code(page: Path) -> list[str]:
    """Return the texts in single backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))
