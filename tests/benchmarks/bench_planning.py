"""How long Snakemake plans the paper, eleven systems and four controls, and then 100 models.

Repeat it with `python -m tests.benchmarks.bench_planning` from the repository root; the source
files are stubs. It prints the number of jobs, and ends with exit code 1 where planning the paper
takes 10 s or more, or 100 models 30 s or more. With `--small` it plans one model, and then two,
once each and without these limits.
"""

import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import yaml

from tests.benchmarks.measure import Result, make_parser, parse, report, timed
from tests.workflow.checkouts import make_checkout, run
from tests.workflow.stubs import make_stub_sources, write_overlay


def main(argv: list[str] | None = None) -> None:
    """Plan both three times; print the number of jobs and the seconds."""
    args = parse(make_parser(__doc__), argv)
    with tempfile.TemporaryDirectory() as folder:
        checkout = make_stub_sources(make_checkout(Path(folder)))
        if args.small:
            sizes, names, repeats = (1, 2), ("one model", "two models"), 1
        else:
            sizes, names, repeats = (None, 100), ("the paper", "100 models"), 3
        (fewer, less), (more, longer) = (
            measure(name, checkout, with_models(checkout, size) if size else [], repeats)
            for name, size in zip(names, sizes, strict=True)
        )
    compared = f"a dry run of {names[1]}, {more} jobs; of {names[0]}, {fewer} jobs"
    report(Result("growth", compared, longer, less, f"snakemake {version('snakemake')}"))
    if not args.small and (less >= 10 or longer >= 30):
        sys.exit("error: planning takes 10 s or more for the paper, or 30 s for 100 models")


def measure(name: str, checkout: Path, flags: list[str], repeats: int) -> tuple[int, float]:
    """Print what planning takes; return the number of jobs, and the median seconds."""
    command = ["snakemake", "--dry-run", "--quiet", "rules", *flags]
    seconds = []
    for _ in range(repeats):
        done, took = timed(lambda: run(command, checkout))
        seconds.append(took)
    output = done.stdout
    rows = (line.split() for line in output.split("total")[0].split("\n"))
    counts = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
    median = statistics.median(seconds)
    print(
        f"{name}: {sum(counts.values())} jobs, planned in {median:.1f} s (median of {repeats})",
        flush=True,
    )
    return sum(counts.values()), median


def with_models(checkout: Path, number: int) -> list[str]:
    """Leave out systems, or add copies of one, so that there are so many; return the flags."""
    config = yaml.safe_load((checkout / "config.yaml").read_text())
    names = config["run_models"][:number]
    copies = [f"copy_{number:03}" for number in range(number - len(names))]
    block = config["models"]["sd_v1_5"]
    models = {name: block | {"display": {"name": name}} for name in copies}
    return write_overlay(checkout, {"run_models": [*names, *copies], "models": models})


if __name__ == "__main__":
    main()
