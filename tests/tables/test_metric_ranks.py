"""Table 8: ranks by hand, and the paper's printed ranks from its own printed values."""

import json

import numpy as np
import pytest

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import RANKED, RANKS, one_table
from workflow_scripts.tables.derive.metric_ranks import ranks_of
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.published import published_values
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run


def records_of(values):
    """Return records from {model: {(metric, family): value}}."""
    records = Records()
    for model, own in values.items():
        for family in dict.fromkeys(family for _, family in own):
            held = [
                Value(metric, value, "none", 99, reason=None if value is not None else "1 image")
                for (metric, of), value in own.items()
                if of == family
            ]
            records.add(Record("fidelity", model, family, "sound", held))
    return records


def models_of(keys, **families):
    entries = [{"key": key, "family": families.get(key, "sana")} for key in keys]
    return parse_models(json.dumps(entries))


def by_hand(fid, alignment=None):
    """Return the records of models with these FIDs, all else equal."""
    values = {}
    for model, value in fid.items():
        own = {(metric.metric, "rad_dino"): 0.5 for metric in RANKED}
        own["fid", "rad_dino"] = value
        own["alignment", "rad_dino"] = (alignment or {}).get(model, 0.5)
        values[model] = own
    return values


def cells(table):
    return {row.key: {c.column.header: c for c in row.cells} for row in table.rows}


def test_ranks_averages_and_ties_by_hand():
    values = by_hand({"a": 3.0, "b": 1.0, "c": 1.0, "noise": 0.1}, {"a": 0.9, "b": 0.2, "c": 0.2})
    models = models_of(values, noise="control")
    table = one_table(RANKS.stem, Run(records_of(values), models, "World"))
    assert "Here the average is over 7 of the paper's 9 metrics." in table.caption
    found = cells(table)
    assert list(found) == ["a", "b", "c"]  # the control neither has a rank nor takes one
    fid = {key: own["FID (RadDino)"].value for key, own in found.items()}
    assert fid == {"a": 3, "b": 1, "c": 1}
    # Higher alignment is better; the five metrics in which all are equal give 1 to each.
    alignment = {key: own["Alignment Score"].value for key, own in found.items()}
    assert alignment == {"a": 1, "b": 2, "c": 2}
    average = {key: own["Average Rank"].value for key, own in found.items()}
    assert average == pytest.approx({"a": 9 / 7, "b": 8 / 7, "c": 8 / 7})
    final = {key: own["Normalized Rank"].value for key, own in found.items()}
    assert final == {"a": 3, "b": 1, "c": 1}
    assert found["a"]["Average Rank"].n == 7
    assert "does not name inception_v3" in found["a"]["FID (Inception)"].reason


def test_a_model_that_lacks_a_metric_is_not_ranked_and_takes_no_rank():
    values = by_hand({"a": 3.0, "b": None, "c": 4.0})
    found = cells(one_table(RANKS.stem, Run(records_of(values), models_of(values), "World")))
    assert [found[key]["FID (RadDino)"].value for key in "abc"] == [1, None, 2]
    assert found["b"]["Average Rank"].reason == "1 image"
    assert found["b"]["Coverage"].value is None
    assert found["a"]["Average Rank"].value == 1


def test_without_a_record_the_row_says_why():
    models = models_of(["a"])
    (row,) = one_table(RANKS.stem, Run(Records(), models, "World")).rows
    assert {cell.reason for cell in row.cells} == {"not run"}


def test_a_metric_that_no_model_has_does_not_count():
    values = np.array([[2.0, np.nan, 1.0], [1.0, np.nan, 1.0]])
    assert ranks_of(values)[:, [0, 2]].tolist() == [[2, 1], [1, 1]]
    assert np.isnan(ranks_of(values)[:, 1]).all()


# The paper's own numbers

MISPRINTED = {
    # (model, metric): the rank that Table 1 gives, where Table 8 prints another one.
    ("sd_v3_5", "precision_rank"): 4,  # printed 2, with a precision of 0.632
    ("pixart_sigma", "precision_rank"): 3,  # printed 4, 0.666
    ("sana", "precision_rank"): 2,  # printed 3, 0.674
    ("sd_v3_5", "recall_rank"): 6,  # printed 11, with a recall of 0.205; the five behind move up
    ("sd_v2", "recall_rank"): 7,
    ("sd_v2_1", "recall_rank"): 8,
    ("llm_cxr", "recall_rank"): 9,
    ("lumina_2", "recall_rank"): 10,
    ("flux_1_dev", "recall_rank"): 11,
}
"""Table 8 contradicts Table 1 in two columns."""


def papers_records(ranks_of_precision_and_recall=False):
    """Return records with Table 1's values.

    Inception's values are printed nowhere: their printed ranks stand for them. So do, on request,
    those of the two columns that contradict Table 1.
    """
    table1, table8 = published_values("table01_fidelity"), published_values(RANKS.stem)
    values = {}
    for model, metric, *_ in table1:
        values.setdefault(model, {})[metric, "rad_dino"] = table1[model, metric, "all", ""].value
    for model, own in values.items():
        for metric in ("fid", "kid"):
            rank = table8[model, f"{metric}_rank", "all", "inception_v3"].value
            own[metric, "inception_v3"] = rank
        if ranks_of_precision_and_recall:
            for metric in ("precision", "recall"):
                rank = table8[model, f"{metric}_rank", "all", "rad_dino"].value
                own[metric, "rad_dino"] = -rank
    return values


def papers_table(**options):
    values = papers_records(**options)
    assert len(values) == 11
    return one_table(RANKS.stem, Run(records_of(values), models_of(values), "MIMIC-CXR"))


def test_the_papers_values_give_its_ranks_but_for_two_columns():
    for row in papers_table().rows:
        for cell in row.cells[:9]:
            expected = MISPRINTED.get((row.key, cell.column.metric), cell.published.value)
            assert cell.value == expected, (row.key, cell.column.header)
            if (row.key, cell.column.metric) in MISPRINTED:
                assert cell.published.value != cell.value


def test_the_papers_averages_are_those_of_its_printed_ranks():
    table = papers_table(ranks_of_precision_and_recall=True)
    assert "Here" not in table.caption
    for row in table.rows:
        assert all(cell.value == cell.published.value for cell in row.cells[:9])
        average, final = row.cells[-2:]
        # Printed with two decimals; 68 / 9 = 7.5556 is cut off to 7.55 instead of rounded.
        assert average.published.value == (
            7.55 if row.key == "sd_v1_4" else round(average.value, 2)
        )
        assert final.published.value == final.value


def test_the_contradictions_move_averages_by_a_third_at_most_and_no_final_rank():
    table = papers_table()
    for row in table.rows:
        average, final = row.cells[-2:]
        assert abs(average.value - average.published.value) < 1 / 3 + 0.005
        assert final.value == final.published.value


def test_published_ranks_stand_beside_the_papers_data_alone():
    values = by_hand({"sana": 1.0, "radedit": 2.0})
    for dataset, shown in (("MIMIC-CXR", True), ("World", False)):
        table = one_table(RANKS.stem, Run(records_of(values), models_of(values), dataset))
        assert table.has_published == shown
    assert len(published_values(RANKS.stem)) == 11 * len(RANKS.columns)
