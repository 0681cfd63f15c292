"""A private SLURM cluster on one machine: several nodes, three partitions, simulated GPUs.

Real daemons (munged, MariaDB, slurmdbd, slurmctld, a slurmd for each node) run as the calling user
on the loopback interface. All their files lie in one folder, so that an installed SLURM of the
machine is neither read nor changed. CPUs, memory and GPUs of the nodes are declared and need not
exist: jobs are scheduled and accounted by their requests, and compute on the CPU. The requested
memory is not enforced.
"""

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAMS: Final = (
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sbatch",
    "sacct",
)
INSTALL: Final = "apt-get install slurm-wlm slurmdbd munge mariadb-server"
_SBIN: Final = "/usr/sbin:/usr/local/sbin:/sbin"
# slurmscriptd is slurmctld's child; each step of a job has a slurmstepd, which outlives its slurmd.
_DAEMONS: Final = (
    "munged",
    "mariadbd",
    "slurmdbd",
    "slurmctld",
    "slurmscriptd",
    "slurmd",
    "slurmstepd",
)


@dataclass(frozen=True)
class Node:
    """The declared resources of a node."""

    name: str
    partition: str
    cpus: int
    memory_mb: int
    gpus: int = 0


NODES: Final = (
    Node("h200n1", "h200", 96, 1_500_000, 4),
    Node("h200n2", "h200", 96, 1_500_000, 4),
    Node("a100n1", "a100", 64, 1_000_000, 4),
    Node("cpun1", "cpu", 64, 500_000),
)


class ClusterError(Exception):
    """The cluster cannot be started, or a request to it failed."""


def missing_programs() -> list[str]:
    """Return the programs that a cluster needs and this machine lacks."""
    path = f"{os.environ.get('PATH', '')}:{_SBIN}"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


