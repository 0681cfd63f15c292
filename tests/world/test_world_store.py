"""The cache of the embedded world: made once per digest of its sources, and linked."""

import os
import threading
import time

import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.world import store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(store.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


def maker(made, text="x"):
    def make(path):
        made.append(path.name)
        path.mkdir()
        (path / "file").write_text(text)

    return make


def test_what_is_there_is_not_made_again_and_another_key_is(cache):
    made = []
    for key in ("one", "one", "two", "one"):
        assert (store.stored("kind", key, maker(made)) / "file").read_text() == "x"
    assert made == ["one", "two"]
    assert {path.name for path in (cache / "kind").iterdir() if path.is_dir()} == {"one", "two"}


def test_two_that_want_the_same_at_once_make_it_once():
    made = []

    def slowly(path):
        time.sleep(0.2)
        maker(made)(path)

    threads = [
        threading.Thread(target=store.stored, args=("kind", "one", slowly)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["one"]


def test_a_failed_attempt_leaves_nothing_that_passes_for_whole():
    def fail(path):
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.stored("kind", "one", fail)
    made = []
    store.stored("kind", "one", maker(made))
    assert made == ["one"]


def test_the_least_used_go_and_what_is_being_built_stays(cache):
    building = cache / "kind/.five.123.tmp"
    building.mkdir(parents=True)
    os.utime(building, (1, 1))
    for age, key in enumerate(("one", "two", "three")):
        os.utime(store.stored("kind", key, maker([])), (100 + age, 100 + age))
    store.stored("kind", "one", maker([]))  # used again, so now the newest
    store.stored("kind", "four", maker([]))
    left = {path.name for path in (cache / "kind").iterdir() if path.is_dir()}
    assert left == {"one", "three", "four", building.name}


def test_a_link_is_replaced_and_a_folder_is_not(tmp_path):
    targets = [store.stored("kind", key, maker([], key)) for key in ("one", "two")]
    name = tmp_path / "results/world"
    for target in targets:
        store.link(target, name)
        assert (name / "file").read_text() == target.name
    name.unlink()
    name.mkdir()
    (name / "mine").touch()
    with pytest.raises(InputError, match="where a link to the cache belongs"):
        store.link(targets[0], name)
    assert (name / "mine").exists()


def test_the_key_follows_code_locks_and_what_is_given(tmp_path, monkeypatch):
    module = tmp_path / "workflow_scripts/stage/script.py"
    module.parent.mkdir(parents=True)
    (tmp_path / "envs").mkdir()
    for name in ("workflow_scripts/__init__.py", "workflow_scripts/stage/__init__.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(store, "ROOT", tmp_path)
    contents = {module: "X = 1\n"} | {tmp_path / name: "numpy==1\n" for name in store.LOCKS}

    def key(*further, **changed):
        for path, text in contents.items():
            path.write_text(changed.get(path.stem.partition(".")[0], text))
        return store.digest_of_code("stage.script", further=further)

    same = key()
    assert key(script="X = 1  # one\n") == key(core="# a comment\nnumpy==1\n") == same
    others = [key(script="X = 2\n"), key(core="numpy==2\n"), key(cpu="torch==3\n"), key("more")]
    assert len({same, *others}) == 5
