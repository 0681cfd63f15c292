"""`tables.json`: what the report and the figures read is what the build joined."""

import json

import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.tables.render.files import FORMATS
from workflow_scripts.tables.results import RESULTS, read_results


def test_the_tables_read_back_give_the_same_files(published_bench):
    """The paper's values, notes, marks and feet are all among what is kept."""
    bench = published_bench
    bench.built(bench)
    results = read_results(bench.root / "out" / RESULTS)
    assert (results.dataset, results.protocol) == ("MIMIC-CXR", "as_published")
    assert [model.key for model in results.models] == ["sd_v1_4", "sana", "mine", "noise"]
    assert results.attrition.images_removed == 7
    for stem, table in results.tables.items():
        for suffix, render in FORMATS.items():
            written = (bench.root / "out" / f"{stem}.{suffix}").read_text(encoding="utf-8")
            assert render(table) == written, (stem, suffix)


def test_what_made_the_records_is_said_once(bench):
    bench.built(bench)
    (origin,) = read_results(bench.root / "out" / RESULTS).origins
    assert origin.commit == "0123456789abcdef0123456789abcdef01234567"
    assert origin.versions == "python 3.11.9, torch 2.13.0"
    assert "rad_dino of sd_v1_4, sana, mine, noise;" in origin.records


@pytest.mark.parametrize("damage", ["cut", "cells", "other"])
def test_damaged_tables_are_refused_by_name(bench, damage):
    bench.built(bench)
    path = bench.root / "out" / RESULTS
    content = json.loads(path.read_text(encoding="utf-8"))
    if damage == "cells":
        content["tables"]["table01_fidelity"]["rows"][0]["cells"].pop()
    text = {"cut": path.read_text()[:999], "other": "[]"}.get(damage, json.dumps(content))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_results(path)
    assert RESULTS in str(caught.value.where)


def test_a_cell_is_read_with_the_column_of_its_place(bench):
    bench.built(bench)
    table = read_results(bench.root / "out" / RESULTS).tables["table01_fidelity"]
    for row in table.rows:
        assert tuple(cell.column for cell in row.cells) == table.layout.columns
