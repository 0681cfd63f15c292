"""Attempts at one job: each writes its progress to a folder of its own, and the newest goes on.

A job that Snakemake has given up (its node was lost, say) may still be running when its retry
starts. Nothing can lock it out: NFS and Lustre have no locks or appends to rely on everywhere. But
`mkdir`, `rename` and `link` are atomic on all of them, and a folder with a random name is never
made twice. So an attempt

- begins a folder `attempt-{number}-{random}` in the progress folder, its number above all there;
- links what an earlier attempt left whole into its own folder, then takes the earlier ones away;
- looks, before it writes or publishes anything, whether its own is still there and the newest;
  if not, it ends with an error and leaves everything as it is.

A folder is taken away by renaming it, and no writer makes it again: what is left of an earlier
attempt has nowhere to write from then on.
"""

import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import link_or_copy, whole_folder

log = logging.getLogger(__name__)

_PREFIX: Final = "attempt-"
_REMOVED: Final = ".removed-"
_TRIES: Final = 100


class Attempt:
    """One process's attempt at a job, and its folder.

    Of a job in several processes, the main one alone makes an attempt; others may join it.

    Attributes:
        folder: where this attempt writes. Write only inside `writing()`, whole files and folders
            alone, and without making a missing parent (`make_parents=False`): a folder that has
            been taken away must stay away.
        progress: the progress folder of the job, which all attempts share.
    """

    def __init__(self, progress: Path):
        self.progress = progress
        for _ in range(_TRIES):
            # An earlier attempt that ends just now may take the progress folder away in between.
            with suppress(FileNotFoundError):
                progress.mkdir(parents=True, exist_ok=True, mode=0o700)
                number = 1 + max(map(_number, _attempts(progress)), default=0)
                self.folder = progress / f"{_PREFIX}{number:06d}-{uuid.uuid4().hex}"
                self.folder.mkdir(mode=0o700)
                return
        raise InputError("the progress folder vanishes again and again", progress)

    @classmethod
    def joined(cls, folder: Path) -> Self:
        """Return another process's attempt, to write into its folder: a job's processes share it.

        Args:
            folder: of the attempt that the job's main process made.
        """
        attempt = cls.__new__(cls)
        attempt.progress, attempt.folder = folder.parent, folder
        return attempt

    def earlier(self) -> list[Path]:
        """Return the folders of the attempts before this one, the newest first."""
        found = [path for path in _attempts(self.progress) if path.name < self.folder.name]
        return found[::-1]

    def check(self) -> None:
        """Refuse to go on when a newer attempt has begun, or this one's folder is gone.

        Raises:
            InputError: it names the attempt that took over.
        """
        newer = [path for path in _attempts(self.progress) if path.name > self.folder.name]
        if newer:
            raise InputError(
                f"{newer[-1].name} has taken over from {self.folder.name}, which ends here and "
                "leaves all outputs to it",
                self.progress,
                "nothing, where Snakemake gave this job up and started it again; by hand, run one "
                "at a time",
            )
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder.name} has been taken away: another attempt took over and is done, "
                "or somebody deleted the progress",
                self.progress,
                "nothing, where the outputs are there; else run again",
            )

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield the attempt's folder to write one checkpoint into; then drop earlier attempts.

        Raises:
            InputError: another attempt took over, before or meanwhile.
        """
        self.check()
        try:
            yield self.folder
        except Exception:
            self.check()  # a folder that was taken away says more than the write that failed
            raise
        self._remove_earlier()

    def adopt(self, path: Path) -> Path:
        """Link a file or folder that an earlier attempt wrote whole to its place in this one's.

        Args:
            path: directly in the folder of one of `earlier()`; a folder holds files alone.

        Returns:
            Its path in this attempt's folder.

        Raises:
            FileNotFoundError: the earlier attempt, still alive, has just removed it.
            InputError: another attempt took over.
        """
        target = self.folder / path.name
        self.check()
        if path.is_dir():
            with whole_folder(target, make_parents=False) as folder:
                for file in sorted(path.iterdir()):
                    link_or_copy(file, folder / file.name)
        else:
            link_or_copy(path, target)
        return target

    def keep(self) -> None:
        """Take earlier attempts away, now that what was adopted of them has proved whole."""
        self.check()
        self._remove_earlier()

    def inherit(self) -> None:
        """Adopt all that earlier attempts wrote, the newest of each name, and take them away.

        For what is whole or worthless by itself; `adopt` and `keep` are for what must be looked at
        before what came before it may go.

        Raises:
            InputError: another attempt took over.
        """
        for folder in self.earlier():
            for path in _whole(folder):
                if not (self.folder / path.name).exists():
                    with suppress(FileNotFoundError):
                        self.adopt(path)
        self.keep()

    def end(self) -> None:
        """Remove the progress folder; where a newer attempt has begun, only what is not its own."""
        self._remove_earlier()
        _remove(self.folder)
        if not _attempts(self.progress):
            for rest in [*self.progress.iterdir()] if self.progress.is_dir() else []:
                _remove(rest)
        with suppress(OSError):  # an attempt has begun in this moment
            self.progress.rmdir()

    def _remove_earlier(self) -> None:
        for path in self.earlier():
            _remove(path)
        for rest in self.progress.glob(f"{_REMOVED}*"):  # of an attempt killed while it removed
            shutil.rmtree(rest, ignore_errors=True)


def _whole(folder: Path) -> list[Path]:
    """Return what an attempt finished writing; what it had begun to write has hidden names."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []


def _attempts(progress: Path) -> list[Path]:
    """Return the folders of all attempts, the newest last."""
    try:
        names = [path.name for path in progress.iterdir()]
    except FileNotFoundError:
        return []
    # Of two that began at the same moment both have the same number, and the name decides.
    return [progress / name for name in sorted(names) if name.startswith(_PREFIX)]


def _number(path: Path) -> int:
    digits = path.name.removeprefix(_PREFIX).split("-")[0]
    return int(digits) if digits.isdecimal() else 0


def _remove(path: Path) -> None:
    # Renamed first: in the same moment its writer finds it gone. To remove it file by file would
    # leave time to write new ones into it.
    removed = path.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(removed)
        if not removed.is_dir():
            removed.unlink()
    shutil.rmtree(removed, ignore_errors=True)
