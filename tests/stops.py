"""Ways to stop a job halfway: SIGKILL to a subprocess, or an interrupt in this process.

A subprocess spends seconds on imports, so the fast tier mostly interrupts.
"""

import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

import pytest

STOPS = ["interrupted", pytest.param("killed", marks=pytest.mark.full)]


def stop(how, written, run, command, **options):
    """Stop a job as soon as `written()` is true.

    Args:
        how: One of STOPS: `interrupted` calls `run` and raises KeyboardInterrupt in it, `killed`
            runs `command` and sends it SIGKILL.
        written: Returns whether the awaited file or folder is in place.
        run: The job as a function, for this process.
        command: The same job as a command, for a subprocess.
        options: Keyword arguments of `subprocess.Popen`.
    """
    if how == "killed":
        kill(written, command, **options)
    else:
        interrupt(written, run)


def kill(written, command, **options):
    """Start a subprocess and send it SIGKILL as soon as `written()` is true."""
    words = [str(word) for word in command]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, **options) as process:
        while not written():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def interrupt(written, run):
    """Run a job and interrupt it right after the rename that makes `written()` true."""

    def then_stop(place):
        def placed(path, target):
            moved = place(path, target)
            if written():
                raise KeyboardInterrupt
            return moved

        return placed

    with (
        mock.patch.object(Path, "replace", then_stop(Path.replace)),
        mock.patch.object(Path, "rename", then_stop(Path.rename)),
        pytest.raises(KeyboardInterrupt),
    ):
        run()
