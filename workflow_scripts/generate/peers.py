"""The processes of one sampling job, one for each GPU.

The job's first process (or `torchrun`) starts the others, and gives each its rank in the
environment. Through gloo they exchange the name of a folder, and wait for one another at the end.
They exchange no images, because each writes its batches to the common folder. If one process fails,
or the first one is killed, all end.
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from workflow_scripts.common.errors import InputError
from workflow_scripts.generate.lifeline import environment as lifeline_of
from workflow_scripts.generate.lifeline import lifeline

log = logging.getLogger(__name__)

T = TypeVar("T")

_NAMES: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_LONGEST: Final = timedelta(days=14)
"""Longest wait of one process for another; the job's own time limit is shorter."""

_POLL_S: Final = 0.2

STORE: Final = "CHEXGENBENCH_PEERS"
"""The environment variable with the address of the processes' common store."""


@dataclass(frozen=True)
class Peers:
    """This process among the processes of its job, all of which are on one node.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        local: number of its GPU.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """Whether this process joins the results of all."""
        return self.rank == 0

    def share(self, work: Sequence[T]) -> list[T]:
        """Return this process's part of the work: every n-th piece, for equal progress."""
        return list(work[self.rank :: self.count])

    def told(self, value: Any) -> Any:
        """Return the main process's value in all processes."""
        if self.count == 1:
            return value
        from torch.distributed import broadcast_object_list

        box = [value]
        broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            from torch.distributed import barrier

            barrier()


def peers_of(environment: Mapping[str, str], gpus: int) -> Peers:
    """Return this process's place among the processes of its job.

    Args:
        environment: the process's environment; without RANK and WORLD_SIZE it is alone.
        gpus: number of GPUs of the job, over all processes; 0 for the CPU.

    Raises:
        InputError: the number of processes differs from the number of GPUs.
    """
    if is_peer(environment):
        rank, count, local = (int(environment[name]) for name in _NAMES)
        peers = Peers(rank, count, local)
    else:
        peers = Peers()
    if gpus and peers.count != gpus:
        raise InputError(
            f"{gpus} GPUs were given to {peers.count} process(es)",
            "--gpus",
            f"start with `torchrun --nproc-per-node {gpus} -m ...`",
        )
    return peers


def is_peer(environment: Mapping[str, str]) -> bool:
    """Return whether the environment gives a process its rank in a job."""
    return all(environment.get(name, "").isdecimal() for name in _NAMES)


def run_in_peers(module: str, arguments: Sequence[str], count: int) -> int:
    """Run a module in several processes on this node; return the first exit code that is not 0.

    Args:
        module: the module, as for `python -m`.
        arguments: its arguments.
        count: number of processes.
    """
    command = [sys.executable, "-m", module, *arguments]
    # They rendezvous through a file, because a port that is free now may belong to another job a
    # moment later. All are on this node, so they use the loopback interface.
    with tempfile.TemporaryDirectory() as folder, lifeline() as (child, _):
        shared = {
            STORE: f"file://{folder}/store",
            "GLOO_SOCKET_IFNAME": "lo",
            "WORLD_SIZE": str(count),
        }
        running = [
            subprocess.Popen(
                command,
                env=os.environ
                | shared
                | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                | lifeline_of(child),
                pass_fds=(child,),
            )
            for rank in range(count)
        ]
        try:
            while True:
                codes = [process.poll() for process in running]
                if failed := [(rank, code) for rank, code in enumerate(codes) if code]:
                    rank, code = failed[0]
                    if code < 0:
                        log.error(
                            "process %d of %d was killed by signal %d; where it was 9, ask for "
                            "more memory (mem_mb of the rule): each process loads the model",
                            rank + 1,
                            count,
                            -code,
                        )
                    return code
                if None not in codes:
                    return 0
                time.sleep(_POLL_S)
        finally:
            for process in running:
                process.kill()
                process.wait()


@contextmanager
def together(peers: Peers) -> Iterator[None]:
    """Connect the processes of a job within this context."""
    if peers.count == 1:
        yield
        return
    from torch import distributed

    distributed.init_process_group(
        "gloo",
        init_method=os.environ.get(STORE),
        rank=peers.rank,
        world_size=peers.count,
        timeout=_LONGEST,
    )
    yield
    # After a failure this is left out: the starting process ends the others, which may be waiting.
    distributed.destroy_process_group()
