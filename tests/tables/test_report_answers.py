"""The overview's five answers, on tables made by hand."""

from dataclasses import replace

import pytest

from workflow_scripts.tables.assemble import Cell, Row, Table
from workflow_scripts.tables.layout import LAYOUTS, Column, Layout
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.report_answers import (
    answers,
    best_sentence,
    missing_sentence,
    noise_sentence,
    risk_sentence,
)

STEMS = (
    "table01c_paired_differences",
    "table03_privacy",
    "table03d_novelty",
    "table03e_lenses",
    "table04b_classification_gains",
    "table05b_segmentation_gains",
    "table06b_rrg_augmented_gains",
)
COPIES = ModelEntry("copies", "control", "Copies", {}, settings={"control": "training_copies"})
OTHERS = ModelEntry("others", "control", "Others", {}, settings={"control": "held_out_real"})


def table_of(layout, rows):
    return Table(layout, tuple(rows), (), "", ())


def empty():
    return {stem: table_of(LAYOUTS[stem], []) for stem in STEMS}


def row(layout, label, values, kind="model"):
    """Return a row; `values` are fields of cells by metric, the others are dashes."""
    cells = [
        Cell(column, **values[column.metric])
        if column.metric in values and column.subset == "all"
        else Cell(column, None, reason="not run")
        for column in layout.columns
    ]
    return Row(label.lower(), label, kind, (), tuple(cells))


COLUMNS = (
    Column("Fidelity: FID ↓", "fid", "lower", 1),
    Column("Privacy: re-ID score ↓", "reid", "lower", 2),
    Column("Reports: micro F1 ↑", "f1", "higher", 2),
)
GLANCE = Layout("glance", "", "", "", None, COLUMNS, "", ("", ""))


def glance(**rows):
    return table_of(GLANCE, [row(GLANCE, label, values) for label, values in rows.items()])


def test_the_best_is_named_for_each_question_in_which_models_were_compared():
    table = glance(
        A={"fid": {"value": 3.0, "rank": "best"}, "reid": {"value": 0.2}, "f1": {"value": 0.5}},
        B={"fid": {"value": 4.0, "rank": "second"}, "reid": {"value": 0.1, "rank": "best"}},
    )
    assert best_sentence(table) == (
        "Best by the measured values: A in fidelity (FID 3.0); B in privacy (re-ID score 0.10). "
        "Only A has a value for reports."
    )


def test_models_that_share_the_best_value_are_both_named_and_few_images_name_nobody():
    table = glance(
        A={"fid": {"value": 3.0, "rank": "best"}, "f1": {"value": 0.5}},
        B={"fid": {"value": 3.0, "rank": "best"}, "f1": {"value": 0.4}},
    )
    assert best_sentence(table) == (
        "Best by the measured values: A and B in fidelity (FID 3.0). "
        "Too few images to compare models in reports."
    )
    assert best_sentence(glance()).startswith("Not known: ")


def pairs(*marks):
    layout = LAYOUTS["table01c_paired_differences"]
    rows = []
    for label, apart in marks:
        cells = {"kid": {"value": 1.0, "beyond_noise": apart}, "recall": {"value": 0.1}}
        rows.append(row(layout, label, cells, "pair"))
    return table_of(layout, rows)


def test_noise_counts_what_no_test_tells_apart_and_names_the_pairs():
    tables = empty() | {STEMS[0]: pairs(("A − B", True), ("A − C", False))}
    assert noise_sentence(tables) == (
        "3 of 4 differences between two models in fidelity are within noise (Table 1c); "
        "no metric tells A from C."
    )
    many = empty() | {STEMS[0]: pairs(*((f"A − {x}", False) for x in "BCDEFG"))}
    assert noise_sentence(many).endswith(
        "no metric tells A from B, A from C, A from D, A from E and 2 more."
    )
    apart = empty() | {STEMS[0]: pairs(("A − B", True))}
    assert "every pair that can be compared differs beyond noise" in noise_sentence(apart)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"p": 0.3}, "1 of 1 gains in downstream tasks is within noise (Tables 4b, 5b, 6b)."),
        (
            {"p": 0.001, "beyond_noise": True},
            "0 of 1 gains in downstream tasks are within noise (Tables 4b, 5b, 6b).",
        ),
        (
            {},
            "1 of 1 gains in downstream tasks cannot be told from noise, because an arm was "
            "trained once or its value never varies (Tables 4b, 5b, 6b).",
        ),
    ],
)
def test_gains_are_noise_beyond_it_or_cannot_be_told(fields, told):
    layout = LAYOUTS["table05b_segmentation_gains"]
    gain = row(layout, "A", {"dice_gain": {"value": 0.1, **fields}})
    control = row(layout, "Noise", {"dice_gain": {"value": 0.1}}, "control")
    assert noise_sentence(empty() | {layout.stem: table_of(layout, [gain, control])}) == told


