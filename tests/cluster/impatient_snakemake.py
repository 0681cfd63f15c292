"""Snakemake that asks a small cluster for the states of its jobs every three seconds.

The executor waits ten seconds longer after each look in which no job has ended, up to three
minutes. That spares a cluster of thousands; on the tests' cluster it is most of what a run waits.
What the looks do with their answers stays the executor's own.

python tests/cluster/impatient_snakemake.py ARGUMENTS_OF_SNAKEMAKE
"""

import sys
from pathlib import Path

# The folder of this file holds a module `profile`, which would stand for the standard library's.
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]

from snakemake.cli import main  # noqa: E402
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor  # noqa: E402

SECONDS = 3


def _seconds(_executor: RemoteExecutor) -> int:
    return SECONDS


def _leave(_executor: RemoteExecutor, _wanted: float) -> None:
    """Keep the interval, whatever the executor wants it to be."""


if __name__ == "__main__":
    RemoteExecutor.next_seconds_between_status_checks = property(_seconds, _leave)  # type: ignore
    sys.argv[0] = "snakemake"
    sys.exit(main())
