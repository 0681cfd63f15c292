"""Failures around jobs: lost or preempted nodes, a killed Snakemake or slurmctld.

The outputs equal those of the undisturbed run (`reference`), byte for byte.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.same_results import (
    MODEL,
    TUNED,
    assert_same_features,
    assert_same_images,
    assert_same_tuning,
    assert_went_on,
    start_training,
)
from tests.cluster.snakemake_runs import Run, jobs, states_of
from workflow_scripts.costs.slurm_accounting import ask_accounting

pytestmark = [pytest.mark.workflow, pytest.mark.full]


def wait_until_none(cluster, states):
    """Wait until SLURM lists no job in some states: it cancels and ends them in its own time."""
    deadline = time.monotonic() + 300
    while left := jobs(cluster, states):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def test_lost_nodes_cost_no_result(cluster, reference, again, monkeypatch):
    """SLURM requeues the jobs by itself; the lost attempts do not count as failures."""
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
    run.succeed()
    for rule in targets:
        assert states_of(cluster, folder, rule) == ["NODE_FAIL", "COMPLETED"]
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
    assert states_of(cluster, folder, "finetune_train") == ["PREEMPTED", "COMPLETED"]
    assert_went_on(folder, reference)


def test_an_interrupted_snakemake_leaves_no_job_and_goes_on(cluster, reference, again):
    folder = again("results/finetune")
    run, _ = start_training(cluster, folder)
    run.interrupt()
    assert run.wait() != 0
    wait_until_none(cluster, "R,PD")
    Run(cluster, folder, Path("fitted"), TUNED).succeed()
    assert_went_on(folder, reference)


def test_a_killed_snakemake_is_taken_up_beside_the_job_that_it_left(cluster, reference, again):
    """The orphaned job ends when it notices that the next one has taken over."""
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
    wait_until_none(cluster, "R,CG")
    assert states_of(cluster, folder, "finetune_train") == ["FAILED", "COMPLETED"]


def test_after_an_outage_that_snakemake_does_not_survive_nothing_is_lost(cluster, reference, again):
    """Without an answer for long, the executor gives up its jobs: stop, unlock, run again."""
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
