"""How a test stops a job halfway: SIGKILL in a process of its own, or an interrupt in this one.

A process of its own costs seconds of imports, so that most tests of the fast tier interrupt.
"""

import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

import pytest

STOPS = ["interrupted", pytest.param("killed", marks=pytest.mark.full)]


def stop(how, written, run, command, **options):
    """Stop a job as soon as `written()`: `run()` by an interrupt, or `command` by SIGKILL.

    Args:
        how: of STOPS.
        written: whether the job has put what is awaited into place.
        run: the job in this process.
        command: the same job in a process of its own.
        options: of that process.
    """
    if how == "killed":
        kill(written, command, **options)
    else:
        interrupt(written, run)


def kill(written, command, **options):
    """Start a process and kill it as soon as `written()`, at whatever it is doing then."""
    words = [str(word) for word in command]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, **options) as process:
        while not written():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def interrupt(written, run):
    """Run a job and interrupt it behind the file or folder with which `written()` becomes true."""

    def then_stop(place):
        def placed(path, target):
            found = place(path, target)
            if written():
                raise KeyboardInterrupt
            return found

        return placed

    with (
        mock.patch.object(Path, "replace", then_stop(Path.replace)),
        mock.patch.object(Path, "rename", then_stop(Path.rename)),
        pytest.raises(KeyboardInterrupt),
    ):
        run()
