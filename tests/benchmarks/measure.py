"""What the benchmarks share: their flags, clocks, memory, and the line that says what was measured.

Beside its text a benchmark prints one line for each pair of times:

    RESULT {"name": ..., "ratio": ..., "ours_s": ..., "theirs_s": ..., "compared": ..., "peer": ...}

which `python -m tests.benchmarks` reads.
"""

import argparse
import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")
MARK: Final = "RESULT "


@dataclass(frozen=True)
class Result:
    """Two times, and what took them.

    Args:
        name: of the pair, unique within its benchmark.
        compared: what was timed on either side, with its size; "ours, ... ; theirs, ...".
        ours_s: seconds of this project's way; where sizes are compared, of the larger one.
        theirs_s: seconds of the other way; where sizes are compared, of the smaller one.
        peer: the other way's package and version, where it is a package.

    Raises:
        ValueError: a time is not a positive number.
    """

    name: str
    compared: str
    ours_s: float
    theirs_s: float
    peer: str = ""

    def __post_init__(self) -> None:
        for seconds in (self.ours_s, self.theirs_s):
            if not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{self.name}: {seconds} s is no time")

    @property
    def ratio(self) -> float:
        """Their time by ours: above 1 where ours is faster."""
        return self.theirs_s / self.ours_s


def report(result: Result) -> None:
    """Print a result's line."""
    fields = {
        "name": result.name,
        "ratio": result.ratio,
        "ours_s": float(result.ours_s),
        "theirs_s": float(result.theirs_s),
        "compared": result.compared,
        "peer": result.peer,
    }
    print(f"{MARK}{json.dumps(fields)}", flush=True)


def read_results(output: str) -> list[Result]:
    """Return the results that a benchmark has printed.

    Raises:
        ValueError: there is none, a line is not as `report` prints it, or a name is repeated.
    """
    results: list[Result] = []
    for line in output.splitlines():
        if not line.startswith(MARK):
            continue
        fields = json.loads(line.removeprefix(MARK))
        ratio = fields.pop("ratio", None)
        try:
            result = Result(**fields)
        except TypeError as error:
            raise ValueError(f"{error}: {line}") from None
        if ratio != result.ratio:
            raise ValueError(f"the ratio is not that of the times: {line}")
        if result.name in {other.name for other in results}:
            raise ValueError(f"{result.name} stands twice")
        results.append(result)
    if not results:
        raise ValueError("no line of a result")
    return results


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--small`, described by a docstring's first line."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument(
        "--small", action="store_true", help="only whether it runs: sizes that take seconds"
    )
    return parser


def parse(
    parser: argparse.ArgumentParser, argv: list[str] | None, **small: object
) -> argparse.Namespace:
    """Parse flags; with `--small`, those that are not given are as `small` says."""
    if parser.parse_known_args(argv)[0].small:
        parser.set_defaults(**small)
    return parser.parse_args(argv)


def timed(work: Callable[[], T], device: str = "cpu") -> tuple[T, float]:
    """Return what the work returns and the seconds it took; a GPU's work is waited for."""
    wait = _synchronize if device.startswith("cuda") else lambda: None
    wait()
    start = time.perf_counter()
    found = work()
    wait()
    return found, time.perf_counter() - start


def in_turn(
    works: Mapping[str, Callable[[int], Any]],
    repeats: int,
    *,
    warm_up: int = 0,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """Time several ways to work, one after the other and so again, as the machine's speed changes.

    Args:
        works: by name; each is given the number of the repeat, from 0.
        repeats: how many of each are timed.
        warm_up: how many come before that.
        device: that the work is for; a GPU's is waited for.

    Returns:
        The seconds of each, by name, (repeats).
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(warm_up + repeats):
        for name, work in works.items():
            _, took = timed(functools.partial(work, repeat), device)
            if repeat >= warm_up:
                seconds[name].append(took)
    return seconds


class PeakMemory:
    """The most memory that this process had, beyond what it had on entering (Linux).

    `mib` is there after leaving.
    """

    def __enter__(self) -> "PeakMemory":
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        self._before = _kib("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        self.mib = (_kib("VmHWM") - self._before) / 1024


def _synchronize() -> None:
    import torch  # not every benchmark needs it

    torch.cuda.synchronize()


def _kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])
