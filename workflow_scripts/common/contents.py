"""Digests of file contents, each computed once: a touched or copied file keeps its digest.

Snakemake compares large files by their modification times and does not look into folders. A data
source's tables are large, weights and images lie in folders, and what depends on them costs
GPU-weeks. So their digests are parameters of the jobs that read them.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.files import sha256_of

READERS: Final = 8
"""Number of files read in parallel: a network file system serves several faster than one."""

_LONG: Final = 4 << 30
"""Size in bytes from which reading is announced, because it delays the plan noticeably."""


class Contents:
    """Digests of files, each recomputed only when the file's size or times have changed.

    Args:
        known: JSON file that caches the digests by path, size and times, and the last answers of
            `once` and `last`. It saves reading, and remembers files that have been removed. A
            deleted cache is built again.
    """

    def __init__(self, known: Path) -> None:
        self._path = known

    def digests(self, paths: Iterable[str | Path]) -> list[str]:
        """Return `name digest` of each file, the digest in 64 hexadecimal digits.

        Raises:
            OSError: a file does not exist.
        """
        files = [Path(path) for path in paths]
        stamped = list(zip(files, [stamp(file) for file in files], strict=True))
        unread = [(file, s) for file, s in stamped if self._kept(_place(file), s) is None]
        size = sum(s[0] for _, s in unread)
        if size > _LONG:
            print(f"reading {size / 1e9:.0f} GB to tell what they hold, once", file=sys.stderr)
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(sha256_of, [file for file, _ in unread])
            new = {_place(f): [*s, digest] for (f, s), digest in zip(unread, read, strict=True)}
        self._learn(new)
        return [f"{file.name} {self._kept(_place(file), s)}" for file, s in stamped]

    def condensed(self, paths: Iterable[str | Path]) -> str:
        """Return one digest of the names and contents of files, in their order.

        Raises:
            OSError: a file does not exist.
        """
        return digest_of(self.digests(paths))

    def once(
        self, subject: str, paths: Iterable[str | Path], tell: Callable[[], Sequence[str]]
    ) -> list[str]:
        """Return the result of reading files, computed again only when their contents change.

        Args:
            subject: names this result among all results of the same files.
            paths: the files.
            tell: reads them and returns the lines to keep; its exceptions pass through.

        Raises:
            OSError: a file does not exist.
        """
        subject = f"{subject}, of files that hold {self.condensed(paths)}"
        lines = self._known.get(subject)
        if not isinstance(lines, list):
            lines = list(tell())
            self._learn({subject: lines})
        return [str(line) for line in lines]

    def last(self, subject: str, tell: Callable[[], Sequence[str]]) -> list[str]:
        """Return the current description of a subject, or the last one if its files are gone.

        So removing weights after a model has been sampled reruns nothing. The answer is `missing`
        if there has never been one: preflight reports missing files before a job needs them.

        Args:
            subject: names the answer, among all that this object keeps.
            tell: returns the description; it raises OSError where files are gone.
        """
        subject = f"held by {subject}"
        try:
            lines = list(tell())
        except OSError:
            before = self._known.get(subject)
            return [str(x) for x in before] if isinstance(before, list) else ["missing"]
        self._learn({subject: lines})
        return lines

    @cached_property
    def _known(self) -> dict[str, Any]:
        return self._read()

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def _kept(self, place: str, now: list[int]) -> str | None:
        entry = self._known.get(place)
        if not isinstance(entry, list) or len(entry) != 4 or entry[:3] != now:
            return None
        return str(entry[3])

    def _learn(self, new: dict[str, list[Any]]) -> None:
        """Add new entries to the cache, and keep what other processes have added meanwhile."""
        new = {key: value for key, value in new.items() if self._known.get(key) != value}
        if not new:
            return
        self._known.update(new)
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._read() | self._known), encoding="utf-8")
            temporary.replace(self._path)


def stamp(path: str | Path) -> list[int]:
    """Return a file's size in bytes and its modification and change times in ns.

    Raises:
        OSError: the file does not exist.
    """
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def digest_of(texts: Sequence[str]) -> str:
    """Return the SHA-256 of texts, in their order, in 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def files_of(path: str | Path) -> list[Path]:
    """Return a file, or the files of a folder, sorted; hidden ones do not count (`sha256_of`).

    Raises:
        OSError: there is neither a file nor a folder.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    return [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(x.startswith(".") for x in file.relative_to(path).parts)
    ]


def _place(path: Path) -> str:
    return str(path.absolute())
