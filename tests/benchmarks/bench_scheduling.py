"""What Snakemake itself computes while jobs wait: its own default against the profile's setting.

Repeat it with `python -m tests.benchmarks.bench_scheduling` from the repository root; it takes two
minutes. 800 jobs that sleep for 5 s and read 30 files each have 80 places, once as
Snakemake would have it and once with the profile's `max-jobs-per-timespan`. It prints the seconds
of CPU that the process of Snakemake took, without those of its jobs, and the ratio of the two.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.profile import read_profile

SNAKEFILE = """
rule all:
    input: expand("out/{i}", i=range(800))
rule sources:
    output: expand("in/{k}", k=range(30))
    shell: "touch {output}"
rule wait:
    input: expand("in/{k}", k=range(30))
    output: "out/{i}"
    shell: "sleep 5; touch {output}"
"""
DEFAULT = "100/1s"
PROFILE = Path("profiles/slurm_h200/config.yaml")


def main() -> None:
    """Run the jobs both ways and print what Snakemake took."""
    ours = read_profile(PROFILE)["max-jobs-per-timespan"]
    seconds = {setting: cpu_seconds(setting) for setting in (DEFAULT, ours)}
    print(f"ratio: {seconds[DEFAULT] / seconds[ours]:.1f}")


def cpu_seconds(setting: str) -> float:
    """Run the jobs and return the seconds of CPU of Snakemake's own process."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(SNAKEFILE)
        command = [sys.executable, "-m", "snakemake", "--cores", "80", "--quiet", "all"]
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
