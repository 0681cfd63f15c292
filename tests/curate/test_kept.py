"""A step that was stopped goes on with the parts that it had finished, and with no others."""

import numpy as np
import pytest

from tests.stops import interrupt
from workflow_scripts.common.errors import InputError
from workflow_scripts.curate.kept import Kept


def computed(folder, made_from, calls):
    """Compute four parts, arrays and tables in turn; return them."""
    kept = Kept(folder, made_from)

    def part(k):
        calls.append(k)
        return np.full(3, k, np.float64)

    found = []
    for k in range(4):
        if k % 2:
            name = f"table-{k}"
            found.append(kept.columns(name, lambda k=k: {"x": part(k).tolist()})["x"].to_numpy())
        else:
            found.append(kept.array(f"array-{k}", lambda k=k: part(k)))
    return kept, np.stack(found)


def test_what_was_finished_is_not_computed_again_and_the_values_are_the_same(tmp_path):
    progress, calls = tmp_path / "progress", []
    _, whole = computed(tmp_path / "other", {"seed": 1}, [])
    interrupt(
        lambda: len([*progress.glob("attempt-*/[!.]*")]) == 3,
        lambda: computed(progress, {"seed": 1}, calls),
    )
    assert calls == [0, 1, 2]
    kept, found = computed(progress, {"seed": 1}, calls)
    assert calls == [0, 1, 2, 3]
    np.testing.assert_array_equal(found, whole)
    kept.end()
    assert not progress.exists()


@pytest.mark.parametrize("name", ["array-0", "table-1"])
@pytest.mark.parametrize("left", [0, 40])
def test_a_part_that_was_cut_short_is_computed_again(tmp_path, name, left):
    _, whole = computed(tmp_path, {}, [])
    (part,) = tmp_path.glob(f"attempt-*/{name}-*")
    part.write_bytes(part.read_bytes()[:left])
    calls = []
    _, found = computed(tmp_path, {}, calls)
    assert calls == [int(name[-1])]
    np.testing.assert_array_equal(found, whole)


def test_parts_of_other_inputs_are_not_taken(tmp_path):
    calls = []
    computed(tmp_path / "progress", {"seed": 1}, [])
    computed(tmp_path / "progress", {"seed": 2}, calls)
    assert calls == [0, 1, 2, 3]


def test_a_job_that_was_given_up_writes_nothing_more(tmp_path):
    first, _ = computed(tmp_path / "progress", {}, [])
    Kept(tmp_path / "progress", {})
    with pytest.raises(InputError, match="taken over"):
        first.array("array-9", lambda: np.zeros(1))
