"""The workflow on a real SLURM: placement, granted resources and costs of its jobs.

A private cluster (tests/cluster) runs the shipped profile, adapted to a machine without GPUs.
"""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import Cluster, ClusterError
from tests.cluster.profile import SMALLER, read_profile
from tests.cluster.same_results import MODEL
from tests.cluster.snakemake_runs import Run, accounted, megabytes, states_of
from tests.workflow.checkouts import ROOT
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import read_record
from workflow_scripts.preflight.site import Nodes, Request, check_request, read_nodes

pytestmark = [pytest.mark.workflow, pytest.mark.full]


@pytest.fixture(scope="module")
def reference(cluster, reference):
    """The undisturbed run, on this process's cluster, whose accounting has its jobs."""
    if (reference / "ran_on").read_text() != str(cluster.folder):
        pytest.fail("another process's cluster made the run: let this file's tests begin")
    return reference


def sums_of(cluster: Cluster, folder: Path, rule: str) -> tuple[int, float]:
    """Return the number of runs of a rule's jobs and their GPU-hours, from sacct's fields."""
    logs = (folder / f".snakemake/slurm_logs/rule_{rule}").rglob("*.log")
    rows = accounted(cluster, "ElapsedRaw,AllocTRES", sorted(path.stem for path in logs))
    gpus = [re.search(r"gres/gpu=(\d+)", granted) for _, granted in rows]
    hours = [
        int(row[0]) / 3600 * (int(n[1]) if n else 0) for row, n in zip(rows, gpus, strict=True)
    ]
    return len(rows), sum(hours)


def cost_of(folder: Path, model: str, stage: str) -> dict[str, str]:
    """Return a row of the cost table."""
    with (folder / "results/tables/costs.csv").open(newline="") as stream:
        (row,) = (r for r in csv.DictReader(stream) if (r["Model"], r["Stage"]) == (model, stage))
    return row


def test_every_job_lands_where_the_profile_says(cluster, reference):
    where = {}
    for path in (reference / ".snakemake/slurm_logs").rglob("*.log"):
        group = path.relative_to(reference / ".snakemake/slurm_logs").parts[0]
        where[path.stem] = group.split("_", 1)[1]
    rows = accounted(cluster, "JobIDRaw,State,Partition,AllocTRES,Timelimit,NNodes", list(where))
    assert {row[0] for row in rows} == set(where)
    wanted = {
        "finetune_train": ("h200", "cpu=32", 200000, "gres/gpu:h200=4", "2-00:00:00"),
        "generate_sample": ("h200", "cpu=8", 64000, "gres/gpu:h200=1", "12:00:00"),
        "features_fidelity": ("a100", "cpu=8", 32000, "gres/gpu:a100=1", "04:00:00"),
        "fidelity_score": ("a100", "cpu=8", 16000, "gres/gpu:a100=1", "02:00:00"),
        "downstream_train_classifier": (
            "a100", "cpu=16", 64000, "gres/gpu:a100=1", "12:00:00",
        ),
        "cohort_manifest": ("cpu", "cpu=8", 8000, None, "04:00:00"),
        "tables_build": ("cpu", "cpu=1", 4000, None, "00:20:00"),
    }  # fmt: skip
    seen = set()
    for job, state, partition, granted, limit, nodes in rows:
        assert (state, nodes) == ("COMPLETED", "1"), where[job]
        if where[job] not in wanted:
            continue
        seen.add(where[job])
        right, cpus, memory, gpus, runtime = wanted[where[job]]
        assert partition == right, where[job]
        assert cpus in granted.split(","), where[job]
        assert megabytes(re.search(r"mem=([^,]+)", granted)[1]) == memory, where[job]
        assert (gpus in granted.split(",")) if gpus else ("gpu" not in granted), where[job]
        assert limit == runtime, where[job]
    assert seen == set(wanted)


def test_training_on_four_gpus_is_one_job_whose_processes_share_the_work(cluster, reference):
    """Two processes on the CPU stand for the four and see all granted devices."""
    text = (reference / f"logs/finetune/{MODEL}/span_1.log").read_text()
    assert re.search(r"steps of 32 = 2 device\(s\) x 16 x 1", text)
    assert states_of(cluster, reference, "finetune_train") == ["COMPLETED"]
    asked = ["srun", "-p", "h200", "--gpus=h200:4", "--nodes=1", "-n1", "printenv"]
    assert cluster.run([*asked, "CUDA_VISIBLE_DEVICES"]) == "0,1,2,3\n"


