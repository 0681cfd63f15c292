"""What files hold, told by digests that are computed once: a touched or copied file says the same.

Snakemake goes by the times of files above a size. A data source's tables are larger, and what
follows from them costs GPU-weeks: their digests are parameters of the job that reads them instead.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from workflow_scripts.common.files import sha256_of


class Contents:
    """Digests of files, each computed when its size or time of change is another than before.

    Args:
        known: JSON file that keeps the digests by path, size and time. It saves reading and may be
            deleted at any time.
    """

    def __init__(self, known: Path) -> None:
        self._path = known
        try:
            self._known: dict[str, list[object]] = dict(json.loads(known.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            self._known = {}

    def digests(self, paths: Iterable[str | Path]) -> list[str]:
        """Return `name digest` of each file, the digest in 64 hexadecimal digits.

        Raises:
            OSError: there is no such file.
        """
        found, before = [], dict(self._known)
        for path in map(Path, paths):
            status, place = path.stat(), str(path.absolute())
            stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            kept = self._known.get(place)
            if not isinstance(kept, list) or len(kept) != 4 or kept[:3] != stamp:
                self._known[place] = kept = [*stamp, sha256_of(path)]
            found.append(f"{path.name} {kept[3]}")
        if self._known != before:
            self._keep()
        return found

    def _keep(self) -> None:
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # it only saves reading
            temporary.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps(self._known), encoding="utf-8")
            temporary.replace(self._path)
