"""Refusals of a file system: no access to a file, or no room to write one.

A lock that a server does not grant, a stale file handle, a missing permission, an I/O error: in all
these cases the file may be whole. They must not be mistaken for damage, because users repair damage
by deleting the file, and the file may have taken a GPU days.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from workflow_scripts.common.errors import InputError, first_line

_ACCESS: Final = frozenset(
    (
        *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOLCK, errno.EAGAIN),
        *(errno.EBUSY, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO),
        *(errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    )
)
_ROOM: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "no right to write there",
    errno.EPERM: "no right to write there",
}
_TOLD: Final = re.compile(r"(?:errno|os error)[ =:]*(\d+)", re.IGNORECASE)
"""The error number in the messages of HDF5, Arrow and safetensors."""

_TORCH: Final = ("PytorchStreamWriter failed", "unexpected pos")
"""Parts of torch's messages when it cannot write its archive; they have no error number."""


def refused(error: BaseException) -> str | None:
    """Return the operating system's message if it refused access; None for any other fault."""
    found = next((number for number in _numbers(error) if number in _ACCESS), None)
    return None if found is None else os.strerror(found)


def unreadable(
    what: str, error: BaseException, where: str | Path, remedy: str | None = None
) -> InputError:
    """Return the error to raise where something cannot be read.

    Args:
        what: the failed action, such as `cannot read features`.
        error: what the reader raised.
        where: the file.
        remedy: how to repair a damaged file; if access was refused, the error gives another remedy.
    """
    reason = refused(error)
    if reason is None:
        return InputError(f"{what}: {first_line(error)}", where, remedy)
    return InputError(
        f"{what}: {reason}. That is no access, and says nothing of what the file holds",
        where,
        "do not delete it: see to the rights, or wait until the file system answers, and run again",
    )


def require_access(error: BaseException, where: str | Path) -> None:
    """Raise if access was refused, so that a whole file is not taken for damaged and remade.

    Raises:
        InputError: the operating system gave no access.
    """
    if refused(error):
        raise unreadable("cannot read what an earlier run left", error, where) from None


def unwritable(error: BaseException, path: str | Path, written: int = 0) -> InputError | None:
    """Return the error to raise where a file cannot be written; None for any other fault.

    Args:
        error: what the writer raised.
        path: the file; it need not exist.
        written: bytes written before the failure.
    """
    if isinstance(error, InputError):
        return None
    folder = next(folder for folder in Path(path).absolute().parents if folder.is_dir())
    numbers = [number for number in _numbers(error) if number in _ROOM]
    if os.access(folder, os.W_OK):  # then the permission is missing elsewhere
        numbers = [number for number in numbers if number not in (errno.EACCES, errno.EPERM)]
    if numbers:
        reason = _ROOM[numbers[0]]
    elif any(sign in str(error) for sign in _TORCH):
        reason = "the disk is full, or answers with errors"
    else:
        return None
    disk = shutil.disk_usage(folder)
    return InputError(
        f"cannot write a file: {reason} ({first_line(error)})",
        f"{path} (after {_size(written)}; disk of {_mount(folder)}: {_size(disk.free)} free of "
        f"{_size(disk.total)})",
        "make room or have it allowed, and run again: nothing was lost. A file of this name is as "
        "it was, what was half written is gone, and finished work is continued",
    )


def _numbers(error: BaseException) -> Iterator[int]:
    """Yield the error numbers of an exception and of its causes."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            yield seen.errno
        yield from (int(number) for number in _TOLD.findall(str(seen)))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _mount(folder: Path) -> Path:
    folder = folder.resolve()
    while not folder.is_mount():
        folder = folder.parent
    return folder


def _size(count: int) -> str:
    amount, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.4g} {units[0]}"
