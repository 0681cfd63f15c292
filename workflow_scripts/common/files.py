"""Atomic writes of files and folders, and digests of their content."""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from workflow_scripts.common.access import unwritable

_REST_S: Final = 3600
"""Age in seconds from which an unfinished file of another machine belongs to a killed job."""


@contextmanager
def whole_file(
    path: str | Path, owner_only: bool = False, make_parents: bool = True
) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed to `path`.

    On an exception the temporary file is removed and `path` stays as it was.

    Args:
        path: the file.
        owner_only: nobody but the owner may read it, from its first byte on, because it names or
            shows patients.
        make_parents: create missing parent folders. False where the folder must exist: one that was
            removed on purpose must stay away.

    Raises:
        FileNotFoundError: the parent folder does not exist and `make_parents` is False.
        InputError: the disk is full, or the user may not write there.
    """
    path = Path(path)
    with _temporary(path, make_parents) as temporary:
        if owner_only:
            temporary.touch(mode=0o600)
            temporary.chmod(0o600)
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)


@contextmanager
def whole_folder(path: str | Path, make_parents: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success its files are fsynced and it is renamed.

    A folder that was at `path` before is replaced only once the new one is complete.

    Args:
        path: the folder.
        make_parents: see `whole_file`.

    Raises:
        FileNotFoundError: the parent folder does not exist and `make_parents` is False.
        InputError: the disk is full, or the user may not write there.
    """
    path = Path(path)
    with _temporary(path, make_parents) as temporary:
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*")):
            _fsync(file)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        _fsync(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` to `target`, or copy it where the file system cannot link the two.

    Linked paths share their content, so neither file may be changed in place. Files that
    `whole_file` writes never are.

    Raises:
        FileExistsError: `target` exists already.
        FileNotFoundError: `source`, or the folder of `target`, does not exist.
    """
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # across file systems, or on one without hard links
        with target.open("xb") as copy, source.open("rb") as original:
            shutil.copyfileobj(original, copy, 1 << 20)


def sha256_of(path: str | Path) -> str:
    """Return the hex sha256 of a file, or of a folder's files with their relative names.

    Hidden files and folders inside a folder (a download cache) do not count.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            relative = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                digest.update(relative.as_posix().encode() + b"\0")
                digest.update(sha256_of(file).encode() + b"\n")
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _temporary(path: Path, make_parents: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path`; remove it afterwards, and explain a failed write."""
    written = 0
    try:
        temporary = _free_name(path, make_parents)
        try:
            yield temporary
        finally:
            if temporary.is_dir():
                written = sum(file.stat().st_size for file in temporary.rglob("*"))
                shutil.rmtree(temporary, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                written = written or temporary.stat().st_size
                temporary.unlink()
    except Exception as error:
        if told := unwritable(error, path, written):
            raise told from error
        raise


def _free_name(path: Path, make_parents: bool) -> Path:
    # An attempt that Snakemake has given up may still be writing the same output, on this machine
    # or another. So each attempt uses a name of its own, and only files of dead ones are removed.
    if make_parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    named = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]+)-(\d+)-[0-9a-f]+\.tmp")
    for rest in path.parent.iterdir():
        found = named.fullmatch(rest.name)
        if found and _is_left_over(rest, found[1], int(found[2])):
            if rest.is_dir():
                shutil.rmtree(rest, ignore_errors=True)
            else:
                rest.unlink(missing_ok=True)
    own = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{path.name}.{own}.tmp")


def _is_left_over(rest: Path, machine: str, process: int) -> bool:
    """Return whether a temporary file or folder was abandoned by its writer.

    A writer on this machine is dead when its process is gone, a writer on another machine when the
    file has not changed for `_REST_S` seconds.
    """
    if machine == _machine():
        return not psutil.pid_exists(process)
    with contextlib.suppress(FileNotFoundError):  # it has just been finished
        files = [rest, *rest.rglob("*")]
        return time.time() - max(file.stat().st_mtime for file in files) > _REST_S
    return False


@functools.cache
def _machine() -> str:
    """Return a short digest that identifies this machine, its boot and its process namespace."""
    names = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux alone has them
        names.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        names.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