def test_noise_of_nothing_is_not_known():
    assert noise_sentence(empty()).startswith("Not known: no two models were compared")


def privacy(**scores):
    layout = LAYOUTS["table03_privacy"]
    kinds = {"Copies": "control", "Others": "control"}
    rows = [
        row(layout, label, {"reid_mean_of_max": {"value": value}}, kinds.get(label, "model"))
        for label, value in scores.items()
    ]
    return {layout.stem: table_of(layout, rows)}


def test_the_riskiest_model_stands_between_the_controls():
    tables = empty() | privacy(A=0.2, B=0.6, Copies=0.99, Others=0.25)
    assert risk_sentence(tables, [COPIES, OTHERS]) == (
        "B has the highest re-ID score, 0.600; real radiographs of other patients score 0.250 and "
        "copies of training radiographs score 0.990 (Table 3)."
    )
    tied = empty() | privacy(A=0.6, B=0.6)
    assert risk_sentence(tied, []) == "A and B have the highest re-ID score, 0.600 (Table 3)."
    alone = empty() | privacy(A=0.2)
    assert risk_sentence(alone, []) == "A has a re-ID score of 0.200 (Table 3)."
    assert risk_sentence(empty(), []) == "Not known: no model's privacy was measured."


def lenses(**bounds):
    layout = LAYOUTS["table03e_lenses"]
    rows = [
        row(layout, label, {"any_seen": {"value": 0.3, "interval": interval}})
        for label, interval in bounds.items()
    ]
    return {layout.stem: table_of(layout, rows)}


def test_alarms_count_only_where_the_whole_interval_is_above_chance():
    tables = empty() | lenses(A=(0.06, 0.5), B=(0.04, 0.9))
    told = "A raises more alarms than chance explains (Table 3e), each by its own 95% interval."
    assert risk_sentence(tables, []) == told
    both = empty() | lenses(A=(0.06, 0.5), B=(0.07, 0.9))
    assert risk_sentence(both, []).startswith("A and B raise more alarms")
    none = empty() | lenses(A=(0.05, 0.5))
    assert risk_sentence(none, []).startswith("No model of 1 measured raises more alarms")


def test_what_is_missing_is_named_by_model_and_counted():
    table = glance(
        A={"fid": {"value": 3.0}, "reid": {"value": 1.0}, "f1": {"value": 1.0}},
        B={"fid": {"value": 3.0}},
        C={"fid": {"value": 3.0}},
    )
    assert missing_sentence({"x": table}, table) == (
        "B and C have no value for privacy or reports. 4 of 9 values of the models are dashes, "
        "each with its reason."
    )
    whole = table_of(GLANCE, table.rows[:1])
    assert missing_sentence({"x": whole}, whole).startswith("Nothing is missing")
    controls = table_of(GLANCE, [replace(table.rows[0], kind="control")])
    assert missing_sentence({"x": controls}, controls).startswith("Nothing was measured")


def test_five_questions_are_answered_also_where_nothing_was_measured():
    found = answers(empty(), glance(), [], None)
    assert len({answer.question for answer in found}) == 5
    assert all(answer.sentence.startswith(("Not known", "Nothing")) for answer in found)
    assert answers(empty(), glance(), [], "3 GPU-hours.")[-1].sentence == "3 GPU-hours."
