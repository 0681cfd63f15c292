"""What Snakemake itself computes while jobs wait: its own default against the profile's setting.

Repeat it with `python -m tests.benchmarks.bench_scheduling` from the repository root; it takes two
minutes. 800 jobs that sleep for 5 s and read 30 files each have 80 places, once as
Snakemake would have it and once with the profile's `max-jobs-per-timespan`. It prints the seconds
of CPU that the process of Snakemake took, without those of its jobs, and the ratio of the two.
With `--small`, 20 jobs that do not sleep have 4 places.
"""

import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.measure import Result, make_parser, parse, report
from tests.cluster.profile import read_profile

SNAKEFILE = """
rule all:
    input: expand("out/{{i}}", i=range({jobs}))
rule sources:
    output: expand("in/{{k}}", k=range(30))
    shell: "touch {{output}}"
rule wait:
    input: expand("in/{{k}}", k=range(30))
    output: "out/{{i}}"
    shell: "sleep {seconds}; touch {{output}}"
"""
DEFAULT = "100/1s"
PROFILE = Path("profiles/slurm_h200/config.yaml")


def main(argv: list[str] | None = None) -> None:
    """Run the jobs both ways and print what Snakemake took."""
    parser = make_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=800)
    parser.add_argument("--places", type=int, default=80, help="jobs that run at a time")
    parser.add_argument("--seconds", type=int, default=5, help="that each job sleeps")
    args = parse(parser, argv, jobs=20, places=4, seconds=0)
    snakefile = SNAKEFILE.format(jobs=args.jobs, seconds=args.seconds)
    ours = read_profile(PROFILE)["max-jobs-per-timespan"]
    seconds = {setting: cpu_seconds(snakefile, args.places, setting) for setting in (DEFAULT, ours)}
    print(f"ratio: {seconds[DEFAULT] / seconds[ours]:.1f}")
    compared = f"CPU of Snakemake, {args.jobs} jobs of {args.seconds} s in {args.places} places: "
    compared += f"max-jobs-per-timespan {ours}; its default, {DEFAULT}"
    peer = f"snakemake {version('snakemake')}"
    report(Result("scheduling", compared, seconds[ours], seconds[DEFAULT], peer))


def cpu_seconds(snakefile: str, places: int, setting: str) -> float:
    """Run the jobs and return the seconds of CPU of Snakemake's own process."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(snakefile)
        command = [sys.executable, "-m", "snakemake", "--cores", str(places), "--quiet", "all"]
        command += ["--max-jobs-per-timespan", setting]
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder)
        ticks = 0
        while process.poll() is None:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks = max(ticks, int(fields[11]) + int(fields[12]))
            time.sleep(0.1)
        if process.returncode:
            sys.exit(f"snakemake ended with exit code {process.returncode}")
    print(
        f"{setting}: {ticks / 100:.1f} s of CPU in {time.perf_counter() - start:.0f} s", flush=True
    )
    return ticks / 100


if __name__ == "__main__":
    main()
