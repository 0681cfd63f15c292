"""The processes of one sampling job, one for each GPU, and what they agree on.

The job's first process starts them (or `torchrun` does) and says in the environment which one each
is. They exchange a folder's name and wait for each other at the end, through gloo: no image passes
between them, for each writes its batches to the folder that all share. Where one fails, all end;
where the first one is killed, too.
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
from workflow_scripts.generate.lifeline import environment as hanging
from workflow_scripts.generate.lifeline import lifeline

log = logging.getLogger(__name__)

T = TypeVar("T")

_NAMES: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_LONGEST: Final = timedelta(days=14)
"""That one process may have to wait for another; a job's own time limit comes before."""

_POLL_S: Final = 0.2

STORE: Final = "CHEXGENBENCH_PEERS"
"""The environment variable with the address of what the processes find each other by."""


@dataclass(frozen=True)
class Peers:
    """Which of a job's processes this one is.

    Attributes:
        rank: from 0, over all processes; they are on one node.
        count: how many there are.
        local: the number of its GPU.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """Whether this process puts together what all have made."""
        return self.rank == 0

    def share(self, work: Sequence[T]) -> list[T]:
        """Return this process's part of some work: every n-th piece, so that all are done alike."""
        return list(work[self.rank :: self.count])

    def told(self, value: Any) -> Any:
        """Return what the main process gives, in all processes."""
        if self.count == 1:
            return value
        from torch.distributed import broadcast_object_list

        box = [value]
        broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            from torch.distributed import barrier

            barrier()


def peers_of(environment: Mapping[str, str], gpus: int) -> Peers:
    """Return which of a job's processes this one is.

    Args:
        environment: of the process; without RANK and WORLD_SIZE it is alone.
        gpus: how many GPUs the job was given, over all processes; 0 for the CPU.

    Raises:
        InputError: there are not as many processes as GPUs.
    """
    if is_peer(environment):
        rank, count, local = (int(environment[name]) for name in _NAMES)
        found = Peers(rank, count, local)
    else:
        found = Peers()
    if gpus and found.count != gpus:
        raise InputError(
            f"{gpus} GPUs were given to {found.count} process(es)",
            "--gpus",
            f"start with `torchrun --nproc-per-node {gpus} -m ...`",
        )
    return found


def is_peer(environment: Mapping[str, str]) -> bool:
    """Return whether a process was told which of a job's processes it is."""
    return all(environment.get(name, "").isdecimal() for name in _NAMES)


def run_in_peers(module: str, arguments: Sequence[str], count: int) -> int:
    """Run a module in several processes on this node; return the first exit code that is not 0.

    Args:
        module: as `python -m` takes it.
        arguments: of each.
        count: how many processes.
    """
    command = [sys.executable, "-m", module, *arguments]
    # They find each other by a file of their own: a port that was free a moment ago may be another
    # job's by now. All are on this node, whatever its host name resolves to.
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
                | hanging(child),
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
    """Within it, the processes of a job can speak to each other."""
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
    # Not where this process failed: whoever started it ends the others, which may be waiting.
    distributed.destroy_process_group()
