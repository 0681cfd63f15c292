"""With one training run no table of gains and no sentence says that there is one."""

import json

import pytest

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import every_table
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.report import headlines
from workflow_scripts.tables.run import Run
from workflow_scripts.tables.utility_words import GAINS, gain_sentence

APART = ("table08c_pareto", "table25b_curated_worth", "table25c_curated_segmentation")
"""What is on the Pareto front follows from the others; test_curated.py has the other two."""

WITH_GAINS = sorted(s for s, layout in LAYOUTS.items() if layout.has_gains and s not in APART)
"""The tables of measured gains."""
KEYS = ("a", "b", "copies")


def tables_of(p):
    """All tables of two models and a control whose gains are large, with this p or none."""
    models = [{"key": key, "family": "control" if key == "copies" else "external"} for key in KEYS]
    records = Records()
    families = {
        (layout.stage, column.family or layout.family)
        for layout in LAYOUTS.values()
        for column in layout.columns
        if layout.has_gains
    }
    for stage, family in sorted(families):
        wanted = {
            (column.metric, column.subset): column
            for layout in LAYOUTS.values()
            for column in layout.columns
            if (layout.stage, column.family or layout.family) == (stage, family)
        }
        for k, key in enumerate(KEYS):
            values = [
                Value(
                    metric, 0.9 - 0.3 * k, column.direction, 100, subset,
                    interval=(0.85 - 0.3 * k, 0.95 - 0.3 * k), interval_kind="drawn",
                    p=p if column.is_gain else None,
                )
                for (metric, subset), column in wanted.items()
            ]  # fmt: skip
            records.add(Record(stage, key, family, "sound", values))
    real = Value("auroc", 0.5, "higher", 100)
    records.add(Record("downstream", "real", "classification/real_only", "sound", [real]))
    return every_table(Run(records, parse_models(json.dumps(models)), "World"))


def test_all_tasks_have_tables_of_gains():
    numbers = {LAYOUTS[stem].number for stem in WITH_GAINS}
    assert {"4b", "4c", "5b", "6b", "15b", "15c", "16b"} <= numbers


@pytest.mark.parametrize("stem", WITH_GAINS)
def test_no_cell_is_marked_and_the_caption_says_why(stem):
    table = tables_of(None)[stem]
    assert {cell.mark for row in table.rows for cell in row.cells} == {None}
    assert "none is marked as a gain or a loss" in table.caption
    assert "bold" not in table.caption
    # With more runs the same gains are marked.
    known = tables_of(1e-6)[stem]
    assert any(cell.beyond_noise for row in known.rows for cell in row.cells)
    assert {cell.rank for row in known.rows for cell in row.cells} == {None}
    assert "Gains and losses in bold" in known.caption


def test_no_sentence_names_a_direction():
    tables = tables_of(None)
    words = [gain_sentence(tables[gain.stem], gain) for gain in GAINS]
    words.append(next(e["sentence"] for e in headlines(tables, None) if "AUROC" in e["sentence"]))
    for sentence in words:
        assert "one training run" in sentence or "trained only once" in sentence
        for word in ("add to", "take from", "moves", "improve", "raise", "lower"):
            assert word not in sentence
