"""Digests of what files hold: read once, and again when a file may have changed."""

import hashlib
import os
import shutil

import pytest

from workflow_scripts.common import contents
from workflow_scripts.common.contents import Contents


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "data" / "table.csv"
    path.parent.mkdir()
    path.write_bytes(b"a,b\n1,2\n")
    return path


def of(data):
    return [f"table.csv {hashlib.sha256(data).hexdigest()}"]


def test_a_touched_and_a_copied_file_say_the_same(table, tmp_path):
    found = Contents(tmp_path / "known.json").digests([table])
    assert found == of(b"a,b\n1,2\n")
    os.utime(table)
    assert Contents(tmp_path / "known.json").digests([table]) == found
    (tmp_path / "copy").mkdir()
    copy = shutil.copyfile(table, tmp_path / "copy" / "table.csv")
    assert Contents(tmp_path / "known.json").digests([copy]) == found


def test_another_content_of_the_same_size_and_time_says_another(table, tmp_path):
    Contents(tmp_path / "known.json").digests([table])
    times = table.stat()
    table.write_bytes(b"a,b\n1,3\n")
    os.utime(table, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Contents(tmp_path / "known.json").digests([table]) == of(b"a,b\n1,3\n")


def test_what_is_known_is_not_read_again(table, tmp_path, monkeypatch):
    found = Contents(tmp_path / "known.json").digests([table])
    monkeypatch.setattr(contents, "sha256_of", None)
    assert Contents(tmp_path / "known.json").digests([table]) == found


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', "3"])
def test_a_damaged_memory_is_forgotten(table, tmp_path, text):
    (tmp_path / "known.json").write_text(text)
    assert Contents(tmp_path / "known.json").digests([table]) == of(b"a,b\n1,2\n")
