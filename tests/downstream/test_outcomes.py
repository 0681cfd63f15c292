"""Outcomes: complete, private, and of the right test set."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.downstream.outcomes import read_outcomes, read_repeats, write_outcomes

RUN = {"setting": "augmented", "model": "sana", "protocol": "sound", "seed": 1}


def write(path, ids=("a", "b"), **run):
    columns = {"image_id": list(ids), "patient_id": ["p"] * len(ids), "dice": [0.5] * len(ids)}
    write_outcomes(path, columns, RUN | run)
    return path


def test_what_was_written_is_read_and_nobody_else_may(tmp_path):
    path = write(tmp_path / "o.parquet")
    assert path.stat().st_mode & 0o777 == 0o600
    outcomes = read_outcomes(path)
    assert outcomes.run == RUN
    expected = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "p"], "dice": [0.5, 0.5]})
    pd.testing.assert_frame_equal(outcomes.rows, expected, check_dtype=False)


@pytest.mark.parametrize("fault", ["missing", "truncated", "foreign", "no ids"])
def test_a_file_that_is_no_outcomes_is_named(tmp_path, fault):
    path = tmp_path / "o.parquet"
    if fault == "truncated":
        write(path)
        path.write_bytes(path.read_bytes()[:100])
    elif fault == "foreign":
        pq.write_table(pa.table({"image_id": ["a"], "patient_id": ["p"]}), path)
    elif fault == "no ids":
        table = pa.table({"image_id": ["a"]}).replace_schema_metadata({"run": "{}"})
        pq.write_table(table, path)
    with pytest.raises(InputError, match="cannot read outcomes") as error:
        read_outcomes(path)
    assert error.value.where == path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "two runs have the same seed"),
        ({"seed": 2, "model": "sd_v2"}, "model is 'sd_v2'"),
        ({"seed": 2, "ids": ("a", "c")}, "2 test images are not"),
        ({"seed": 2, "ids": ("b", "a")}, "2 test images are not"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path, change, message):
    paths = [write(tmp_path / "0.parquet"), write(tmp_path / "1.parquet", **change)]
    with pytest.raises(InputError, match=message):
        read_repeats(paths)


def test_repeats_differ_in_their_seed_alone(tmp_path):
    paths = [write(tmp_path / f"{seed}.parquet", seed=seed) for seed in (1, 2)]
    assert [outcomes.run["seed"] for outcomes in read_repeats(paths)] == [1, 2]
