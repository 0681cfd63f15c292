"""Runs of Snakemake on a test cluster: start, wait for, interrupt and kill them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.cluster.cluster import Cluster

IMPATIENT = Path(__file__).with_name("impatient_snakemake.py")
CONFIG = ("config.yaml", "profiles/demo/overlay.yaml", "tests/cluster/overlay.yaml")


@dataclass(frozen=True)
class Job:
    """A job that SLURM runs.

    Attributes:
        id: SLURM's job id.
        rule: Snakemake's rule, followed by the values of its wildcards.
        node: The node that runs it.
    """

    id: str
    rule: str
    node: str


class Run:
    """A run of Snakemake in a checkout; its output goes to a file.

    Args:
        cluster: The SLURM cluster.
        checkout: Working directory of the run.
        profile: Folder of the profile, relative to the checkout.
        targets: Files or rules; empty for all.
        flags: Further flags of Snakemake.
        config: Config files, relative to the checkout.
        environment: Variables to set, which jobs inherit.
    """

    _all: ClassVar[list["Run"]] = []

    def __init__(
        self,
        cluster: Cluster,
        checkout: Path,
        profile: Path,
        *targets: str,
        flags: Sequence[str] = (),
        config: Sequence[str] = CONFIG,
        environment: Mapping[str, str] | None = None,
    ):
        self.cluster, self.checkout = cluster, checkout
        self.output = checkout / "snakemake.out"
        self.said_before = len(self.said())
        env = cluster.environment()
        env |= environment or {}
        first = [cluster.folder / "bin", Path(sys.executable).parent]
        env["PATH"] = ":".join([*map(str, first), env["PATH"]])
        with self.output.open("a") as stream:
            self.process = subprocess.Popen(
                [
                    sys.executable, str(IMPATIENT), "--profile", str(profile), *flags,
                    *(["--configfile", *config] if config else []), "--", *targets,
                ],
                cwd=checkout, env=env, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

        self._all.append(self)

    @classmethod
    def end_all(cls) -> None:
        """Kill all runs that are still active, for example after a failed test."""
        for run in cls._all:
            if run.process.poll() is None:
                run.kill()
        cls._all.clear()

    def said(self) -> str:
        """Return the output of this and of earlier runs in the checkout."""
        return self.output.read_text() if self.output.exists() else ""

    def wait(self, seconds: float = 1200) -> int:
        """Wait for the end, within a time limit, and return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"Snakemake still runs:\n{self.said()[-6000:]}") from None

    def succeed(self, seconds: float = 1200) -> None:
        """Wait for the end and assert that the run succeeded."""
        assert self.wait(seconds) == 0, self.said()[self.said_before :][-8000:]

    def interrupt(self) -> None:
        """Send the signal of Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill Snakemake and its subprocesses outside SLURM."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def job(self, rule: str, seconds: float = 600) -> Job:
        """Wait until a job of the rule runs, and return it."""
        found: list[Job] = []

        def running() -> bool:
            found[:] = [job for job in jobs(self.cluster) if job.rule.startswith(f"rule_{rule}")]
            return bool(found)

        self.until(running, seconds, f"a job of {rule}")
        return found[0]

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for a condition while Snakemake runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            over = self.process.poll() is not None
            if over or time.monotonic() > deadline:
                said = self.said()[self.said_before :][-6000:]
                raise AssertionError(f"in vain waited for {what}:\n{said}")
            time.sleep(0.3)


def jobs(cluster: Cluster, states: str = "R") -> list[Job]:
    """Return the jobs in the given states, as squeue lists them."""
    lines = cluster.run(["squeue", "-h", "-t", states, "-o", "%i|%k|%N"]).split("\n")
    return [Job(*line.split("|")) for line in lines if line]


def accounted(cluster: Cluster, fields: str, ids: list[str] | None = None) -> list[list[str]]:
    """Return one row of sacct for each run of each job, requeued ones included."""
    time.sleep(2)  # slurmctld reports to slurmdbd with a delay
    chosen = ["-j", ",".join(ids)] if ids else []
    command = ["sacct", "-X", "-n", "-P", "--duplicates", "-S", "now-1days", *chosen, "-o", fields]
    return [line.split("|") for line in cluster.run(command).split("\n") if line]


def states_of(cluster: Cluster, folder: Path, rule: str) -> list[str]:
    """Return the states of all jobs of a rule, in order, for the job ids of the executor's logs."""
    logs = (folder / f".snakemake/slurm_logs/rule_{rule}").rglob("*.log")
    ids = sorted({path.stem for path in logs}, key=int)
    return [row[1].split()[0] for row in accounted(cluster, "JobIDRaw,State", ids)]


def megabytes(text: str) -> float:
    """Convert a size in sacct's notation to MB."""
    return float(text[:-1]) * {"K": 1 / 1024, "M": 1, "G": 1024}[text[-1]]
