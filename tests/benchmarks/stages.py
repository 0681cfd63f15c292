"""What a finished run's jobs took, by stage, from the last lines of their logs.

python -m tests.benchmarks.stages [checkout]
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

TOOK = re.compile(r"took ([\d.]+) s, ([\d.]+) s of CPU")


def took_by_stage(logs: Path) -> dict[str, tuple[int, float, float]]:
    """Return jobs, seconds and CPU seconds of each stage; a job that ran anew counts once.

    Args:
        logs: a folder of logs, one folder a stage.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in sorted(logs.rglob("*.log")):
        said = TOOK.findall(path.read_text(encoding="utf-8", errors="replace"))
        if said:
            seconds, cpu = map(float, said[-1])
            found[path.relative_to(logs).parts[0]].append((seconds, cpu))
    return {
        stage: (len(jobs), sum(s for s, _ in jobs), sum(c for _, c in jobs))
        for stage, jobs in found.items()
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(), help="where it ran")
    taken = took_by_stage(parser.parse_args().checkout / "logs")
    print("| stage | jobs | seconds | of CPU |\n|---|---|---|---|")
    for stage, (jobs, seconds, cpu) in taken.items():
        print(f"| {stage} | {jobs} | {seconds:.0f} | {cpu:.0f} |")


if __name__ == "__main__":
    main()
