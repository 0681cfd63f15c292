"""Missing access is not reported as damage, and a full disk is reported as such, by any library."""

import contextlib
import errno
import fcntl
import json
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.feature_files import write_file
from workflow_scripts.common import access
from workflow_scripts.common.access import refused, require_access, unreadable, unwritable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file, whole_folder
from workflow_scripts.common.images import read_shards
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.records import read_record
from workflow_scripts.downstream.outcomes import read_outcomes
from workflow_scripts.features.cache import read_features
from workflow_scripts.finetune.layout import read_json

REFUSALS = ("EACCES", "EPERM", "EIO", "ESTALE", "ENOLCK", "EAGAIN", "ETIMEDOUT", "EMFILE")
LIMIT = 100_000


def error_of(name):
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), "file")


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_told_from_damage(name):
    fault = unreadable("cannot read features", error_of(name), "a.h5", "delete it and rerun")
    assert os.strerror(getattr(errno, name)) in fault.what
    assert "no access" in fault.what
    assert fault.remedy.startswith("do not delete it")
    with pytest.raises(InputError, match="what an earlier run left"):
        require_access(error_of(name), "a.pt")


@pytest.mark.parametrize(
    "error",
    [
        OSError("Unable to synchronously open file (file signature not found)"),
        OSError("truncated file: eof = 512, sblock->base_addr = 0"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "file"),
        ValueError("Expecting value: line 1 column 1 (char 0)"),
        KeyError("features"),
    ],
)
def test_damage_is_told_as_damage(error):
    fault = unreadable("cannot read features", error, "a.h5", "delete it and rerun")
    assert fault.remedy == "delete it and rerun"
    assert "no access" not in fault.what
    require_access(error, "a.pt")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Unable to open file (unable to lock file, errno = 11, error message = 'x')", "EAGAIN"),
        ("Unable to open file (unable to lock file, errno = 37, error message = 'x')", "ENOLCK"),
        ("Error reading bytes from file. Detail: [errno 5] Input/output error", "EIO"),
        ("I/O error: Stale file handle (os error 116)", "ESTALE"),
    ],
)
def test_numbers_are_read_from_messages(text, number):
    assert refused(RuntimeError(text)) == os.strerror(getattr(errno, number))


def test_the_reason_may_lie_further_back():
    error = ValueError("no header")
    error.__cause__ = error_of("ESTALE")
    assert refused(error) == os.strerror(errno.ESTALE)
    assert refused(ValueError("no header")) is None


READERS = {
    "features": (lambda path: read_features(path), h5py, "File"),
    "shard": (lambda path: list(read_shards([path])), pq, "ParquetFile"),
    "outcomes": (read_outcomes, pq, "read_table"),
    "manifest": (read_manifest, pq, "read_schema"),
    "record": (read_record, Path, "read_text"),
    "checkpoint": (read_json, Path, "read_text"),
}


@pytest.mark.parametrize("kind", READERS)
def test_no_reader_asks_to_delete_what_it_may_not_read(kind, tmp_path, monkeypatch):
    read, place, name = READERS[kind]
    path = tmp_path / "file"
    path.write_bytes(b"not what it should be")
    with pytest.raises(InputError) as damaged:
        read(path)
    assert "no access" not in str(damaged.value)

    def refuse(*_, **__):
        raise error_of("EIO")

    monkeypatch.setattr(place, name, refuse)
    with pytest.raises(InputError, match="That is no access") as caught:
        read(path)
    assert "do not delete it" in str(caught.value)


def test_features_are_read_while_somebody_holds_a_lock(tmp_path):
    path = write_file(tmp_path, "rad_dino", np.eye(3), ["a", "b", "c"])
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="unable to lock file"):
            h5py.File(path, "r", locking=True)
        assert len(read_features(path).ids) == 3


@contextlib.contextmanager
def small_files():
    """Limit files of this process to `LIMIT` bytes: writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NUMBERS = np.random.default_rng(0).integers(0, 256, 4 * LIMIT, np.uint8)


def hdf5(path):
    with h5py.File(path, "w", locking=False) as file:
        file["numbers"] = NUMBERS


def arrow(path):
    with pq.ParquetWriter(path, pa.schema([("a", pa.uint8())])) as writer:
        writer.write_table(pa.table({"a": NUMBERS}))


WRITERS = {
    "text": lambda path: path.write_text("x" * len(NUMBERS)),
    "numpy": lambda path: np.savez(path.open("wb"), numbers=NUMBERS),
    "torch": lambda path: torch.save({"numbers": torch.from_numpy(NUMBERS)}, path),
    "safetensors": lambda path: save_file({"numbers": torch.from_numpy(NUMBERS)}, path),
    "hdf5": hdf5,
    "arrow": arrow,
    "pandas": lambda path: pd.DataFrame({"a": NUMBERS}).to_csv(path),
    "pillow": lambda path: Image.fromarray(NUMBERS.reshape(400, -1)).save(path, "PNG"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_room_is_told_whoever_writes_and_loses_nothing(name, tmp_path):
    path = tmp_path / "folder" / "file"
    with whole_file(path) as temporary:
        temporary.write_text("what was there")
    with (
        pytest.raises(InputError, match="cannot write a file") as caught,
        small_files(),
        whole_file(path) as temporary,
    ):
        WRITERS[name](temporary)
    assert str(path) in str(caught.value)
    assert "free of" in caught.value.where
    assert "nothing was lost" in caught.value.remedy
    assert path.read_text() == "what was there"
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_no_room_for_a_folder(tmp_path):
    with (
        pytest.raises(InputError, match="would be larger than is allowed") as caught,
        small_files(),
        whole_folder(tmp_path / "step") as temporary,
    ):
        (temporary / "large").write_bytes(bytes(2 * LIMIT))
    assert f"after {LIMIT / 1024:.4g} KiB" in caught.value.where
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ENOSPC", "the disk is full"),
        ("EDQUOT", "the quota is used up"),
        ("EROFS", "the disk can only be read"),
    ],
)
def test_what_is_wrong_with_the_disk(name, told, tmp_path):
    fault = unwritable(error_of(name), tmp_path / "not" / "there" / "file")
    assert told in fault.what
    assert f"{tmp_path}/not/there/file" in fault.where


def test_a_missing_right_to_write_is_told_from_one_to_read(tmp_path, monkeypatch):
    assert unwritable(error_of("EACCES"), tmp_path / "file") is None
    monkeypatch.setattr(access.os, "access", lambda *_: False)
    assert "no right to write there" in unwritable(error_of("EACCES"), tmp_path / "file").what


@pytest.mark.parametrize("error", [ValueError("no"), error_of("ENOENT"), InputError("no")])
def test_other_faults_stay_what_they_are(error, tmp_path):
    assert unwritable(error, tmp_path / "file") is None
    with pytest.raises(type(error)), whole_file(tmp_path / "file"):
        raise error


def test_a_script_ends_with_one_clear_message(tmp_path, capsys):
    def main():
        with small_files():
            (tmp_path / "plain.json").write_text(json.dumps("x" * 2 * LIMIT))

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == 2
    assert "error: cannot write a file: the file would be larger" in capsys.readouterr().err
