"""A quick check that a checkout's demo has not changed since Snakemake last found nothing to do.

Snakemake itself takes seconds for this check. It depends on files: the workflow's, the world's, the
results, and Snakemake's own metadata. If all of them have the same sizes and times as before and
after a run that found nothing to do, the next run would find nothing to do, either. The same is
true after a run that made everything, if nobody edited anything meanwhile: the inputs are the same
before and after it, and each output has the time at which its job ended in Snakemake's metadata.
"""

import base64
import binascii
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from workflow_scripts.common.files import write_text

NOTE: Final = Path(".snakemake/demo_at_rest")
"""The file with the digest of the state; it may be deleted at any time."""

INPUTS: Final = (
    "Snakefile",
    "config.yaml",
    "envs",
    "profiles/demo",
    "rules",
    "workflow_scripts",
    "data",
    "results/world",
)
"""Files and folders of a checkout that no job writes."""

_METADATA: Final = ".snakemake/metadata"
LOOKED_AT: Final = (
    *INPUTS[:-1],
    "benchmarks",
    "results",
    ".snakemake/incomplete",
    ".snakemake/locks",
    _METADATA,
)
"""Files and folders of a checkout that decide whether there is anything to do."""

_PREFIXES: Final = ("CHEXGENBENCH_", "SNAKEMAKE_", "XDG_")  # environment variables that decide it
_SKIPPED: Final = "__pycache__"


def state(looked_at: Sequence[str] = LOOKED_AT) -> str:
    """Return a digest of the names, sizes and times of the demo's inputs and outputs.

    Args:
        looked_at: files and folders; `INPUTS` for the inputs alone.

    It covers files in the working directory and those behind its links, such as the world's. The
    digest changes if a file is touched, edited (even if its times are set back), replaced, added or
    removed.
    """
    variables = sorted(item for item in os.environ.items() if item[0].startswith(_PREFIXES))
    digest = hashlib.sha256(json.dumps([sys.executable, sys.version, variables]).encode())
    for name in looked_at:
        for line in _files(Path(name)):
            digest.update(line.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def is_as_its_jobs_left_it() -> bool:
    """Return whether every output that a job has written exists and has that job's time.

    Snakemake's metadata have a file for each output, named by its path in base64 (a long name in
    several folders), with the output's time when its job ended. False if there are none.
    """
    files = [path for path in Path(_METADATA).rglob("*") if path.is_file()]
    return bool(files) and all(map(_has_its_time, files))


def _has_its_time(metadata: Path) -> bool:
    parts = metadata.relative_to(_METADATA).parts
    name = "".join(part.removeprefix("@") for part in parts)
    try:
        output = Path(base64.b64decode(name, altchars=b"-_", validate=True).decode())
        ended = json.loads(metadata.read_text(encoding="utf-8"))["endtime"]
        # Snakemake keeps a folder's time in a separate file.
        stamp = output / ".snakemake_timestamp" if output.is_dir() else output
        return bool(stamp.stat().st_mtime == ended)
    except (OSError, ValueError, KeyError, TypeError, binascii.Error):
        return False


def is_at_rest() -> bool:
    """Return whether the state is that in which Snakemake last found nothing to do."""
    try:
        return NOTE.read_text(encoding="utf-8").strip() == state()
    except (OSError, UnicodeDecodeError):
        return False


def note(state: str) -> None:
    """Store the state in which Snakemake found nothing to do."""
    write_text(NOTE, state + "\n")


def _files(path: Path) -> Iterator[str]:
    """Yield a line for each file at or below a path, in a fixed order; none if it is missing."""
    try:
        found = path.stat()
    except OSError:
        if path.is_symlink():  # its target may reappear
            yield f"{path} leads nowhere"
        return
    if not S_ISDIR(found.st_mode):
        # A user can set a file's modification time, but not its change time (ctime).
        yield f"{path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        return
    for entry in sorted(path.iterdir()):
        if entry.name != _SKIPPED:
            yield from _files(entry)
