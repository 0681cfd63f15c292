"""Which tests share a process where pytest runs in several (`make test` uses two)."""

import pytest


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what looks at one run of the demo, and otherwise the tests of one file."""
    for item in items:
        shared = "demo" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("demo" if shared else str(item.path)))
