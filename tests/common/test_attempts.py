"""Attempts at one job: one of them goes on whichever are alive, and no complete file is lost."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.common import attempts
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file, whole_folder


def save(attempt, text, name="state"):
    """Write a file as scripts do within an attempt."""
    with (
        attempt.writing() as folder,
        whole_file(folder / name, make_parents=False) as temporary,
    ):
        temporary.write_text(text)


def test_a_newer_attempt_goes_on_with_what_was_whole(tmp_path):
    first = Attempt(tmp_path / "progress")
    save(first, "three steps")
    (first.folder / ".state.123.tmp").write_text("half")
    second = Attempt(tmp_path / "progress")
    assert second.earlier() == [first.folder]
    second.inherit()
    assert [path.name for path in second.folder.iterdir()] == ["state"]
    assert (second.folder / "state").read_text() == "three steps"
    assert list((tmp_path / "progress").iterdir()) == [second.folder]
    assert (tmp_path / "progress").stat().st_mode & 0o077 == 0
    assert second.folder.stat().st_mode & 0o077 == 0


def test_an_attempt_that_was_given_up_names_the_one_that_took_over_and_writes_nothing(tmp_path):
    first = Attempt(tmp_path)
    save(first, "1")
    second = Attempt(tmp_path)
    with pytest.raises(InputError, match=f"{second.folder.name} has taken over"):
        save(first, "2")
    assert (first.folder / "state").read_text() == "1", "the newer one has not read it yet"
    second.inherit()
    with pytest.raises(InputError, match=f"{second.folder.name} has taken over"):
        save(first, "2")
    with pytest.raises(InputError, match=f"{second.folder.name} has taken over"):
        first.check()
    assert not first.folder.exists()
    second.end()
    assert not tmp_path.exists()
    with pytest.raises(InputError, match="has been taken away"):
        save(first, "2")
    first.end()
    assert not tmp_path.exists(), "a folder that was taken away has come back"


@pytest.mark.parametrize("what", [whole_file, whole_folder])
def test_a_folder_that_is_taken_away_while_it_is_written_to_stays_away(tmp_path, what):
    first = Attempt(tmp_path)

    def write():
        with first.writing() as folder, what(folder / "state", make_parents=False) as temporary:
            Attempt(tmp_path).keep()
            (temporary / "weights" if what is whole_folder else temporary).write_text("late")

    with pytest.raises(InputError, match="has taken over"):
        write()
    assert not first.folder.exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_of_the_writer_itself_is_not_hidden(tmp_path):
    attempt = Attempt(tmp_path)
    with pytest.raises(OSError, match="disk full"), attempt.writing():
        raise OSError("disk full")
    save(attempt, "later")


def test_what_an_attempt_still_alive_overwrites_stays_as_it_was_adopted(tmp_path):
    first, second = Attempt(tmp_path), None
    save(first, "old")
    second = Attempt(tmp_path)
    adopted = second.adopt(first.folder / "state")
    with whole_file(first.folder / "state", make_parents=False) as temporary:  # past its check
        temporary.write_text("new")
    assert adopted.read_text() == "old"


def test_an_attempt_does_not_end_a_newer_one(tmp_path):
    first = Attempt(tmp_path)
    (tmp_path / "reports.json").write_text("of both")
    second = Attempt(tmp_path)
    save(second, "1")
    first.end()
    second.check()
    assert {path.name for path in tmp_path.iterdir()} == {second.folder.name, "reports.json"}
    second.end()
    assert not tmp_path.exists()


def test_the_rest_of_an_attempt_killed_while_it_removed_another_goes_too(tmp_path):
    rest = tmp_path / ".removed-0123"
    rest.mkdir(parents=True)
    (rest / "weights").touch()
    attempt = Attempt(tmp_path)
    assert attempt.earlier() == []
    save(attempt, "1")
    assert list(tmp_path.iterdir()) == [attempt.folder]


def test_links_are_not_needed(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    first = Attempt(tmp_path)
    save(first, "1")
    (first.folder / "step").mkdir()
    (first.folder / "step" / "weights").write_text("2")
    monkeypatch.setattr(os, "link", refuse)
    second = Attempt(tmp_path)
    second.inherit()
    assert (second.folder / "state").read_text() == "1"
    assert (second.folder / "step" / "weights").read_text() == "2"


def test_of_attempts_that_begin_at_the_same_moment_one_goes_on(tmp_path):
    """Threads stand for the jobs; each pauses between its check and creating its folder."""
    for number in range(20):
        barrier, ended = threading.Barrier(3), []

        def job(progress=tmp_path / str(number), barrier=barrier, ended=ended):
            barrier.wait(timeout=30)
            attempt = Attempt(progress)
            try:
                for step in range(5):
                    save(attempt, str(step))
                barrier.wait(timeout=30)
                save(attempt, "last")
                ended.append(attempt)
            except InputError:
                barrier.wait(timeout=30)

        jobs = [threading.Thread(target=job) for _ in range(3)]
        for thread in jobs:
            thread.start()
        for thread in jobs:
            thread.join()
        assert len(ended) == 1
        assert (ended[0].folder / "state").read_text() == "last"


@given(
    acts=st.lists(
        st.tuples(st.sampled_from(["begin", "save", "late save", "publish"]), st.integers(0, 9)),
        max_size=25,
    )
)
def test_whatever_the_order_the_newest_goes_on_and_nothing_whole_is_lost(acts, tmp_path_factory):
    """Jobs count steps. However many are alive, no step is counted twice or lost, and the
    published number never decreases."""
    progress, published = tmp_path_factory.mktemp("jobs") / "progress", 0
    alive: list[Attempt] = []
    saved = {}  # by attempt, the steps in its folder
    for act, which in acts:
        if act == "begin" or not alive:
            attempt = Attempt(progress)
            attempt.inherit()
            state = attempt.folder / "state"
            count = int(state.read_text()) if state.exists() else 0
            assert count == max(saved.values(), default=0)
            saved[attempt] = count
            alive.append(attempt)
            continue
        attempt = alive[which % len(alive)]
        newest = attempt is alive[-1]
        try:
            if act == "publish":
                attempt.check()
                assert saved[attempt] >= published
                published = saved[attempt]
            elif act == "save":
                save(attempt, str(saved[attempt] + 1))
                saved[attempt] += 1
            else:  # it had passed its check when its folder went
                with whole_file(attempt.folder / "state", make_parents=False) as temporary:
                    temporary.write_text(str(saved[attempt] + 1))
                saved[attempt] += 1
            assert newest
        except (InputError, FileNotFoundError):
            assert not newest
        assert [path.name for path in progress.iterdir()] == [alive[-1].folder.name]


def test_a_progress_folder_that_vanishes_at_once_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "_attempts", lambda progress: progress.rmdir() or [])
    with pytest.raises(InputError, match="vanishes again and again"):
        Attempt(tmp_path / "progress")
