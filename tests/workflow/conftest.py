"""One run of the demo and one through SLURM, in separate checkouts, shared by many tests.

If the tests run in several processes, all of them share these runs: the first process that needs
one makes it, and the others wait.
"""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tests.cluster.cluster import INSTALL, Cluster, ClusterError, missing_programs
from tests.cluster.profile import write_profile
from tests.cluster.snakemake_runs import Run, jobs
from tests.workflow.checkouts import ROOT, copy_demo, make_checkout, run, with_world
from tests.workflow.plans import paper_plan  # noqa: F401  a fixture

LONGEST = (
    "workflow/test_cluster.py",
    "workflow/test_eleven.py",
    "workflow/test_demo.py",
    "workflow/test_cxr_sample.py",
    "workflow/test_cluster_outages.py",
    "workflow/test_cluster_jobs.py",
    "privacy/test_score_novelty.py",
    "privacy/test_score_lenses.py",
    "workflow/test_memorisation.py",
    "workflow/test_checkpoints.py",
    "workflow/test_curate.py",
    "workflow/test_curate_pools.py",
    "workflow/test_curate_further.py",
    "workflow/test_cxr_downstream.py",
    "workflow/test_round_trip.py",
    "workflow/test_spans.py",
    "workflow/test_plan.py",
    "workflow/test_submitted.py",
    "benchmarks/test_benchmarks.py",
    "gpu/test_gpu_check.py",
    "finetune/test_transformers.py",
    "tables/test_equal_models.py",
    "downstream/test_gains.py",
    "fidelity/test_clustered_patients.py",
    "workflow/test_touched_sources.py",
    "tables/test_figures.py",
    "scoring/test_scoring.py",
    "workflow/test_job_logs.py",
)
"""Test files, below `tests/`, of over half a minute each, in the order in which they start.

All processes then have work until the end. Tests that mostly wait for SLURM start together with
those that run the workflow on both cores. `test_cluster.py` is first: its own cluster makes the run
that the other two use, which come a turn later, so that none of three processes waits for it.
"""


@pytest.hookimpl(trylast=True)  # pytest itself groups the tests that share a fixture
def pytest_collection_modifyitems(items):
    """Move the longest files to the start; the others keep their order."""
    turns = {ROOT / "tests" / name: turn for turn, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    return make_checkout(folder)


@contextlib.contextmanager
def made_once(tmp_path_factory, name):
    """Yield a shared folder and whether it is still to be filled."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, made = shared / name / "checkout", shared / name / "made"
    with FileLock(shared / f"{name}.lock"):
        if made.exists():
            yield folder, False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make_checkout(folder)
        yield folder, True
        made.touch()


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The folder of a checkout of this session in which `make demo` has finished.

    It starts with the results of an earlier demo (`copy_demo`), so that it only runs the jobs whose
    code or config has changed since.
    """
    with made_once(tmp_path_factory, "demo") as (folder, new):
        if new:
            copy_demo(folder)
            run(["make", "demo"], folder)
    return folder


@pytest.fixture(scope="session")
def slurm():
    """Skip a test if SLURM is not installed."""
    if missing_programs():
        pytest.skip(f"there is no SLURM here: {INSTALL}")


@pytest.fixture(scope="session")
def cluster(slurm, tmp_path_factory):
    """A cluster of four nodes for this process only: tests kill its nodes."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def reference(cluster, tmp_path_factory):
    """A checkout in which two models and a control have run through SLURM without disturbance."""
    with made_once(tmp_path_factory, "reference") as (folder, new):
        if new:
            write_profile(with_world(folder) / "profiles/slurm_h200", folder / "fitted")
            Run(cluster, folder, Path("fitted")).succeed(3000)
            (folder / "ran_on").write_text(str(cluster.folder))
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
        (folder / "results/world").symlink_to((reference / "results/world").resolve())
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
