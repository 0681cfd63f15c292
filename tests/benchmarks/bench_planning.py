"""How long Snakemake plans the paper: eleven systems, four controls, over a stub file tree.

Repeat it with `python -m tests.benchmarks.bench_planning` from the repository root. It ends with
exit code 1 when the median of three plans takes 10 s or more.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.workflow.checkouts import make_checkout, run
from tests.workflow.stubs import make_stub_sources


def main() -> None:
    """Plan three times; print the number of jobs and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = make_stub_sources(make_checkout(Path(folder)))
        command = ["snakemake", "--dry-run", "--quiet", "rules"]
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            output = run(command, checkout).stdout
            seconds.append(time.perf_counter() - start)
    total = next(line for line in output.split("\n") if line.startswith("total"))
    median = statistics.median(seconds)
    print(f"{total.split()[1]} jobs planned in {median:.1f} s (median of 3)")
    sys.exit(median >= 10)


if __name__ == "__main__":
    main()
