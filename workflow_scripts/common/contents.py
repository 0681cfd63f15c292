"""What files hold, told by digests that are computed once: a touched or copied file says the same.

Snakemake goes by the times of files above a size, and not at all by what a folder holds. A data
source's tables are large, weights and images lie in folders, and what follows from them costs
GPU-weeks: their digests are parameters of the jobs that read them instead.
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
"""Files that are read at a time: a network filesystem answers several faster than one."""

_LONG: Final = 4 << 30
"""Bytes from which on reading is announced: it takes longer than a user waits for a plan."""


class Contents:
    """Digests of files, each computed when its size or time of change is another than before.

    Args:
        known: JSON file that keeps the digests by path, size and time, and what subjects held. It
            saves reading, and remembers what is no longer there; deleted, it is made anew.
    """

    def __init__(self, known: Path) -> None:
        self._path = known

    def digests(self, paths: Iterable[str | Path]) -> list[str]:
        """Return `name digest` of each file, the digest in 64 hexadecimal digits.

        Raises:
            OSError: there is no such file.
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
        """Return one digest of many files, as they are named and in their order.

        Raises:
            OSError: there is no such file.
        """
        return digest_of(self.digests(paths))

    def once(
        self, subject: str, paths: Iterable[str | Path], tell: Callable[[], Sequence[str]]
    ) -> list[str]:
        """Return what is told of files, asked again only when they hold something else.

        Args:
            subject: tells it from what else is told of the same files.
            paths: the files.
            tell: reads them; what it raises is raised.

        Raises:
            OSError: there is no such file.
        """
        subject = f"{subject}, of files that hold {self.condensed(paths)}"
        kept = self._known.get(subject)
        if not isinstance(kept, list):
            kept = list(tell())
            self._learn({subject: kept})
        return [str(line) for line in kept]

    def last(self, subject: str, tell: Callable[[], Sequence[str]]) -> list[str]:
        """Return what is told of a subject; where its files are gone, what was told of it last.

        So weights that were removed after a model had been sampled rerun nothing. `missing` where
        nothing was ever told: preflight says what is missing before a job needs it.

        Args:
            subject: names it, among all that this object is asked for.
            tell: what it holds; OSError where files are gone.
        """
        subject = f"held by {subject}"
        try:
            told = list(tell())
        except OSError:
            kept = self._known.get(subject)
            return [str(x) for x in kept] if isinstance(kept, list) else ["missing"]
        self._learn({subject: told})
        return told

    @cached_property
    def _known(self) -> dict[str, Any]:
        return self._read()

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def _kept(self, place: str, now: list[int]) -> str | None:
        kept = self._known.get(place)
        if not isinstance(kept, list) or len(kept) != 4 or kept[:3] != now:
            return None
        return str(kept[3])

    def _learn(self, new: dict[str, list[Any]]) -> None:
        """Keep what is new, beside what other processes have written meanwhile."""
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
    """Return size in bytes and times of modification and change in ns: what tells a change.

    Raises:
        OSError: there is no such file.
    """
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def digest_of(told: Sequence[str]) -> str:
    """Return the SHA-256 of texts, in their order, in 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(list(told)).encode()).hexdigest()


def files_of(path: str | Path) -> list[Path]:
    """Return a file, or the files of a folder, sorted; hidden ones do not count (`sha256_of`).

    Raises:
        OSError: neither is there.
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
