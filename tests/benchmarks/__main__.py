"""Run the benchmarks, each in a process of its own, and write what they measure as one CSV.

    python -m tests.benchmarks                           # all, at full size
    python -m tests.benchmarks --small                   # only whether they run
    python -m tests.benchmarks closest fidelity --out closest.csv

One that fails does not keep the others from running; the exit code is 1 in the end. The CSV is
whole after each benchmark. What the benchmarks need beyond the tests' environment stands in
envs/bench.txt.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import Result, read_results
from workflow_scripts.common.files import whole_file

ROOT: Final = Path(__file__).resolve().parents[2]
COLUMNS: Final = (
    "benchmark",
    "name",
    "ratio",
    "ours_s",
    "theirs_s",
    "compared",
    "small",
    "date",
    "python",
    "torch",
    "numpy",
    "peer",
    "processor",
    "cores",
)


def main(argv: list[str] | None = None) -> None:
    """Run what is named, and exit with code 1 where one has failed."""
    names = find_benchmarks()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"which, of {', '.join(names)}; all where none")
    parser.add_argument("--small", action="store_true", help="only whether they run")
    parser.add_argument("--out", type=Path, default=Path("bench.csv"), help="the CSV to write")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.names) - set(names)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names)}")
    if failed := run_all(args.names or names, args.small, args.out):
        sys.exit(f"error: failed: {', '.join(failed)}")


def find_benchmarks() -> list[str]:
    """Return the names of the benchmarks, sorted: `closest` for bench_closest.py."""
    files = Path(__file__).parent.glob("bench_*.py")
    return sorted(path.stem.removeprefix("bench_") for path in files)


def run_all(names: Iterable[str], small: bool, out: Path) -> list[str]:
    """Run benchmarks one after the other, write what they measure, and return which failed.

    Args:
        names: as `find_benchmarks` returns them.
        small: give them `--small`.
        out: the CSV; one row for each pair of times.
    """
    names, rows, failed = list(names), [], []
    constant = circumstances() | {"small": "yes" if small else "no"}
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}", file=sys.stderr, flush=True)
        code, output = run_one(command_of(name, small))
        try:
            results = read_results(output)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            results, code = [], code or 1
        rows += [{"benchmark": name} | row_of(result) | constant for result in results]
        if code:
            failed.append(name)
            print(f"{name}: failed with exit code {code}", file=sys.stderr, flush=True)
        with whole_file(out) as temporary, Path(temporary).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return failed


def command_of(name: str, small: bool) -> list[str]:
    """Return the command that runs a benchmark."""
    flags = ["--small"] if small else []
    return [sys.executable, "-m", f"tests.benchmarks.bench_{name}", *flags]


def run_one(command: list[str]) -> tuple[int, str]:
    """Run a command from the repository's root, show what it prints, return exit code and that."""
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def row_of(result: Result) -> dict[str, str]:
    """Return what a result adds to its row; numbers with four digits."""
    numbers = {"ratio": result.ratio, "ours_s": result.ours_s, "theirs_s": result.theirs_s}
    row = {name: f"{number:.4g}" for name, number in numbers.items()}
    return row | {"name": result.name, "compared": result.compared, "peer": result.peer}


def circumstances() -> dict[str, str]:
    """Return what all rows have in common: the date, versions, the processor and its cores."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),  # those that this process may use
    }


def processor() -> str:
    """Return the processor's model (Linux), or what Python calls it where that is not said."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


if __name__ == "__main__":
    main()
