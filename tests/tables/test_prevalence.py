"""Table 9: prevalence against fidelity, and what of it the sample size explains."""

import json

import numpy as np
import pytest

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.measurement import Measurements
from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.derive.prevalence import correlation, floor_of, measure, positives
from workflow_scripts.tables.figures.findings import draw_prevalence
from workflow_scripts.tables.figures.style import inline_svg
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

# Counts and mean FID of the paper's Table 9, in the order of FINDINGS.
COUNTS = [47704, 46602, 11290, 28601, 7454, 4671, 6491, 53513, 78939, 56433, 2024, 16832, 10971]
COUNTS.append(71537)
FIDS = [114.28, 114.89, 172.14, 130.75, 188.95, 211.58, 194.99, 133.77, 110.75, 130.45, 227.43]
FIDS += [146.69, 172.15, 109.77]
MODELS = [
    {"key": "a", "family": "external", "display": {"name": "A"}},
    {"key": "b", "family": "external", "display": {"name": "B"}},
    {"key": "noise", "family": "control", "display": {"name": "Noise"}},
]


def record(model, fids, floors, kids):
    values = []
    for name, fid, floor, kid in zip(FINDINGS, fids, floors, kids, strict=True):
        absent = {"reason": "too few"}
        values.append(Value("fid", fid, "lower", 90, name, 90, **({} if fid else absent)))
        values.append(Value("fid_floor", floor, "none", 90, name, 90))
        values.append(Value("kid", kid, "lower", 90, name, 90))
    return Record("fidelity", model, "rad_dino", "sound", values)


@pytest.fixture
def cohort():
    counts = dict(zip(FINDINGS, COUNTS, strict=True))
    return {"train": SplitCounts("train", 237388, 1, 1, counts)}


@pytest.fixture
def records():
    """Models whose FID is the paper's by sample size alone, and whose KID knows no prevalence."""
    found = Records()
    floors = [fid - 10 for fid in FIDS]
    kids = [0.1 + 0.01 * ((7 * j) % 14) for j in range(14)]
    found.add(record("a", FIDS, floors, kids))
    found.add(record("b", [fid + 2 for fid in FIDS], floors, kids[::-1]))
    found.add(record("noise", [900.0] * 14, floors, [9.0] * 14))
    return found


def tables(records, cohort):
    run = Run(records, parse_models(json.dumps(MODELS)), "World", cohort)
    stems = ("table09_prevalence", "table09b_prevalence_correlation")
    return {stem: one_table(stem, run) for stem in stems}


def cells(table, key):
    return {c.column.metric: c for row in table.rows if row.key == key for c in row.cells}


def test_the_papers_numbers_give_the_papers_correlation():
    value, n, reason = correlation(np.array(COUNTS), np.array(FIDS))
    assert (round(value, 3), n, reason) == (0.947, 14, None)


def test_findings_stand_in_the_order_of_their_prevalence(records, cohort):
    table = tables(records, cohort)["table09_prevalence"]
    assert [row.key for row in table.rows[:2]] == ["No Finding", "Support Devices"]
    assert table.rows[-1].key == "Pleural Other"
    first = cells(table, "No Finding")
    assert first["count"].value == 78939
    assert first["prevalence_rank"].value == 1
    assert first["fid"].value == pytest.approx(110.75 + 1)  # the mean of A and B, not of noise
    assert first["fid_rank"].value == 2
    assert first["excess"].value == pytest.approx(11)
    assert cells(table, "Pleural Other")["fid_rank"].value == 14


def test_a_correlation_that_the_floor_explains_is_gone_without_it(records, cohort):
    table = tables(records, cohort)["table09b_prevalence_correlation"]
    assert cells(table, "a")["fid"].value == pytest.approx(0.947, abs=5e-4)
    assert cells(table, "floor")["fid"].value == pytest.approx(0.947, abs=5e-4)
    assert abs(cells(table, "a")["kid"].value) < 0.4
    assert [row.key for row in table.rows] == ["a", "b", "average", "noise", "floor"]
    noise = cells(table, "noise")
    assert noise["fid"].value is None
    assert noise["fid"].reason == "all counts or all values are equal"


def test_a_finding_without_a_value_in_one_model_has_no_mean(records, cohort):
    found = Records()
    for entry in records.all():
        fids = [v.value for v in entry.values if v.metric == "fid"]
        if entry.model == "b":
            fids[3] = None
        floors = [v.value for v in entry.values if v.metric == "fid_floor"]
        kids = [v.value for v in entry.values if v.metric == "kid"]
        found.add(record(entry.model, fids, floors, kids))
    both = tables(found, cohort)
    edema = cells(both["table09_prevalence"], "Edema")
    assert edema["fid"].value is None
    assert edema["fid"].reason == "not known for every model on 10 or more images"
    assert edema["kid"].value is not None
    correlations = both["table09b_prevalence_correlation"]
    assert cells(correlations, "b")["fid"].n == 13
    assert cells(correlations, "a")["fid"].n == 14


def test_too_few_findings_have_no_correlation(records):
    counts = {name: 5 * (name in ("Edema", "Fracture")) for name in FINDINGS}
    cohort = {"train": SplitCounts("train", 10, 1, 1, counts)}
    table = tables(records, cohort)["table09b_prevalence_correlation"]
    assert cells(table, "a")["fid"].reason == "only 2 finding(s) have a count and a value"


def test_without_records_the_tables_say_so(cohort):
    for table in tables(Records(), cohort).values():
        assert table.rows
        assert table.notes


def test_the_figure_names_the_correlations_and_the_floor(records, cohort):
    models = parse_models(json.dumps(MODELS))
    long_table = Run(records, models, "World").measurements
    arguments = (measure(long_table, models), floor_of(long_table, models), positives(cohort))
    svg = inline_svg(draw_prevalence(*arguments))
    assert "rank correlation +0.95;" in svg
    assert "floor +0.95" in svg
    assert svg == inline_svg(draw_prevalence(*arguments))
    assert (
        draw_prevalence([], floor_of(Measurements([], "sound"), models), positives(cohort)) is None
    )


def test_the_figure_says_what_table_9b_says(records, cohort):
    """A model whose FID falls with rarity: its mean with A follows it, the mean correlation not."""
    found = Records()
    floors, kids = [0.0] * 14, [0.1 + 0.01 * j for j in range(14)]
    found.add(record("a", FIDS, floors, kids))
    found.add(record("b", [3 * (300 - fid) for fid in FIDS], floors, kids))
    models = parse_models(json.dumps(MODELS))
    table = tables(found, cohort)["table09b_prevalence_correlation"]
    shown = cells(table, "average")["fid"].value
    assert shown == pytest.approx(-0.947, abs=5e-4)
    long_table = Run(found, models, "World").measurements
    arguments = (measure(long_table, models), floor_of(long_table, models), positives(cohort))
    assert f"rank correlation {shown:+.2f}" in inline_svg(draw_prevalence(*arguments))
