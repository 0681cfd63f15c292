"""The order in which test files start."""

import random
from types import SimpleNamespace

from tests.workflow.checkouts import ROOT
from tests.workflow.conftest import LONGEST, pytest_collection_modifyitems


def test_the_longest_files_are_there_and_begin_and_the_others_keep_their_order():
    assert all((ROOT / "tests" / name).is_file() for name in LONGEST)
    others = ["common/test_files.py", "cohort/test_reads.py"]
    names = [*LONGEST, *others]
    shuffled = random.Random(0).sample(names, len(names))
    kept = [name for name in shuffled if name in others]
    items = [SimpleNamespace(path=ROOT / "tests" / name, n=n) for name in shuffled for n in (1, 2)]
    pytest_collection_modifyitems(items)
    order = [(str(item.path.relative_to(ROOT / "tests")), item.n) for item in items]
    assert order == [(name, n) for name in [*LONGEST, *kept] for n in (1, 2)]
