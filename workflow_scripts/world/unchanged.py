"""Whether a checkout's demo is exactly as Snakemake last found it, with nothing left to do.

Snakemake takes seconds to find that. What it looks at are files: the workflow's, the world's, the
results, and what it noted of them. So where every one of them has the size and the times that it
had before and after a run that found nothing to do, the next one would find nothing, either.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from workflow_scripts.common.files import write_text

NOTE: Final = Path(".snakemake/demo_at_rest")
"""Where the digest of the state is kept; it may be deleted at any time."""

LOOKED_AT: Final = (
    "Snakefile",
    "config.yaml",
    "envs",
    "profiles/demo",
    "rules",
    "workflow_scripts",
    "benchmarks",
    "data",
    "results",
    ".snakemake/incomplete",
    ".snakemake/locks",
    ".snakemake/metadata",
)
"""Files and folders of a checkout that decide whether there is something to do."""

_PREFIXES: Final = ("CHEXGENBENCH_", "SNAKEMAKE_", "XDG_")  # of environment variables that do
_SKIPPED: Final = "__pycache__"


def state() -> str:
    """Return a digest of the names, sizes and times of all that the demo depends on and has made.

    Of the files in the working directory and those that links there lead to, such as the world's.
    A file that was touched, edited (whatever its times were set to), replaced, added or removed
    gives another digest.
    """
    variables = sorted(item for item in os.environ.items() if item[0].startswith(_PREFIXES))
    digest = hashlib.sha256(json.dumps([sys.executable, sys.version, variables]).encode())
    for name in LOOKED_AT:
        for line in _files(Path(name)):
            digest.update(line.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def is_at_rest() -> bool:
    """Whether all is as it was when Snakemake last found nothing to do."""
    try:
        return NOTE.read_text(encoding="utf-8").strip() == state()
    except (OSError, UnicodeDecodeError):
        return False


def note(state: str) -> None:
    """Keep the state in which Snakemake found nothing to do."""
    write_text(NOTE, state + "\n")


def _files(path: Path) -> Iterator[str]:
    """Yield a line for each file at or below a path, in a fixed order; nothing where it is none."""
    try:
        found = path.stat()
    except OSError:
        if path.is_symlink():  # what it names may come back
            yield f"{path} leads nowhere"
        return
    if not S_ISDIR(found.st_mode):
        # A user can set the time of a file's content, but not that of its last change (ctime).
        yield f"{path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        return
    for entry in sorted(path.iterdir()):
        if entry.name != _SKIPPED:
            yield from _files(entry)
