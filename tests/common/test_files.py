import os
import subprocess
import sys

import pytest

from workflow_scripts.common.files import sha256_of, whole_file, whole_folder, write_text


def write_half(path):
    path.write_text("half")
    raise ZeroDivisionError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a" / "table.csv"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        write_half(temporary)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_a_failed_folder_leaves_the_old_folder_and_no_litter(tmp_path):
    path = tmp_path / "pipeline"
    with whole_folder(path) as temporary:
        (temporary / "config.json").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_folder(path) as temporary:
        write_half(temporary / "config.json")
    assert (path / "config.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["pipeline"]


def test_the_rest_of_a_killed_attempt_goes_with_the_next(tmp_path):
    killed = """
import os, sys
from workflow_scripts.common.files import whole_file, whole_folder
files = [whole_file(f"{sys.argv[1]}/{name}") for name in ("curve.csv", "curve.csv.gz")]
for file in files:
    file.__enter__().write_text("half")
folder = whole_folder(f"{sys.argv[1]}/pipeline")
(folder.__enter__() / "half").write_text("x")
os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)]).returncode == 1
    assert len(list(tmp_path.glob(".*.tmp"))) == 3
    with whole_folder(tmp_path / "pipeline") as temporary:
        (temporary / "config.json").write_text("new")
    write_text(tmp_path / "curve.csv", "new")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[1:] == ["curve.csv", "pipeline"]
    assert left[0].startswith(".curve.csv.gz."), "another output's"


def test_the_rest_of_another_machines_attempt_goes_once_it_is_old(tmp_path):
    rest = tmp_path / ".curve.csv.0123abcd-1-0123abcd.tmp"
    rest.write_text("half")
    write_text(tmp_path / "curve.csv", "new")
    assert rest.exists(), "its writer may be alive"
    os.utime(rest, (0, 0))
    write_text(tmp_path / "curve.csv", "new")
    assert not rest.exists()


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_two_writers_of_one_output_leave_each_other_alone(tmp_path, first_to_end):
    path = tmp_path / "out.parquet"
    writers = [whole_file(path), whole_file(path)]
    temporaries = [writer.__enter__() for writer in writers]
    for number, temporary in enumerate(temporaries):
        temporary.write_text(f"writer {number}")
    for number in (first_to_end, 1 - first_to_end):
        writers[number].__exit__(None, None, None)
        assert path.read_text() == f"writer {number}"
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


def test_a_new_folder_replaces_the_old_one_wholly(tmp_path):
    path = tmp_path / "pipeline"
    for name in ("old.json", "new.json"):
        with whole_folder(path) as temporary:
            (temporary / name).write_text("x")
    assert [p.name for p in path.iterdir()] == ["new.json"]


def test_a_folders_digest_sees_names_and_contents_but_no_download_cache(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    before = sha256_of(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "lock").write_text("3")
    assert sha256_of(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "c")
    assert sha256_of(tmp_path) != before
