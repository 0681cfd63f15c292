"""The workflow on a real SLURM: where its jobs run, and what faults cost it.

A private cluster (tests/cluster) runs the profile as shipped, fitted to a machine without GPUs. One
undisturbed run is the reference; every run that something happens to must leave the same bytes.
"""

import contextlib
import csv
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.cluster.cluster import INSTALL, Cluster, ClusterError, missing_programs
from tests.cluster.profile import SMALLER, read_profile, write_profile
from tests.cluster.snakemake_runs import Job, Run, accounted, jobs
from tests.workflow.checkouts import ROOT, make_checkout
from workflow_scripts.common.records import read_record
from workflow_scripts.tables.slurm_accounting import ask_accounting

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(bool(missing_programs()), reason=f"there is no SLURM here: {INSTALL}"),
]

MODEL = "tiny_sd_lora"
TUNED = f"results/finetune/{MODEL}/training.csv"
SHARD = f"results/generate/{MODEL}/test/part-00000-of-00001.parquet"
FEATURES = f"results/features/{MODEL}/test/rad_dino.h5"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of four nodes."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def reference(cluster, demo, tmp_path_factory):
    """A checkout in which two models and a control have run through SLURM, undisturbed."""
    folder = tmp_path_factory.mktemp("reference") / "checkout"
    folder.mkdir()
    make_checkout(folder)
    (folder / "results").mkdir(exist_ok=True)
    shutil.copytree(demo / "results/world", folder / "results/world", copy_function=shutil.copy2)
    write_profile(folder / "profiles/slurm_h200", folder / "fitted")
    Run(cluster, folder, Path("fitted")).succeed(3000)
    return folder


@pytest.fixture
def again(cluster, reference, tmp_path):
    """Make a copy of the reference in which some results are missing."""
    cluster.wait_for_nodes()

    def copy(*missing: str) -> Path:
        folder = tmp_path / "checkout"
        shutil.copytree(
            reference, folder, symlinks=True,
            ignore=lambda path, names: ["world"] if path.endswith("results") else [],
        )  # fmt: skip
        (folder / "results/world").symlink_to(reference / "results/world")
        (folder / "snakemake.out").unlink()
        shutil.rmtree(folder / ".snakemake/slurm_logs")
        for name in missing:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return folder

    yield copy
    Run.end_all()
    for job in jobs(cluster, "R,PD"):
        with contextlib.suppress(ClusterError):
            cluster.run(["scancel", job.id])


