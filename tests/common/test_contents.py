"""Digests of files' contents: a file is read once, and again if it may have changed."""

import hashlib
import os
import shutil

import pytest

from workflow_scripts.common import contents
from workflow_scripts.common.contents import Contents, files_of


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "data" / "table.csv"
    path.parent.mkdir()
    path.write_bytes(b"a,b\n1,2\n")
    return path


def of(data):
    return [f"table.csv {hashlib.sha256(data).hexdigest()}"]


def test_a_touched_and_a_copied_file_say_the_same(table, tmp_path):
    digests = Contents(tmp_path / "known.json").digests([table])
    assert digests == of(b"a,b\n1,2\n")
    os.utime(table)
    assert Contents(tmp_path / "known.json").digests([table]) == digests
    (tmp_path / "copy").mkdir()
    copy = shutil.copyfile(table, tmp_path / "copy" / "table.csv")
    assert Contents(tmp_path / "known.json").digests([copy]) == digests


def test_another_content_of_the_same_size_and_time_says_another(table, tmp_path):
    Contents(tmp_path / "known.json").digests([table])
    times = table.stat()
    table.write_bytes(b"a,b\n1,3\n")
    os.utime(table, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Contents(tmp_path / "known.json").digests([table]) == of(b"a,b\n1,3\n")


def test_what_is_known_is_not_read_again(table, tmp_path, monkeypatch):
    digests = Contents(tmp_path / "known.json").digests([table])
    monkeypatch.setattr(contents, "sha256_of", None)
    assert Contents(tmp_path / "known.json").digests([table]) == digests


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', "3"])
def test_a_damaged_memory_is_forgotten(table, tmp_path, text):
    (tmp_path / "known.json").write_text(text)
    assert Contents(tmp_path / "known.json").digests([table]) == of(b"a,b\n1,2\n")


def test_what_is_gone_says_what_it_said_last(table, tmp_path):
    def tell():
        return Contents(known).last("tables", lambda: Contents(known).digests([table]))

    known = tmp_path / "known.json"
    table.rename(tmp_path / "away.csv")
    assert tell() == ["missing"]
    (tmp_path / "away.csv").rename(table)
    said = tell()
    assert said == of(b"a,b\n1,2\n")
    table.unlink()
    assert tell() == said
    table.write_bytes(b"other")
    assert tell() == of(b"other")


def test_what_files_tell_is_asked_again_when_they_hold_something_else(table, tmp_path):
    asked = []

    def first_line():
        asked.append(table)
        return table.read_text().splitlines()[:1]

    def told(subject="first line"):
        return Contents(tmp_path / "known.json").once(subject, [table], first_line)

    assert (told(), told(), len(asked)) == (["a,b"], ["a,b"], 1)
    os.utime(table)
    assert (told(), len(asked)) == (["a,b"], 1)
    assert (told("another"), len(asked)) == (["a,b"], 2)
    table.write_bytes(b"c,d\n1,2\n")
    assert (told(), len(asked)) == (["c,d"], 3)
    table.unlink()
    with pytest.raises(FileNotFoundError):
        told()


def test_two_processes_keep_what_both_have_read(table, tmp_path, monkeypatch):
    second, third = table.with_name("second.csv"), table.with_name("third.csv")
    second.write_text("x")
    third.write_text("y")
    one, two = Contents(tmp_path / "known.json"), Contents(tmp_path / "known.json")
    for each in (one, two):  # both know the same
        each.digests([table])
    one.digests([second])
    two.digests([third])
    monkeypatch.setattr(contents, "sha256_of", None)
    assert len(Contents(tmp_path / "known.json").digests([table, second, third])) == 3


def test_the_files_of_a_folder_are_those_that_its_digest_is_of(tmp_path):
    for name in ("b", "a/c", ".cache/d", "a/.e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [str(file.relative_to(tmp_path)) for file in files_of(tmp_path)] == ["a/c", "b"]
    assert files_of(tmp_path / "b") == [tmp_path / "b"]
