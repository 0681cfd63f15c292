"""When a training job has to stop before its time limit would kill it."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

log = logging.getLogger(__name__)

_LEAST_MARGIN_S: Final = 60.0
_SAFETY: Final = 3.0


class TimeLimit:
    """The end of a job's time, and the margin before it in which the last checkpoint is written.

    The margin is three times the longest step and the last checkpoint's writing, both as measured
    in this job, at least a minute, and at most half of the limit.

    Args:
        minutes: how long the job may run; None for as long as it takes.
        started: when it began, in seconds since the epoch; now by default. If SLURM gives the
            job's end (SLURM_JOB_END_TIME), that counts instead; an end before the start is
            left over from an earlier job.
    """

    def __init__(self, minutes: float | None, started: float | None = None):
        self.limited = minutes is not None
        self._limit_s = float("inf") if minutes is None else 60 * minutes
        self._last = time.time()
        began = self._last if started is None else started
        self._end = began + self._limit_s
        slurm = os.environ.get("SLURM_JOB_END_TIME", "")
        if self.limited and slurm.isdecimal():
            if float(slurm) > began:
                self._end = float(slurm)
            else:
                log.warning("SLURM_JOB_END_TIME belongs to a job that has ended; it is ignored")
        self._longest_step_s = 0.0
        self._write_s = 0.0

    @property
    def margin_s(self) -> float:
        """The seconds before the end in which no further step is begun."""
        measured = _SAFETY * (self._longest_step_s + self._write_s)
        return min(max(_LEAST_MARGIN_S, measured), self._limit_s / 2)

    def is_near(self) -> bool:
        """Return whether the margin has begun."""
        return time.time() >= self._end - self.margin_s

    def step_done(self) -> None:
        """Note that a step has been done since the last step or checkpoint."""
        now = time.time()
        self._longest_step_s = max(self._longest_step_s, now - self._last)
        self._last = now

    def start(self) -> None:
        """Note that steps of another kind begin: earlier durations no longer count."""
        self._last, self._longest_step_s = time.time(), 0.0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure the writing of a checkpoint."""
        before = time.time()
        yield
        self._last = time.time()
        self._write_s = self._last - before
