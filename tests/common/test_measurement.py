"""The long table: records are converted to it and back without loss."""

from dataclasses import replace

import pandas as pd
import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.measurement import (
    Measurements,
    measurements_of,
    read_measurements,
    write_measurements,
)
from workflow_scripts.common.records import Record, Value

VALUES = [
    Value("fid", 1.25, "lower", 40, "all", 38, (1.0, 1.5), "jackknife 95%"),
    Value("fid", None, "lower", 1, "Edema", 2, reason="only 1 generated image(s)"),
    Value("auroc_gain", -0.01, "higher", 55, p=0.25),
]
RECORD = Record("fidelity", "sana", "rad_dino", "sound", VALUES)


def test_every_part_of_a_value_is_a_column_of_its_row(tmp_path):
    rows = measurements_of(RECORD)
    write_measurements(rows, tmp_path / "m.parquet")
    frame = pd.read_parquet(tmp_path / "m.parquet")
    for row, value in zip(frame.to_dict("records"), VALUES, strict=True):
        assert (row["stage"], row["model"], row["family"]) == ("fidelity", "sana", "rad_dino")
        assert row["protocol"] == "sound"
        for name in ("metric", "subset", "value", "direction", "n", "n_reference", "p", "reason"):
            expected = getattr(value, name)
            assert pd.isna(row[name]) if expected is None else row[name] == expected, name
    assert frame["low"].tolist()[:1] == [1.0]
    assert frame["high"].tolist()[:1] == [1.5]


def test_what_is_written_is_read_and_the_same_bytes_each_time(tmp_path):
    rows = measurements_of(RECORD)
    for name in "ab":
        write_measurements(rows, tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert list(read_measurements(tmp_path / "a.parquet", "sound")) == rows


def test_rows_are_found_by_what_they_say():
    other = replace(RECORD, protocol="as_published", values=[replace(VALUES[0], value=9.0)])
    measurements = Measurements([*measurements_of(RECORD), *measurements_of(other)], "sound")
    assert measurements.find("fidelity", "rad_dino", "sana", "fid").value == 1.25
    assert (
        measurements.find("fidelity", "rad_dino", "sana", "fid", protocol="as_published").value == 9
    )
    assert measurements.find("fidelity", "rad_dino", "sana", "fid", "Edema").reason
    assert measurements.find("fidelity", "rad_dino", "sana", "kid") is None
    assert measurements.find("fidelity", "rad_dino", "flux", "fid") is None
    assert measurements.has("fidelity", "rad_dino", "sana")
    assert not measurements.has("fidelity", "inception_v3", "sana")


def test_a_damaged_table_is_named(tmp_path):
    path = tmp_path / "m.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot read the measurements"):
        read_measurements(path, "sound")
    with pytest.raises(InputError, match="cannot read the measurements"):
        read_measurements(tmp_path / "none.parquet", "sound")
