"""The Pareto front: by hand, and what must hold of any front."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import PARETO, WEIGHED, one_table
from workflow_scripts.tables.derive.pareto import dominators
from workflow_scripts.tables.derive.pareto import standings as standings_of
from workflow_scripts.tables.figures.style import styles_by_key
from workflow_scripts.tables.figures.trade_offs import draw_pareto
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12).map(np.array)


@given(POINTS)
def test_no_member_is_dominated_and_everyone_else_by_a_member(points):
    found = dominators(points)
    front = {i for i, beaten_by in enumerate(found) if not beaten_by}
    assert front
    for i, beaten_by in enumerate(found):
        for k in beaten_by:
            assert all(points[k] <= points[i])
            assert any(points[k] < points[i])
        if i not in front:
            assert front & set(beaten_by)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    shuffled = dominators(points[order])
    own = dominators(points)
    for place, i in enumerate(order):
        assert {order[k] for k in shuffled[place]} == set(own[i])


@given(POINTS)
def test_equal_points_are_in_or_out_together(points):
    twice = dominators(np.concatenate([points, points]))
    n = len(points)
    for i in range(n):
        assert twice[i] == twice[n + i]
        assert n + i not in twice[i]


def records_of(values, p=0.2):
    records = Records()
    for model, own in values.items():
        for measure, value in zip(WEIGHED, own, strict=True):
            if value is not None:
                interval = (value - 0.1, value + 0.1)
                own_p = p if measure.is_gain else None
                held = Value(measure.metric, value, "none", 9, interval=interval, p=own_p)
                records.add(Record(measure.stage, model, measure.family, "sound", [held]))
    return records


VALUES = {
    "faithful": (0.1, 0.9, 0.02, 0.8),
    "private": (0.5, 0.1, 0.01, 0.7),
    "worse": (0.6, 0.1, 0.01, 0.7),  # than private
    "worst": (0.9, 0.9, -0.1, 0.1),  # than all three
    "unknown": (0.0, 0.0, None, 0.9),
    "copies": (0.0, 1.0, 0.5, 1.0),
}


@pytest.fixture
def bench():
    models = parse_models(
        json.dumps(
            [
                {
                    "key": key,
                    "family": "control" if key == "copies" else "sana",
                    "display": {"name": key.title()},
                    "missing": {"augment": "no such images"} if key == "unknown" else {},
                }
                for key in VALUES
            ]
        )
    )
    return records_of(VALUES), models


def standings(bench):
    records, models = bench
    return standings_of(Run(records, models, "World").measurements, models, WEIGHED)


def test_who_dominates_whom_by_hand(bench):
    found = {own.model.key: own for own in standings(bench)}
    assert {key: own.on_front for key, own in found.items()} == {
        "faithful": True,
        "private": True,
        "worse": False,
        "worst": False,
        "unknown": None,
        "copies": None,
    }
    assert found["worse"].dominated_by == ("Private",)
    assert found["worst"].dominated_by == ("Faithful", "Private", "Worse")
    assert found["copies"].dominated_by == ()
    assert [cell.value for cell in found["private"].numbers] == [0.5, 0.1, 0.01, 0.7]
    assert found["private"].numbers[1].interval == (0.0, 0.2)
    assert found["unknown"].numbers[2].reason == "no such images"


def test_the_table_says_who_is_on_the_front_and_why_a_model_is_not_compared(bench):
    table = one_table(PARETO.stem, Run(*bench, "World"))
    rows = {row.key: row for row in table.rows}
    assert rows["faithful"].attributes == ("✓", "–")
    assert rows["worst"].attributes == ("✗", "Faithful, Private, Worse")
    assert rows["unknown"].attributes == ("–", "–")
    assert rows["copies"].kind == "control"
    assert table.notes == ("no such images",)


def test_a_gain_of_one_training_run_puts_nobody_on_the_front(bench):
    _, models = bench
    found = standings((records_of(VALUES, p=None), models))
    assert {own.on_front for own in found} == {None}
    assert {own.dominated_by for own in found} == {()}


def test_findings_shown_put_a_model_on_the_front_that_is_worse_in_all_else(bench):
    _, models = bench
    shows = {key: (*own[:3], 0.9 if key == "worse" else own[3]) for key, own in VALUES.items()}
    found = {own.model.key: own for own in standings((records_of(shows), models))}
    assert found["worse"].on_front
    assert found["worst"].dominated_by == ("Faithful", "Private", "Worse")
    # A model that was not judged does not compete, as one that lacks any other measure.
    unseen = shows | {"private": (*shows["private"][:3], None)}
    found = {own.model.key: own for own in standings((records_of(unseen), models))}
    assert found["private"].on_front is None


def test_where_no_model_was_judged_the_other_measures_decide(bench):
    _, models = bench
    unseen = {key: (*own[:3], None) for key, own in VALUES.items()}
    found = {own.model.key: own for own in standings((records_of(unseen), models))}
    assert found["worse"].dominated_by == ("Private",)
    assert found["faithful"].on_front
    assert found["private"].on_front


@pytest.mark.parametrize("left_out", range(len(WEIGHED)))
def test_the_front_is_drawn_without_a_measure_that_nobody_has(left_out):
    values = {key: [*own] for key, own in VALUES.items()}
    for own in values.values():
        own[left_out] = None
    models = parse_models(
        json.dumps(
            [
                {
                    "key": key,
                    "family": "control" if key == "copies" else "sana",
                    "display": {"name": key},
                }
                for key in values
            ]
        )
    )
    run = Run(records_of(values), models, "World")
    placed = standings_of(run.measurements, models, WEIGHED)
    assert any(standing.on_front for standing in placed)
    columns = one_table(PARETO.stem, run).layout.columns
    drawing = draw_pareto(placed, columns, styles_by_key(models))
    placeable = WEIGHED[left_out].stage not in ("fidelity", "privacy")
    assert (drawing is not None) == placeable
