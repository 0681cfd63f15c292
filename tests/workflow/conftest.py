"""One run of the demo, in a checkout of its own, that many tests look at."""

import os
import shutil

import pytest
from filelock import FileLock

from tests.workflow.checkouts import make_checkout, run


@pytest.hookimpl(trylast=True)  # pytest itself puts together what shares a fixture
def pytest_collection_modifyitems(items):
    """Let the tests of the cluster begin, with the demo; the others that look at it come last.

    In several processes everything else is tested meanwhile, instead of waiting for the demo.
    """

    def turn(item):
        if item.path.name == "test_cluster.py":
            return 0
        return 2 if "demo" in getattr(item, "fixturenames", ()) else 1

    items.sort(key=turn)


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    return make_checkout(folder)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """`make demo`, run once in a fresh checkout; returns its folder.

    Where the tests run in several processes, all of them look at the one run: the first makes it,
    the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, made = shared / "demo" / "checkout", shared / "demo" / "made"
    with FileLock(shared / "demo.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make_checkout(folder)
            run(["make", "demo"], folder)
            made.touch()
    return folder