def test_short_jobs_are_jobs_of_their_own_without_a_gpu(cluster, reference):
    logs = reference / ".snakemake/slurm_logs"
    assert not list(logs.glob("group_*"))
    ids = [path.stem for path in logs.glob("rule_generate_control/**/*.log")]
    assert ids
    rows = accounted(cluster, "JobIDRaw,Partition,AllocTRES", ids)
    assert {row[1] for row in rows} == {"cpu"}
    assert all("cpu=1" in row[2].split(",") and "gpu" not in row[2] for row in rows)


def test_records_know_their_job(cluster, reference):
    record = read_record(reference / f"results/fidelity/rad_dino/{MODEL}.json")
    (row,) = accounted(cluster, "JobIDRaw,Partition,NodeList", [record.provenance["slurm_job_id"]])
    assert row[1:] == ["a100", record.provenance["slurm_node"]]


def test_the_cost_table_counts_what_slurm_accounts(cluster, reference):
    with (reference / "results/costs/jobs.csv").open(newline="") as stream:
        attempts = list(csv.DictReader(stream))
    of_slurm = [
        row for row in attempts if row["rule"] != "finetune_finish"
    ]  # runs where Snakemake does
    assert {row["source"] for row in of_slurm} == {"accounting"}
    logs = reference / ".snakemake/slurm_logs"
    ran = {path.stem for path in logs.rglob("*.log") if "_tables_" not in str(path)}
    assert {row["job_id"] for row in of_slurm} == ran
    runs, hours = sums_of(cluster, reference, "finetune_train")
    cost = cost_of(reference, "Tiny SD (LoRA)", "Fine-tuning")
    assert runs == 1
    assert float(cost["GPU-hours"]) == pytest.approx(hours)
    assert hours > 0


def test_temporary_files_go_to_the_scratch_of_the_profile(cluster, tmp_path):
    scratch, profile = tmp_path / "scratch", tmp_path / "profile"
    scratch.mkdir()
    text = (ROOT / "profiles/slurm_h200/config.yaml").read_text()
    shipped = tmp_path / "shipped.yaml"
    shipped.write_text(text.replace("scratch: null", f"scratch: {scratch}"))
    settings = read_profile(shipped) | SMALLER
    del settings["set-resources"]  # of rules that are not in this workflow
    profile.mkdir()
    (profile / "config.yaml").write_text(yaml.safe_dump(settings))
    where = "import tempfile; print(tempfile.gettempdir())"
    (tmp_path / "Snakefile").write_text(
        f"rule:\n    output: 'where.txt'\n    shell: 'python -c \"{where}\" > {{output}}'\n"
    )
    Run(cluster, tmp_path, profile, "where.txt", config=()).succeed()
    assert (tmp_path / "where.txt").read_text() == f"{scratch}\n"


def test_preflight_grants_and_refuses_what_sbatch_does(cluster, monkeypatch):
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    nodes = read_nodes()
    fits = Request("h200", 2880, 96, 1_500_000, 4, "h200")
    cases = [fits, replace(fits, gpu_model=None)]
    cases += [replace(fits, **{key: value}) for key, value in (
        ("partition", "h100"), ("cpus", 97), ("mem_mb", 1_500_001), ("gpus", 5),
        ("gpu_model", "a100"),
    )]  # fmt: skip
    verdicts = {}
    for case in cases:
        model = f"{case.gpu_model}:" if case.gpu_model else ""
        asked = ["-p", case.partition, f"--gpus={model}{case.gpus}", "--nodes=1"]
        asked += [f"--cpus-per-task={case.cpus}", f"--mem={case.mem_mb}", f"-t{case.minutes}"]
        command = ["sbatch", "--test-only", *asked, "--wrap", "true"]
        verdicts[case] = not subprocess.run(command, capture_output=True).returncode
    assert verdicts == {case: granted(case, nodes) for case in cases}
    assert [*verdicts.values()] == [True] * 2 + [False] * 5
    # sbatch accepts a request for too much time, and the job stays pending forever.
    assert not granted(replace(fits, minutes=2881), nodes)
    asked = ["sbatch", "--parsable", "-p", "h200", "-t2881", "-o/dev/null", "--wrap", "true"]
    job = cluster.run(asked).strip()
    time.sleep(5)  # it is looked at every two
    assert cluster.run(["squeue", "-h", "-j", job, "-o", "%r"]).strip() == "PartitionTimeLimit"
    cluster.run(["scancel", job])


def granted(request: Request, nodes: list[Nodes]) -> bool:
    try:
        check_request(request, nodes)
    except InputError:
        return False
    return True


