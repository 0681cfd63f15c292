"""Progress of long work in the log: how far, how fast, and the time left."""

import logging
import time

log = logging.getLogger(__name__)


class Progress:
    """Log `done/total unit, rate, time left` every few seconds and once at the end.

    Args:
        label: the name of the work in the log.
        total: number of units.
        unit: the name of a unit, plural.
        done: units finished by an earlier, interrupted run; they count as done, not for the rate.
        every_s: seconds between two lines.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0, every_s: float = 10.0):
        self.label, self.total, self.unit, self.every_s = label, total, unit, every_s
        self.done = self.first = done
        self.start = self.last = time.monotonic()
        if done:
            log.info("%s: continuing at %d of %d %s", label, done, total, unit)

    def update(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` (a loss, say) stands at the end of the line."""
        self.done += n
        now = time.monotonic()
        if now - self.last >= self.every_s or self.done >= self.total:
            self.last = now
            rate = (self.done - self.first) / max(now - self.start, 1e-9)
            left = (self.total - self.done) / rate if rate > 0 else float("nan")
            log.info(
                "%s: %d/%d %s, %.2f/s, %s left%s",
                self.label,
                self.done,
                self.total,
                self.unit,
                rate,
                _duration(left),
                f", {note}" if note else "",
            )


def _duration(seconds: float) -> str:
    if seconds != seconds:
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
