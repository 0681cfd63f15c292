"""What of an earlier run's progress is continued, and what a training step refuses."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.resuming import is_of_same_run, read_unless_damaged
from workflow_scripts.common.training_step import check_finite, check_processes

PATH = Path("progress/step-1")


def test_what_is_whole_is_read():
    assert read_unless_damaged(PATH, lambda: [1, 2]) == [1, 2]


def test_what_is_damaged_is_none_and_named(caplog):
    assert read_unless_damaged(PATH, lambda: json.loads("{")) is None
    assert f"{PATH} is damaged and not continued" in caplog.text


def test_what_gives_no_access_may_be_whole_and_stops():
    def read():
        raise OSError(errno.ESTALE, "stale file handle")

    with pytest.raises(InputError, match="says nothing of what the file holds"):
        read_unless_damaged(PATH, read)


def test_a_fault_of_the_code_is_no_damage():
    with pytest.raises(NameError):
        read_unless_damaged(PATH, lambda: undefined)  # noqa: F821


@pytest.mark.parametrize(
    ("made_with", "needed", "logged"),
    [
        ({"seed": 1, "size": 8}, {"seed": 1, "size": 8}, None),
        ({"seed": 1, "size": 8}, {"seed": 2, "size": 8}, "not continued: seed 1 -> 2"),
        ({"seed": 1}, {"seed": 1, "size": 8}, "not continued: size None -> 8"),
        ({"seed": 1, "size": 8}, {"seed": 1}, "not continued: size 8 -> None"),
    ],
)
def test_other_settings_are_another_run_and_the_log_says_which(made_with, needed, logged, caplog):
    assert is_of_same_run(PATH, made_with, needed) == (logged is None)
    assert (logged or "") in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_stops_with_the_details(value):
    with pytest.raises(InputError, match=f"the loss is {value} at step 3") as caught:
        check_finite(value, "loss", "training", "lower the rate", lambda: " at step 3")
    assert (caught.value.where, caught.value.remedy) == ("training", "lower the rate")
    check_finite(0.0, "loss", "training", "lower the rate", lambda: pytest.fail("not asked for"))


@pytest.mark.parametrize(("gpus", "processes"), [(2, 1), (1, 2)])
def test_gpus_that_are_not_one_for_each_process_are_refused(gpus, processes):
    with pytest.raises(InputError, match=f"{gpus} GPUs were given to {processes} process"):
        check_processes(gpus, SimpleNamespace(num_processes=processes))
    check_processes(0, SimpleNamespace(num_processes=processes))
    check_processes(processes, SimpleNamespace(num_processes=processes))
