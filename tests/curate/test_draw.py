"""The draw: quotas are met or refused with how many are missing, whatever the order of the pool."""

import numpy as np

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.curate.draw import drawn

EDEMA, FRACTURE = FINDINGS.index("Edema"), FINDINGS.index("Fracture")


def pool(count: int = 60):
    ids = [f"prompt-{k}" for k in range(count)]
    labels = np.full((count, len(FINDINGS)), np.nan)
    labels[::3, EDEMA] = 1
    labels[::20, FRACTURE] = 1
    return ids, labels


def test_quotas_come_first():
    ids, labels = pool()
    rows, missing = drawn(ids, labels, {"Edema": 12, "Fracture": 3}, 15, seed=1)
    assert len(rows) == 15
    assert not missing
    assert (labels[rows, EDEMA] == 1).sum() >= 12
    assert (labels[rows, FRACTURE] == 1).sum() == 3


def test_what_is_missing_is_counted():
    ids, labels = pool()
    rows, missing = drawn(ids, labels, {"Fracture": 5}, 100, seed=1)
    assert missing == {"Fracture": 2, "images": 40}
    assert sorted(rows) == list(range(60))


def test_the_draw_is_seeded_and_the_same_in_every_order_of_the_pool():
    ids, labels = pool()
    order = np.random.default_rng(0).permutation(len(ids))
    first, _ = drawn(ids, labels, {"Edema": 4}, 10, seed=1)
    again, _ = drawn([ids[k] for k in order], labels[order], {"Edema": 4}, 10, seed=1)
    assert [ids[k] for k in first] == [ids[order[k]] for k in again]
    other, _ = drawn(ids, labels, {"Edema": 4}, 10, seed=2)
    assert first != other
