"""Failures of a job: cancelled, or out of time, memory or disk space.

Where a job can continue, its outputs equal those of the undisturbed run (`reference`), byte for
byte.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.same_results import (
    FEATURES,
    SHARD,
    assert_same_images,
    assert_went_on,
    start_training,
)
from tests.cluster.snakemake_runs import Run, accounted, jobs, megabytes, states_of

pytestmark = [pytest.mark.workflow, pytest.mark.full]


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
    assert states_of(cluster, folder, "finetune_train") == ["CANCELLED", "COMPLETED"]
    assert_went_on(folder, reference)


def test_a_job_out_of_time_goes_on_in_the_next_attempt(cluster, reference, again):
    folder = again("results/finetune")
    run, job = start_training(cluster, folder)
    pids = cluster.pause_jobs(job.node)  # for as long as SLURM takes to see that the time is over
    cluster.run(["scontrol", "update", f"JobId={job.id}", "TimeLimit=1"])
    run.until(lambda: job.id not in {j.id for j in jobs(cluster)}, 600, "the time limit")
    assert pids
    run.succeed()
    assert states_of(cluster, folder, "finetune_train") == ["TIMEOUT", "COMPLETED"]
    assert_went_on(folder, reference)


def test_memory_grows_with_the_attempts_and_the_last_failure_shows_its_log(
    cluster, reference, again, tmp_path
):
    """A program is killed if it has less than 100 GB: the third and last attempt has 96 GB."""
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