def assert_same_tuning(folder: Path, reference: Path) -> None:
    name = "pytorch_lora_weights.safetensors"  # its header lists in any order
    left, right = (
        load_file(root / f"results/finetune/{MODEL}/checkpoint" / name)
        for root in (folder, reference)
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert (folder / TUNED).read_bytes() == (reference / TUNED).read_bytes()


def assert_same_images(folder: Path, reference: Path, name: str) -> None:
    """Images and captions, byte for byte; a shard's metadata names the job that made it."""
    assert pq.read_table(folder / name).equals(pq.read_table(reference / name))


def assert_same_features(folder: Path, reference: Path, name: str) -> None:
    with h5py.File(folder / name) as left, h5py.File(reference / name) as right:
        assert set(left) == set(right)
        for key in left:
            assert np.array_equal(left[key][()], right[key][()]), key


def start_training(cluster: Cluster, folder: Path, *flags: str) -> tuple[Run, Job]:
    """Start fine-tuning anew; return once there is a checkpoint to go on from."""
    run = Run(cluster, folder, Path("fitted"), TUNED, flags=flags)
    job = run.job("finetune_train")
    progress = folder / f"results/finetune/{MODEL}/.progress"
    run.until(lambda: any(progress.glob("attempt-*/step-*")), 600, "a checkpoint")
    return run, job


def assert_went_on(folder: Path, reference: Path) -> None:
    """Fine-tuning did not begin anew, and gave what it gives undisturbed."""
    assert "continuing at" in (folder / f"logs/finetune/{MODEL}/span_1.log").read_text()
    assert_same_tuning(folder, reference)


def megabytes(text: str) -> float:
    """Return a size of sacct's in MB."""
    return float(text[:-1]) * {"K": 1 / 1024, "M": 1, "G": 1024}[text[-1]]


def states(cluster: Cluster, folder: Path, rule: str) -> list[str]:
    """Return the states of all jobs of a rule, in order, as the executor's logs name them."""
    found = (folder / f".snakemake/slurm_logs/rule_{rule}").rglob("*.log")
    ids = sorted({path.stem for path in found}, key=int)
    return [row[1].split()[0] for row in accounted(cluster, "JobIDRaw,State", ids)]


def sums_of(cluster: Cluster, folder: Path, rule: str) -> tuple[int, float]:
    """Return how often SLURM ran a rule's jobs, and the GPU-hours, as sacct's own fields say."""
    found = (folder / f".snakemake/slurm_logs/rule_{rule}").rglob("*.log")
    rows = accounted(cluster, "ElapsedRaw,AllocTRES", sorted(path.stem for path in found))
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


# Where jobs run.


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
        "cohort_manifest": ("cpu", "cpu=2", 8000, None, "01:00:00"),
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
    """Two processes on the CPU stand for the four, and see all the devices that were granted."""
    text = (reference / f"logs/finetune/{MODEL}/span_1.log").read_text()
    assert re.search(r"steps of 32 = 2 device\(s\) x 16 x 1", text)
    assert states(cluster, reference, "finetune_train") == ["COMPLETED"]
    asked = ["srun", "-p", "h200", "--gpus=h200:4", "--nodes=1", "-n1", "printenv"]
    assert cluster.run([*asked, "CUDA_VISIBLE_DEVICES"]) == "0,1,2,3\n"


def test_short_jobs_share_a_job_and_none_of_them_has_a_gpu(cluster, reference):
    logs = list((reference / ".snakemake/slurm_logs").glob("group_*"))
    assert any(path.name.startswith("group_generate_control") for path in logs)
    ids = [path.stem for folder in logs for path in folder.rglob("*.log")]
    rows = accounted(cluster, "JobIDRaw,Partition,AllocTRES", ids)
    assert {row[1] for row in rows} == {"cpu"}
    assert not any("gpu" in row[2] for row in rows)


def test_records_know_their_job(cluster, reference):
    record = read_record(reference / f"results/fidelity/rad_dino/{MODEL}.json")
    (row,) = accounted(cluster, "JobIDRaw,Partition,NodeList", [record.provenance["slurm_job_id"]])
    assert row[1:] == ["a100", record.provenance["slurm_node"]]


def test_the_cost_table_counts_what_slurm_accounts(cluster, reference):
    with (reference / "results/tables/jobs.csv").open(newline="") as stream:
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
    for key in ("set-resources", "groups", "group-components"):
        del settings[key]  # of rules that are not in this workflow
    profile.mkdir()
    (profile / "config.yaml").write_text(yaml.safe_dump(settings))
    where = "import tempfile; print(tempfile.gettempdir())"
    (tmp_path / "Snakefile").write_text(
        f"rule:\n    output: 'where.txt'\n    shell: 'python -c \"{where}\" > {{output}}'\n"
    )
    Run(cluster, tmp_path, profile, "where.txt", config=()).succeed()
    assert (tmp_path / "where.txt").read_text() == f"{scratch}\n"


# What can happen. Where work can go on, its outputs are the undisturbed run's.


def test_a_cancelled_job_is_tried_again_and_goes_on_and_a_new_controller_does_not_matter(
    cluster, reference, again
):
    folder = again("results/finetune")
    run, job = start_training(cluster, folder)
    cluster.run(["scancel", job.id])
    run.until(lambda: any(j.id != job.id for j in jobs(cluster)), 600, "the next attempt")
    time.sleep(6)  # what slurmctld learnt in its last five seconds, it forgets
    cluster.kill_controller()
    time.sleep(5)
    cluster.start_controller()
    run.succeed()
    assert states(cluster, folder, "finetune_train") == ["CANCELLED", "COMPLETED"]
    assert_went_on(folder, reference)


def test_a_job_out_of_time_goes_on_in_the_next_attempt(cluster, reference, again):
    folder = again("results/finetune")
    run, job = start_training(cluster, folder)
    pids = cluster.pause_jobs(job.node)  # for as long as SLURM takes to see that the time is over
    cluster.run(["scontrol", "update", f"JobId={job.id}", "TimeLimit=1"])
    run.until(lambda: job.id not in {j.id for j in jobs(cluster)}, 600, "the time limit")
    assert pids
    run.succeed()
    assert states(cluster, folder, "finetune_train") == ["TIMEOUT", "COMPLETED"]
    assert_went_on(folder, reference)


def test_lost_nodes_cost_no_result(cluster, reference, again, monkeypatch):
    """SLURM runs the jobs again by itself; the attempts are not counted as failures."""
    shard = "results/generate/tiny_sd_base/test/part-00000-of-00001.parquet"
    features = "results/features/noise/test/rad_dino.h5"
    targets = {"finetune_train": TUNED, "generate_sample": shard, "features_fidelity": features}
    folder = again("results/finetune", shard, features)
    run = Run(cluster, folder, Path("fitted"), *targets.values(), flags=("--retries", "0"))
    lost = [run.job(rule) for rule in targets]
    for node in {job.node for job in lost}:
        cluster.kill_node(node)
    ids = {job.id for job in lost}
    run.until(lambda: ids <= {j.id for j in jobs(cluster, "PD")}, 600, "SLURM to see it")
    for node in {job.node for job in lost}:
        cluster.start_node(node)
    cluster.wait_for_nodes()
    run.succeed()  # SLURM lets two minutes pass before it runs a job again
    for rule in targets:
        assert states(cluster, folder, rule) == ["NODE_FAIL", "COMPLETED"]
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    both = ask_accounting(ids).runs  # as the cost table asks: what was lost has its cost, too
    assert ids == set(both)
    assert all([run.state for run in runs] == ["NODE_FAIL", "COMPLETED"] for runs in both.values())
    assert all(run.elapsed_s > 0 and run.gpus for runs in both.values() for run in runs)
    assert_same_tuning(folder, reference)
    assert_same_images(folder, reference, shard)
    assert_same_features(folder, reference, features)


def test_preempted_work_waits_and_goes_on(cluster, reference, again):
    folder = again("results/finetune")
    run, job = start_training(cluster, folder, "--retries", "0")
    urgent = ["sbatch", "--parsable", "-p", "urgent", "--gpus=h200:4", "--nodes=1", "-o/dev/null"]
    others = [cluster.run([*urgent, "--wrap", "sleep 60"]).strip() for _ in range(2)]
    run.until(lambda: job.id in {j.id for j in jobs(cluster, "PD")}, 600, "preemption")
    cluster.run(["scancel", *others])
    run.succeed()
    assert states(cluster, folder, "finetune_train") == ["PREEMPTED", "COMPLETED"]
    assert_went_on(folder, reference)


def test_an_interrupted_snakemake_leaves_no_job_and_goes_on(cluster, reference, again):
    folder = again("results/finetune")
    run, _ = start_training(cluster, folder)
    run.interrupt()
    assert run.wait() != 0
    assert not jobs(cluster, "R,PD")
    Run(cluster, folder, Path("fitted"), TUNED).succeed()
    assert_went_on(folder, reference)


def test_a_killed_snakemake_is_taken_up_beside_the_job_that_it_left(cluster, reference, again):
    """The job that nobody waits for ends when it sees that the next has taken over from it."""
    folder = again("results/finetune")
    run, left = start_training(cluster, folder)
    pids = cluster.pause_jobs(left.node)  # so that it is not done before the next has begun
    run.kill()
    locked = Run(cluster, folder, Path("fitted"), TUNED)
    assert locked.wait() != 0
    assert "--unlock" in locked.said()
    Run(cluster, folder, Path("fitted"), flags=("--unlock",)).succeed()
    run = Run(cluster, folder, Path("fitted"), TUNED)
    progress = folder / f"results/finetune/{MODEL}/.progress"
    run.until(lambda: any(progress.glob("attempt-000002-*/step-*")), 600, "the next attempt")
    assert left.id in {job.id for job in jobs(cluster)}
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    run.succeed()
    assert_went_on(folder, reference)
    deadline = time.monotonic() + 300
    while left.id in {job.id for job in jobs(cluster, "R,CG")} and time.monotonic() < deadline:
        time.sleep(0.5)
    assert states(cluster, folder, "finetune_train") == ["FAILED", "COMPLETED"]


def test_after_an_outage_that_snakemake_does_not_survive_nothing_is_lost(cluster, reference, again):
    """Where no answer comes for long, the executor forgets its jobs: stop, unlock, run again."""
    folder = again("results/finetune")
    run = Run(cluster, folder, Path("fitted"), TUNED)
    run.job("finetune_train")
    time.sleep(6)  # what slurmctld learnt in its last five seconds, it forgets
    cluster.kill_controller()
    time.sleep(45)
    run.kill()
    cluster.start_controller()
    cluster.wait_for_nodes()
    Run(cluster, folder, Path("fitted"), flags=("--unlock",)).succeed()
    Run(cluster, folder, Path("fitted"), TUNED).succeed()
    assert_same_tuning(folder, reference)


def test_memory_grows_with_the_attempts_and_the_last_failure_shows_its_log(
    cluster, reference, again, tmp_path
):
    """A program that is killed below 100 GB: the third attempt is the last, and has 96."""
    folder = again(FEATURES)
    killer = tmp_path / "killer.sh"  # read by every bash that runs a command
    killer.write_text(
        'if [[ "$BASH_EXECUTION_STRING" == *features.extract*\n'
        "      && ${SLURM_MEM_PER_NODE:-0} -lt 100000 ]]; then\n"
        "  echo 'as if out of memory' > ${BASH_EXECUTION_STRING##*2> }; kill -9 $$\nfi\n"
    )
    run = Run(cluster, folder, Path("fitted"), FEATURES, environment={"BASH_ENV": str(killer)})
    assert run.wait() != 0
    ids = sorted((p.stem for p in (folder / ".snakemake/slurm_logs").rglob("*.log")), key=int)
    rows = accounted(cluster, "State,ReqMem", ids)
    assert [row[0] for row in rows] == ["FAILED"] * 3
    assert [megabytes(row[1]) for row in rows] == [32000, 64000, 96000]
    assert "as if out of memory" in run.said()
    assert not (folder / FEATURES).exists()


def test_a_full_disk_is_said_and_what_fits_later_is_the_same(cluster, reference, again, tmp_path):
    folder = again(str(Path(SHARD).parent))
    place = folder / Path(SHARD).parent
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can give a folder a small disk of its own, and not everywhere")
    try:
        run = Run(cluster, folder, Path("fitted"), SHARD, flags=("--retries", "0"))
        assert run.wait() != 0
        assert "No space left on device" in run.said()
        assert not (folder / SHARD).exists()
    finally:
        subprocess.run(["umount", str(place)], check=True)
    Run(cluster, folder, Path("fitted"), SHARD).succeed()
    assert_same_images(folder, reference, SHARD)


# The cluster itself.


def test_nothing_stays_behind(tmp_path):
    cluster = Cluster(tmp_path / "c")
    cluster.start()
    cluster.run(["sbatch", "-o/dev/null", "--wrap", "sleep 300"])
    time.sleep(2)
    conf = str(cluster.conf)
    with pytest.raises(ClusterError, match="not empty"):
        Cluster(tmp_path / "c").start()
    cluster.stop()
    assert not cluster.folder.exists()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit():
                assert conf.encode() not in (folder / "environ").read_bytes()
