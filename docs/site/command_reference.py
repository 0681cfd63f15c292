"""The reference of the command lines: what each script's own `--help` says."""

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

_HEAD = """# Command lines

`make help` lists what most people need. Below it, every script of the workflow says what it takes:
this page holds each one's own `--help`, read when the site is built. Rules call the same command
lines; `snakemake --printshellcmds` prints them, and a printed command can be run by hand from the
repository's root.
"""


def command_reference(root: Path) -> str:
    """Return the page as Markdown, with one section for each script.

    Args:
        root: the checkout; its modules are imported.
    """
    lines = [_HEAD]
    stage = ""
    for name in scripts(root):
        head = name.split(".")[1]
        if head != stage:
            stage = head
            lines += [f"## {stage}", ""]
        lines += [f"### {name}", "", "```text", help_of(name), "```", ""]
    return "\n".join(lines)


def scripts(root: Path) -> Iterator[str]:
    """Yield the modules that are command lines with flags, sorted by stage."""
    for path in sorted((root / "workflow_scripts").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        takes_flags = any(name in source for name in ("ArgumentParser(", "_arguments(", "_parser("))
        if 'if __name__ == "__main__"' in source and takes_flags:
            yield ".".join(path.relative_to(root).with_suffix("").parts)


def help_of(name: str) -> str:
    """Return what `python -m name --help` prints."""
    printed = io.StringIO()
    called = [f"python -m {name}", "--help"]
    with (
        mock.patch.object(sys, "argv", called),
        mock.patch.dict(os.environ, COLUMNS="100", NO_COLOR="1"),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        importlib.import_module(name).main()
    text = printed.getvalue()
    module = name.rsplit(".", 1)[-1]
    return text.replace(f"usage: {module}.py", f"usage: python -m {name}").strip()
