"""Ranks with ties by hand, correlations against scipy, and the coverage of their intervals."""

import numpy as np
import pytest
from scipy import stats

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.derive.task_ranks import ranks, with_interval
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

MODELS = (
    '[{"key": "a", "family": "sana", "display": {"name": "A"}},'
    ' {"key": "b", "family": "sana", "display": {"name": "B"}},'
    ' {"key": "c", "family": "sana", "display": {"name": "C"}},'
    ' {"key": "d", "family": "external", "display": {"name": "D"},'
    '  "missing": {"augment": "no such images"}},'
    ' {"key": "noise", "family": "control", "display": {"name": "Noise"}}]'
)


def put(records, stage, family, metric, values):
    for model, value in values.items():
        direction = "lower" if metric == "fid" else "higher"
        own = Value(metric, value, direction, 90)
        records.add(Record(stage, model, family, "sound", [own]))


@pytest.fixture
def records():
    found = Records("sound")
    fid = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 0.5, "noise": 0.1}
    put(found, "fidelity", "rad_dino", "fid", fid)
    put(
        found,
        "downstream",
        "classification/augmented",
        "auroc",
        {"a": 0.7612, "b": 0.7634, "c": 0.70, "noise": 0.9},
    )
    return found


def tables_of(records):
    run = Run(records, parse_models(MODELS), "World")
    stems = ("table10_task_ranks", "table10b_rank_correlations")
    return {stem: one_table(stem, run) for stem in stems}


def test_ranks_are_of_printed_values_and_ties_take_the_lowest(records):
    table = tables_of(records)["table10_task_ranks"]
    assert [row.key for row in table.rows] == ["a", "b", "c", "d"]
    by_fid, by_auroc, by_dice = zip(*([c.value for c in row.cells] for row in table.rows))  # noqa: B905
    assert by_fid == (2, 3, 4, 1)
    assert by_auroc == (1, 1, 3, None)  # 0.7612 and 0.7634 are both printed as 0.76
    assert set(by_dice) == {None}
    assert table.notes == ("not run", "no such images")


def test_correlations_say_over_how_many_models(records):
    classification, segmentation, _ = tables_of(records)["table10b_rank_correlations"].rows
    pearson, spearman = classification.cells
    assert pearson.value == pytest.approx(np.corrcoef([1, 2, 3], [1, 1, 3])[0, 1])
    assert spearman.value == pytest.approx(stats.spearmanr([1, 2, 3], [-0.7612, -0.7634, -0.7])[0])
    assert (pearson.n, pearson.interval) == (3, None)
    assert segmentation.cells[0].reason == "0 model(s) have both values: a correlation needs 3"


def test_ties_in_print_are_ties():
    assert ranks(np.array([0.7, np.nan, 0.704, 0.69]), 2)[[0, 2, 3]].tolist() == [2, 2, 1]
    assert np.isnan(ranks(np.array([0.7, np.nan]), 2)[1])


@pytest.mark.parametrize("spearman", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_intervals_hold_what_they_promise_with_eleven_models(rho, spearman):
    generator = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(rho / 2) if spearman else rho
    covered = 0
    for _ in range(1500):
        x = generator.normal(size=11)
        y = rho * x + np.sqrt(1 - rho**2) * generator.normal(size=11)
        r = (stats.spearmanr if spearman else stats.pearsonr)(x, y)[0]
        interval = with_interval(float(r), 11, spearman)
        covered += interval is None or interval[0] <= truth <= interval[1]
    assert 0.93 < covered / 1500 < 0.97


def test_no_interval_of_too_few_models_or_a_perfect_order():
    assert with_interval(0.5, 3, spearman=True) is None
    assert with_interval(1.0, 11, spearman=False) is None
