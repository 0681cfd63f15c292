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
    (tmp_path / ".pipeline.1.tmp").mkdir()
    (tmp_path / ".pipeline.1.tmp" / "half").write_text("x")
    (tmp_path / ".curve.csv.1.tmp").write_text("half")
    (tmp_path / ".curve.csv.gz.1.tmp").write_text("another output's")
    with whole_folder(tmp_path / "pipeline") as temporary:
        (temporary / "config.json").write_text("new")
    write_text(tmp_path / "curve.csv", "new")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".curve.csv.gz.1.tmp", "curve.csv", "pipeline"]


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
