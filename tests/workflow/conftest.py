"""One run of the demo, in a checkout of its own, that many tests look at."""

import pytest

from tests.workflow.checkouts import make_checkout, run


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    return make_checkout(folder)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """`make demo`, run once in a fresh checkout; returns its folder."""
    folder = tmp_path_factory.mktemp("demo") / "checkout"
    folder.mkdir()
    make_checkout(folder)
    run(["make", "demo"], folder)
    return folder
