"""Attempts at one job: each writes its progress to its own folder, and only the newest goes on.

A job that Snakemake has given up (because its node was lost, say) may still be running when its
retry starts. No lock can keep it out: NFS and Lustre do not support locks and appends reliably
everywhere. But `mkdir`, `rename` and `link` are atomic on all of them, and a folder with a random
name is never created twice. So an attempt

- creates a folder `attempt-{number}-{random}` in the progress folder, with the highest number;
- links finished files of earlier attempts into its own folder, then removes the earlier folders;
- checks, before it writes or publishes anything, that its folder still exists and is the newest.
  If not, it ends with an error and leaves everything as it is.

A folder is removed by renaming it first, and no writer creates it again. So an earlier attempt that
is still running has nowhere left to write.
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

    In a job with several processes, only the main process makes an attempt; others may join it.

    Attributes:
        folder: where this attempt writes. Write only inside `writing()`, only whole files and
            folders, and never create a missing parent (`make_parents=False`): a folder that was
            removed must stay away.
        progress: the progress folder of the job, which all attempts share.
    """

    def __init__(self, progress: Path):
        self.progress = progress
        for _ in range(_TRIES):
            # An earlier attempt that is just ending may remove the progress folder in between.
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
            folder: folder of the attempt that the job's main process made.
        """
        attempt = cls.__new__(cls)
        attempt.progress, attempt.folder = folder.parent, folder
        return attempt

    def earlier(self) -> list[Path]:
        """Return the folders of the attempts before this one, the newest first."""
        found = [path for path in _attempts(self.progress) if path.name < self.folder.name]
        return found[::-1]

    def check(self) -> None:
        """Raise if a newer attempt has begun or this one's folder is gone.

        Raises:
            InputError: another attempt took over; the message names it where it is known.
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
        """Yield the attempt's folder to write one checkpoint to; then remove earlier attempts.

        Raises:
            InputError: another attempt took over, before or during the write.
        """
        self.check()
        try:
            yield self.folder
        except Exception:
            self.check()  # a removed folder explains the failure better than the failed write
            raise
        self._remove_earlier()

    def adopt(self, path: Path) -> Path:
        """Link a finished file or folder of an earlier attempt into this attempt's folder.

        Args:
            path: directly in a folder of `earlier()`; a folder holds files only.

        Returns:
            Its path in this attempt's folder.

        Raises:
            FileNotFoundError: the earlier attempt is still running and has just removed it.
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
        """Remove earlier attempts, once the caller has checked what it adopted from them."""
        self.check()
        self._remove_earlier()

    def inherit(self) -> None:
        """Adopt the newest file of each name from earlier attempts, then remove those attempts.

        This suits files that are replaced as a whole. Where a newer file must be checked before the
        older ones may be removed, use `adopt` and `keep`.

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
        """Remove the progress folder; if a newer attempt has begun, leave its files in place."""
        self._remove_earlier()
        _remove(self.folder)
        if not _attempts(self.progress):
            for rest in [*self.progress.iterdir()] if self.progress.is_dir() else []:
                _remove(rest)
        with suppress(OSError):  # another attempt has just begun
            self.progress.rmdir()

    def _remove_earlier(self) -> None:
        for path in self.earlier():
            _remove(path)
        for rest in self.progress.glob(f"{_REMOVED}*"):  # from an attempt killed while removing
            shutil.rmtree(rest, ignore_errors=True)


def _whole(folder: Path) -> list[Path]:
    """Return the finished files and folders of an attempt; unfinished ones have hidden names."""
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
    # Two attempts that begin at the same moment have the same number; then the name decides.
    return [progress / name for name in sorted(names) if name.startswith(_PREFIX)]


def _number(path: Path) -> int:
    digits = path.name.removeprefix(_PREFIX).split("-")[0]
    return int(digits) if digits.isdecimal() else 0


def _remove(path: Path) -> None:
    # Renaming takes the folder from its writer at once. Removing it file by file would leave the
    # writer time to add new files.
    removed = path.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(removed)
        if not removed.is_dir():
            removed.unlink()
    shutil.rmtree(removed, ignore_errors=True)