class Cluster:
    """A cluster in a folder; call `start` before and `stop` after its use.

    Args:
        folder: Folder of all files of the cluster; `stop` removes it.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()

    @property
    def conf(self) -> Path:
        """The configuration file, the value of SLURM_CONF."""
        return self.folder / "etc" / "slurm.conf"

    @property
    def running(self) -> bool:
        """Whether the cluster of this folder runs."""
        return self._state_file.exists() and _alive(self._state()["pids"].get("slurmctld", -1))

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return an environment in which SLURM's commands use this cluster.

        Snakemake's job step unsets SLURM_CONF before it calls srun: a wrapper sets it again.
        """
        env = dict(os.environ if base is None else base)
        env["SLURM_CONF"] = str(self.conf)
        env["PATH"] = f"{self.folder / 'bin'}:{env['PATH']}:{_SBIN}"
        return env

    def start(self) -> None:
        """Start everything and wait until all nodes are idle.

        Raises:
            ClusterError: a program is missing, the folder is in use, or a daemon does not start.
        """
        if missing := missing_programs():
            raise ClusterError(f"not on this machine: {', '.join(missing)}; {INSTALL}")
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ClusterError(f"{self.folder} is not empty: stop the cluster that is there first")
        for name in ("etc", "bin", "log", "state", "dev"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # The path of a socket has at most 107 characters.
        sockets = Path(tempfile.mkdtemp(prefix="cluster-"))
        sockets.chmod(0o755)  # munged refuses a folder that its clients cannot enter
        names = ("slurmctld", "slurmdbd", "mariadb", *(node.name for node in NODES))
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self._write_state({"sockets": str(sockets), "ports": ports, "pids": {}})
        try:
            self._write_configuration(sockets, ports)
            self._start_munge(sockets)
            self._start_database(sockets, ports["mariadb"])
            self._daemon("slurmdbd", ["slurmdbd", "-D"])
            self._until("slurmdbd answers", ["sacctmgr", "-n", "list", "cluster"])
            self.start_controller()
            for node in NODES:
                self.start_node(node.name)
            self.wait_for_nodes()
        except BaseException:
            self.stop(keep_logs=True)
            raise

    def stop(self, *, keep_logs: bool = False, seconds: float = 30) -> None:
        """Stop the daemons and all running jobs, and remove the folder.

        It returns when all these processes have ended. It does nothing if no cluster was started,
        and leaves the logs of one that failed to start.

        Args:
            keep_logs: Leave the logs in place.
            seconds: Time limit for processes to end after SIGKILL.

        Raises:
            ClusterError: A process does not end. The folder stays, so that `stop` can be repeated.
        """
        if not self._state_file.exists():
            return
        state = self._state()
        seen = self._processes()
        for process in self._processes_of_jobs():
            _kill(process, signal.SIGKILL)
        for name in reversed(list(state["pids"])):
            _alive(state["pids"][name])  # reaps a child that has ended
            # After a restart of the machine, the pid may belong to another process.
            if state["pids"][name] in seen:
                _end(state["pids"][name])
        # What remains: steps of jobs, and processes that daemons have started in the meantime.
        deadline = time.monotonic() + seconds
        while left := {p: n for p, n in (seen | self._processes()).items() if _alive(p)}:
            seen |= left
            for process in left:
                _kill(process, signal.SIGKILL)
            if time.monotonic() > deadline:
                names = ", ".join(f"{name} ({process})" for process, name in sorted(left.items()))
                raise ClusterError(f"not gone after SIGKILL: {names}")
            time.sleep(0.05)
        shutil.rmtree(state["sockets"], ignore_errors=True)
        self._state_file.unlink()
        if keep_logs:
            for name in ("etc", "bin", "state", "dev", "mysql", "munge", "tmp"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: list[str]) -> str:
        """Run one of SLURM's commands and return its output.

        Raises:
            ClusterError: The command failed; the message has its output.
        """
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    # Failures of a cluster.

    def start_controller(self) -> None:
        """Start slurmctld (again)."""
        self._daemon("slurmctld", ["slurmctld", "-D"])
        self._until("slurmctld answers", ["scontrol", "ping"])

    def kill_controller(self) -> None:
        """Kill slurmctld; jobs continue."""
        _end(self._state()["pids"]["slurmctld"], signal.SIGKILL)

    def start_node(self, name: str) -> None:
        """Start a node's slurmd (again)."""
        self._daemon(name, ["slurmd", "-D", "-N", name])

    def kill_node(self, name: str, *, jobs_too: bool = True) -> None:
        """Kill a node's slurmd and, unless only its network is to fail, its jobs."""
        _end(self._state()["pids"][name], signal.SIGKILL)
        if jobs_too:
            for process in self._processes_of_jobs(name):
                _kill(process, signal.SIGKILL)

    def pause_jobs(self, node: str) -> list[int]:
        """Pause the processes of a node's jobs, as a hanging filesystem does; return their pids."""
        paused = self._processes_of_jobs(node)
        paused = [pid for pid in paused if _name(pid) != "slurmstepd"]
        for pid in paused:
            _kill(pid, signal.SIGSTOP)
        return paused

    def wait_for_nodes(self, seconds: float = 300) -> None:
        """Wait until all nodes are up.

        Raises:
            ClusterError: They are not up in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            states = self.run(["sinfo", "-h", "-N", "-o", "%N %t"]).split("\n")
            down = {line for line in states if line and line.split()[1] not in _UP}
            if not down:
                return
            if time.monotonic() > deadline:
                raise ClusterError(f"nodes do not come up: {', '.join(sorted(down))}")
            time.sleep(0.5)

    # Setting up.

    def _write_configuration(self, sockets: Path, ports: Mapping[str, int]) -> None:
        etc = self.folder / "etc"
        user, host = getpass.getuser(), socket.gethostname().split(".")[0]
        nodes, gres = [], ["AutoDetect=off"]
        for node in NODES:
            has = f" Gres=gpu:{node.partition}:{node.gpus}" if node.gpus else ""
            nodes.append(
                f"NodeName={node.name} NodeHostname={host} NodeAddr=127.0.0.1"
                f" Port={ports[node.name]} CPUs={node.cpus} RealMemory={node.memory_mb}{has}"
            )
            if node.gpus:
                devices = self.folder / "dev" / f"{node.partition}_"
                gres.append(
                    f"NodeName={node.name} Name=gpu Type={node.partition}"
                    f" File={devices}[0-{node.gpus - 1}]"
                )
        for kind in {node.partition for node in NODES if node.gpus}:
            for number in range(max(node.gpus for node in NODES)):
                link = self.folder / "dev" / f"{kind}_{number}"
                link.symlink_to("/dev/null")
        self.conf.write_text(
            _SLURM_CONF.format(
                folder=self.folder,
                sockets=sockets,
                user=user,
                host=host,
                nodes="\n".join(nodes),
                **ports,
            )
        )
        (etc / "gres.conf").write_text("\n".join(gres) + "\n")
        # Nothing here uses cgroups, but slurmd makes one as it starts where it finds version 2, and
        # does not start where systemd is not there, or does not let it.
        (etc / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        slurmdbd = etc / "slurmdbd.conf"
        slurmdbd.write_text(
            _SLURMDBD_CONF.format(folder=self.folder, sockets=sockets, user=user, **ports)
        )
        slurmdbd.chmod(0o600)
        srun = self.folder / "bin" / "srun"
        real = shutil.which("srun")
        srun.write_text(f'#!/bin/sh\nSLURM_CONF="{self.conf}" exec {real} "$@"\n')
        srun.chmod(0o755)

    def _start_munge(self, sockets: Path) -> None:
        folder = self.folder / "munge"
        folder.mkdir(mode=0o700)
        key = folder / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self._daemon(
            "munged",
            [
                "munged", "--foreground", "--force", f"--key-file={key}",
                f"--socket={sockets / 'munge'}", f"--pid-file={folder / 'pid'}",
                f"--log-file={self.folder / 'log' / 'munge.log'}", f"--seed-file={folder / 'seed'}",
            ],
        )  # fmt: skip
        self._until("munged answers", ["munge", "-n", f"--socket={sockets / 'munge'}"])

    def _start_database(self, sockets: Path, port: int) -> None:
        data, temporary = self.folder / "mysql", self.folder / "tmp"
        temporary.mkdir()
        log = self.folder / "log" / "mariadb-install.log"
        # As it starts, a MariaDB removes all temporary tables in its folder for them: in a shared
        # /tmp, another cluster's too.
        shared = [f"--datadir={data}", f"--user={getpass.getuser()}", f"--tmpdir={temporary}"]
        with log.open("w") as out:
            done = subprocess.run(
                [
                    "mariadb-install-db", "--no-defaults", *shared,
                    "--auth-root-authentication-method=normal", "--skip-test-db",
                ],
                stdout=out, stderr=out, env=self.environment(),
            )  # fmt: skip
        if done.returncode:
            errors = [line for line in log.read_text().splitlines() if "ERROR" in line]
            raise ClusterError(f"mariadb-install-db failed: {'; '.join(errors)} ({log})")
        self._daemon(
            "mariadb",
            [
                "mariadbd", "--no-defaults", *shared,
                f"--socket={sockets / 'mysql'}", "--bind-address=127.0.0.1", f"--port={port}",
                f"--pid-file={data / 'pid'}", "--innodb-buffer-pool-size=64M",
                "--innodb-flush-log-at-trx-commit=0",
            ],
        )  # fmt: skip
        client = ["mariadb", "--no-defaults", "-uroot", f"--socket={sockets / 'mysql'}", "-e"]
        self._until("MariaDB answers", [*client, "select 1"])
        self.run([*client, _GRANTS])

    def _daemon(self, name: str, command: list[str]) -> None:
        """Start a daemon in the foreground of a new session, and record its pid."""
        with (self.folder / "log" / f"{name}.out").open("a") as out:
            process = subprocess.Popen(
                command,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self.folder,
            )
        state = self._state()
        state["pids"][name] = process.pid
        self._write_state(state)

    def _until(self, what: str, command: list[str], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(ClusterError):
                self.run(command)
                return
            if time.monotonic() > deadline:
                raise ClusterError(f"in vain waited until {what}: see {self.folder / 'log'}")
            time.sleep(0.2)

    @property
    def _state_file(self) -> Path:
        return self.folder / "cluster.json"

    def _state(self) -> dict:
        return json.loads(self._state_file.read_text())

    def _write_state(self, state: dict) -> None:
        temporary = self._state_file.with_suffix(".new")
        temporary.write_text(json.dumps(state, indent=1))
        temporary.replace(self._state_file)

    def _processes(self) -> dict[int, str]:
        """Return the names of this cluster's processes by pid: daemons, steps and jobs.

        A shell or a Snakemake that only uses the cluster is not among them.
        """
        return {
            process: name
            for process, name, variables in self._that_know_it()
            if name in _DAEMONS or b"SLURM_JOB_ID" in variables
        }

    def _processes_of_jobs(self, node: str | None = None) -> list[int]:
        """Return the pids of the jobs of this cluster or of one node, slurmstepds first.

        A slurmstepd that outlives its job reports the job's end to slurmctld, which a lost node
        cannot do.
        """
        steps, processes = [], []
        daemons = self._state()["pids"].values()
        for process, name, variables in self._that_know_it():
            if process in daemons:
                continue
            if name == "slurmstepd":
                with contextlib.suppress(OSError):
                    if node is None or _node_of_step(Path(f"/proc/{process}")) == node:
                        steps.append(process)
            elif b"SLURM_JOB_ID" in variables and (
                node is None or variables.get(b"SLURMD_NODENAME", b"").decode() == node
            ):
                processes.append(process)
        return steps + processes

    def _that_know_it(self) -> Iterator[tuple[int, str, dict[bytes, bytes]]]:
        """Yield pid, name and environment of processes whose SLURM_CONF is this cluster's."""
        conf = str(self.conf).encode()
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it has ended or belongs to another user
                variables = dict(
                    entry.partition(b"=")[::2]
                    for entry in (folder / "environ").read_bytes().split(b"\0")
                )
                if variables.get(b"SLURM_CONF") == conf:
                    yield int(folder.name), _name(int(folder.name)), variables


_UP: Final = ("idle", "mix", "alloc", "comp")

_SLURM_CONF: Final = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# Requeued jobs wait as long as their credentials last, two minutes where nothing is said.
AuthInfo=socket={sockets}/munge,cred_expire=30
SlurmctldPort={slurmctld}
SlurmctldPidFile={folder}/state/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
StateSaveLocation={folder}/state/slurmctld
SlurmdPidFile={folder}/state/slurmd-%n.pid
SlurmdSpoolDir={folder}/state/slurmd-%n
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd}
AccountingStoragePass={sockets}/munge
AccountingStorageTRES=gres/gpu,gres/gpu:h200,gres/gpu:a100
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldTimeout=30
SlurmdTimeout=20
InactiveLimit=0
KillWait=5
MinJobAge=300
MessageTimeout=20
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes=cpun1 Default=YES MaxTime=7-0 State=UP
PartitionName=h200 Nodes=h200n[1-2] MaxTime=2-0 State=UP PriorityTier=1
PartitionName=a100 Nodes=a100n1 MaxTime=2-0 State=UP
# Its jobs send those of h200 back to the queue where they need the nodes.
PartitionName=urgent Nodes=h200n[1-2] MaxTime=2-0 State=UP PriorityTier=9 PreemptMode=OFF
"""

_SLURMDBD_CONF: Final = """\
AuthType=auth/munge
AuthInfo=socket={sockets}/munge
DbdHost=localhost
DbdPort={slurmdbd}
SlurmUser={user}
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/state/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""

_GRANTS: Final = """\
create database if not exists slurm_acct_db;
create user if not exists slurm@'%' identified by 'slurm';
create user if not exists slurm@localhost identified by 'slurm';
grant all on slurm_acct_db.* to slurm@'%';
grant all on slurm_acct_db.* to slurm@localhost;
"""


def _name(pid: int) -> str:
    """Return the name of a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _node_of_step(process: Path) -> str:
    """Return the node of a slurmstepd, read from the path of the log it inherits from slurmd."""
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            name = descriptor.readlink().name
            if name.startswith("slurmd-") and name.endswith(".log"):
                return name.removeprefix("slurmd-").removesuffix(".log")
    return ""


def _free_ports(number: int) -> list[int]:
    """Return ports that are free at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _kill(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _end(pid: int, signum: int = signal.SIGTERM, seconds: float = 15) -> None:
    """End a process, after the time limit by SIGKILL, and wait until it has ended.

    It gives up if SIGKILL does not end it either.
    """
    for last in (signum, signal.SIGKILL):
        _kill(pid, last)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _alive(pid):
                return
            time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Return whether a process runs; a child that has ended is reaped."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