def test_nothing_stays_behind(slurm, tmp_path):
    cluster = Cluster(tmp_path / "c")
    cluster.start()
    cluster.run(["sbatch", "-o/dev/null", "--wrap", "srun sleep 300"])
    until(lambda: sum(name == "slurmstepd" for name in processes_of(cluster)) == 2)
    with pytest.raises(ClusterError, match="not empty"):
        Cluster(tmp_path / "c").start()
    daemons = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmscriptd", "slurmd"}
    assert daemons < set(processes_of(cluster))
    cluster.stop()
    assert processes_of(cluster) == []
    assert not cluster.folder.exists()


def test_another_mariadb_that_starts_does_not_take_its_temporary_tables(slurm, tmp_path):
    """A starting MariaDB removes all temporary tables from its folder: by default, a shared one."""
    stop = threading.Event()

    def remove():
        while not stop.is_set():
            for path in Path(tempfile.gettempdir()).glob("#sql*"):
                path.unlink(missing_ok=True)

    thief = threading.Thread(target=remove)
    thief.start()
    cluster = Cluster(tmp_path / "c")
    try:
        cluster.start()
    finally:
        stop.set()
        thief.join()
        cluster.stop()


def test_a_cluster_whose_database_cannot_be_made_says_why(slurm, tmp_path):
    cluster = Cluster(tmp_path / "c")
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "mariadb-install-db"
    program.write_text("#!/bin/sh\necho Installing\necho 'ERROR: 6 No such file'\nexit 1\n")
    program.chmod(0o755)
    cluster.environment = lambda: os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    with pytest.raises(ClusterError, match=r"failed: ERROR: 6 No such file \(.*install.log\)$"):
        cluster.start()
    assert (cluster.folder / "log/mariadb-install.log").exists()


@pytest.mark.parametrize(
    "name", ["slurmctld", "slurmscriptd", "slurmd", "slurmdbd", "slurmstepd", "munged", "mariadbd"]
)
def test_stop_waits_for_daemons_that_do_not_heed_sigterm(pretended, name):
    """It holds whether or not their pids were recorded: slurmctld and slurmd start others."""
    pretended.run(name)
    pretended.cluster.stop()
    assert processes_of(pretended.cluster) == []
    assert not pretended.cluster.folder.exists()


def test_stop_says_what_does_not_go_and_can_be_repeated(pretended, monkeypatch):
    process = pretended.run("slurmstepd")
    with monkeypatch.context() as patch:
        patch.setattr("tests.cluster.cluster._kill", lambda pid, signum: None)
        with pytest.raises(ClusterError, match=rf"not gone.*: slurmstepd \({process.pid}\)$"):
            pretended.cluster.stop(seconds=0.2)
    assert process.poll() is None
    pretended.cluster.stop()
    assert not pretended.cluster.folder.exists()


def test_stop_leaves_processes_that_are_not_the_clusters(pretended):
    """A shell that uses the cluster, another cluster's daemon, and a process with a reused pid."""
    shell = pretended.run("sh")
    other = pretended.run("slurmd", SLURM_CONF="/another/slurm.conf")
    recycled = pretended.run("sleep", SLURM_CONF="")
    pretended.note_daemon("slurmctld", recycled.pid)
    pretended.cluster.stop()
    assert [process.poll() for process in (shell, other, recycled)] == [None] * 3


@pytest.fixture
def pretended(tmp_path):
    """A cluster with nothing but its state file; `run` starts processes that could be its own."""
    made = Pretended(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


class Pretended:
    def __init__(self, folder):
        self.cluster = Cluster(folder / "c")
        self.programs = folder / "programs"
        self.started = []
        for path in (self.cluster.folder, folder / "sockets", self.programs):
            path.mkdir()
        self._write({})

    def run(self, name, **environment):
        """Start a process of this name that ignores SIGTERM."""
        program = self.programs / name
        program.symlink_to(Path(sys.executable).resolve())
        ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        command = [program, "-c", f"{ignoring}; print(1, flush=True); time.sleep(300)"]
        env = self.cluster.environment() | environment
        self.started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE))
        self.started[-1].stdout.readline()
        return self.started[-1]

    def note_daemon(self, name, pid):
        self._write({name: pid})

    def _write(self, pids):
        sockets = str(self.programs.parent / "sockets")
        state = {"sockets": sockets, "ports": {}, "pids": pids}
        (self.cluster.folder / "cluster.json").write_text(json.dumps(state))


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(cluster):
    """Return the names of all processes with the cluster's configuration in their environment."""
    conf, names = f"SLURM_CONF={cluster.conf}".encode(), []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and conf in (folder / "environ").read_bytes().split(b"\0"):
                names.append((folder / "comm").read_text().strip())
    return names
