"""Long tables: a number or its reason, and nothing in silence."""

import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.measurement import Measurements, measurements_of
from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.assemble import derived_table
from workflow_scripts.tables.derive.long_table import (
    Head,
    LongTable,
    Number,
    few,
    measured,
    without_rows,
)
from workflow_scripts.tables.layout import layout_of
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

SPEC = {
    "number": "30",
    "title": "A table",
    "stage": "fidelity",
    "attributes": ["Size"],
    "columns": [
        {"metric": "gap", "header": "Gap", "decimals": 1},
        {"metric": "gap", "header": "Gap, Inception", "decimals": 1, "family": "inception_v3"},
    ],
    "counts": ["Models", "Reference"],
    "explanation": "Words.",
}


def test_a_number_stands_in_the_column_of_its_metric_and_variant():
    numbers = LongTable(
        (Head("b", "B", "model", {"Size": "1B"}), Head("a", "A", "pair")),
        {
            ("a", "gap", "all", ""): Number(2.0, 7, interval=(1.0, 3.0), beyond_noise=True),
            ("b", "gap", "all", "inception_v3"): Number(5.0),
        },
        {"a": "too few", "b": "not run"},
        "And a note.",
    )
    run = Run(Records(), [], "World")
    table = derived_table(layout_of("table30", SPEC, {}), numbers, run, counts=False)
    assert [(row.key, row.attributes) for row in table.rows] == [("b", ("1B",)), ("a", ("–",))]
    assert [[cell.value for cell in row.cells] for row in table.rows] == [[None, 5.0], [2.0, None]]
    assert table.notes == ("not run", "too few")
    assert [cell.mark for cell in table.rows[1].cells] == ["bold", None]
    assert table.caption == "A table. World, protocol sound. Words. And a note."


def test_a_number_that_is_missing_without_a_reason_is_an_error():
    table = LongTable((Head("a", "A", "model"),), {})
    with pytest.raises(KeyError, match="no number"):
        table.number(("a", "gap", "all", ""))
    assert without_rows("not run").number(("none", "gap", "all", "")).reason == "not run"


def test_a_measurement_of_the_opposite_direction_is_refused():
    record = Record("fidelity", "a", "rad_dino", "sound", [Value("kid", 0.1, "lower", 9)])
    measurements = Measurements(measurements_of(record), "sound")
    place = (measurements, "fidelity", "rad_dino", "a")
    assert measured(*place, "kid", "not run", direction="lower").value == 0.1
    assert measured(*place, "kid", "not run", direction="lower").is_few
    assert measured(*place, "fid", "not run").reason == "the record has no fid"
    assert measured(*place[:3], "b", "kid", "not run").reason == "not run"
    with pytest.raises(InputError, match="says that lower is better"):
        measured(*place, "kid", "not run", direction="higher")


def test_few_counts_what_is_known():
    assert (few(None, None), few(10, None), few(10, 9)) == (False, False, True)
