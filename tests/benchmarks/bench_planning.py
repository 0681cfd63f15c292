"""How long Snakemake plans the paper, eleven systems and four controls, and then 100 models.

Repeat it with `python -m tests.benchmarks.bench_planning` from the repository root; the source
files are stubs. It prints the jobs and how many SLURM gets, where those of a group share one, and
ends with exit code 1 where planning the paper takes 10 s or more, or 100 models 30 s or more.
"""

import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.cluster.profile import read_profile
from tests.workflow.checkouts import make_checkout, run
from tests.workflow.stubs import make_stub_sources, write_overlay

PROFILE = Path("profiles/slurm_h200/config.yaml")


def main() -> None:
    """Plan both three times; print the number of jobs and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = make_stub_sources(make_checkout(Path(folder)))
        paper = measure("the paper", checkout, [])
        many = measure("100 models", checkout, hundred_models(checkout))
    sys.exit(paper >= 10 or many >= 30)


def measure(name: str, checkout: Path, flags: list[str]) -> float:
    """Print what planning takes, and return its seconds: the median of three."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        output = run(["snakemake", "--dry-run", "--quiet", "rules", *flags], checkout).stdout
        seconds.append(time.perf_counter() - start)
    rows = (line.split() for line in output.split("total")[0].split("\n"))
    counts = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
    shared = read_profile(checkout / PROFILE)["group-components"]
    submitted = sum(math.ceil(n / shared.get(rule, 1)) for rule, n in counts.items())
    median = statistics.median(seconds)
    print(
        f"{name}: {sum(counts.values())} jobs, {submitted} of SLURM at least, "
        f"planned in {median:.1f} s (median of 3)",
        flush=True,
    )
    return median


def hundred_models(checkout: Path) -> list[str]:
    """Add copies of a system until there are 100 models; return the flags that use them."""
    config = yaml.safe_load((checkout / "config.yaml").read_text())
    names = config["run_models"]
    copies = [f"copy_{number:03}" for number in range(100 - len(names))]
    block = config["models"]["sd_v1_5"]
    models = {name: block | {"display": {"name": name}} for name in copies}
    return write_overlay(checkout, {"run_models": [*names, *copies], "models": models})


if __name__ == "__main__":
    main()
