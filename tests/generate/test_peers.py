"""Processes of one job share a shard: whoever draws an image, it is the same."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import read_shards, shard_jobs
from workflow_scripts.common.speed import Speed
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.layout import Base
from workflow_scripts.generate.peers import Peers, peers_of, run_in_peers
from workflow_scripts.generate.sample import Sampling, sample_shard
from workflow_scripts.generate.settings import BatchSettings

FAMILY = get_family("stable_diffusion")


def sample(cohort, checkpoint, name, speed=None):
    output = cohort.folder / f"{name}.parquet"
    settings = SampleSettings(steps=2, guidance=2.0, size=32)
    sampling = Sampling(
        FAMILY, Base(checkpoint), settings, BatchSettings(2), speed=speed or Speed()
    )
    paths = (cohort.folder / "test.parquet", output, cohort.folder / f"progress-{name}")
    sample_shard(sampling, *paths)
    return output


def test_work_is_shared_without_rest_or_repetition():
    work = list(range(7))
    parts = [Peers(rank, 3, rank).share(work) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    assert Peers().share(work) == work


def test_processes_are_counted_against_gpus():
    two = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    assert peers_of(two, 2) == Peers(1, 2, 1)
    assert peers_of(two, 0) == Peers(1, 2, 1)
    assert peers_of({}, 1) == peers_of({}, 0) == Peers()
    with pytest.raises(InputError, match=r"4 GPUs were given to 1 process") as caught:
        peers_of({}, 4)
    assert "torchrun --nproc-per-node 4" in str(caught.value)


def _peer(rank, port, cohort, checkpoint):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    plain = Attempt.writing

    def noting(self):
        (cohort.folder / f"wrote-{rank}").touch()
        return plain(self)

    Attempt.writing = noting
    sample(cohort, checkpoint, "two")


def test_two_processes_make_the_bytes_of_one(cohort, checkpoint):
    one = sample(cohort, checkpoint, "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    peers = [context.Process(target=_peer, args=(r, port, cohort, checkpoint)) for r in (0, 1)]
    for peer in peers:
        peer.start()
    for peer in peers:
        peer.join(300)
    assert [peer.exitcode for peer in peers] == [0, 0]
    assert all((cohort.folder / f"wrote-{rank}").exists() for rank in (0, 1))
    two = cohort.folder / "two.parquet"
    assert two.read_bytes() == one.read_bytes()
    assert len(list(read_shards([two]))) == len(cohort.sets["test"])
    assert shard_jobs(two) == shard_jobs(one)
    assert not (cohort.folder / "progress-two").exists()


def test_switches_leave_images_as_they_are(cohort, checkpoint):
    import io

    import numpy as np
    from PIL import Image

    def shown(output):
        items = read_shards([output])
        return np.stack([np.asarray(Image.open(io.BytesIO(i.data)), int) for i in items])

    plain = shown(sample(cohort, checkpoint, "plain"))
    fast = shown(sample(cohort, checkpoint, "fast", Speed(channels_last=True, attention="math")))
    assert np.abs(plain - fast).max() <= 1  # of 256 levels
    with pytest.raises(InputError, match="stable_diffusion does not take the switch attention eff"):
        sample(cohort, checkpoint, "none", Speed(attention="efficient"))


def test_where_one_process_fails_all_end(monkeypatch, tmp_path):
    (tmp_path / "failing_peer.py").write_text(
        "import os, sys, time\nsys.exit(3) if os.environ['RANK'] == '1' else time.sleep(120)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    assert run_in_peers("failing_peer", [], 2) == 3
    assert time.monotonic() - began < 100


def test_a_killed_process_is_named_with_what_to_do(monkeypatch, tmp_path, caplog):
    (tmp_path / "killed_peer.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else time.sleep(120)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_in_peers("killed_peer", [], 2) == -9
    assert "process 2 of 2 was killed by signal 9" in caplog.text
    assert "more memory" in caplog.text


def test_processes_find_each_other_by_a_file_of_their_own(monkeypatch, tmp_path):
    (tmp_path / "talking_peer.py").write_text(
        "import os, sys\n"
        "from workflow_scripts.generate.peers import peers_of, together\n"
        "peers = peers_of(os.environ, 0)\n"
        "with together(peers):\n"
        "    said = peers.told(os.getppid() if peers.main else None)\n"
        "sys.exit(0 if said == os.getppid() and 'MASTER_PORT' not in os.environ else 4)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path.cwd()}")
    assert run_in_peers("talking_peer", [], 3) == 0


def test_processes_end_with_the_one_that_started_them(tmp_path):
    child = (
        "import os, sys, time; from workflow_scripts.generate.lifeline import started; started();"
        "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(120)"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        "from workflow_scripts.generate.lifeline import environment, lifeline\n"
        "with lifeline() as (end, _):\n"
        f"    subprocess.Popen([sys.executable, '-c', {child!r}, sys.argv[1]],"
        " env=os.environ | environment(end), pass_fds=(end,))\n"
        "    time.sleep(120)\n"
    )
    note = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", parent, str(note)])
    while not (note.exists() and note.read_text()):
        time.sleep(0.05)
    process.kill()
    process.wait()
    for _ in range(600):
        status = Path(f"/proc/{note.read_text()}/stat")
        if not status.exists() or status.read_text().split(")")[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")
