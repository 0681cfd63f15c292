"""Copies that were saved in another way: what is said of them, and how far it may move a model."""

import numpy as np
import pytest

from workflow_scripts.common.records import Record, Value
from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.derive.preprocessing import NONE_RUN, may_move
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run


def control(key, kind):
    return ModelEntry(key, "control", key.title(), {}, settings={"control": kind})


# FID, KID, average re-ID score, and latent and pixel distance.
MEASURED = {
    "good": (4.0, 0.01, 0.3, 0.5, 40.0),
    "poor": (9.0, 0.04, 0.2, 0.6, 50.0),
    "copies": (0.0, 0.0, 0.99, 0.0, 0.0),
    "jpeg": (1.0, -0.001, 0.90, 0.1, 3.0),
    "small": (0.25, 0.0025, 0.95, 0.2, 2.0),
}
MODELS = [
    ModelEntry("poor", "external", "Poor", {}),
    ModelEntry("good", "external", "Good", {}),
    control("copies", "training_copies"),
    control("jpeg", "recoded_copies"),
    control("small", "recoded_copies"),
]


def run_of(models):
    records = Records("sound")
    for model in models:
        fid, kid, score, latent, pixel = MEASURED[model.key]
        values = [Value("fid", fid, "lower", 90, n_reference=80)]
        values.append(Value("kid", kid, "lower", 90, n_reference=80))
        records.add(Record("fidelity", model.key, "rad_dino", "sound", values))
        values = [
            Value("reid_mean_of_max", score, "lower", 30),
            Value("reid_share", score, "lower", 30),
            Value("latent_mean_of_min", latent, "higher", 30),
            Value("pixel_mean_of_min", pixel, "higher", 30),
        ]
        records.add(Record("privacy", model.key, "pairwise", "sound", values))
        values = [Value("any_seen", 1.0, "lower", 30)]
        records.add(Record("privacy", model.key, "lenses", "sound", values))
    return Run(records, models, "World")


def rows_of(table):
    return {row.key: {c.column.metric: c.value for c in row.cells} for row in table.rows}


def test_copies_stand_in_rows_with_how_far_they_move_the_most_faithful_model():
    table = one_table("table21d_preprocessing", run_of(MODELS))
    rows = rows_of(table)
    assert list(rows) == ["copies", "jpeg", "small"]
    assert rows["copies"]["fid_moves"] == 0
    # (2 + 1)^2 - 4 and (2 + 0.5)^2 - 4, at the FID of 4; (0.1 + 0.05)^2 - 0.01 at the KID of 0.01.
    assert rows["jpeg"]["fid_moves"] == pytest.approx(5.0)
    assert rows["small"]["fid_moves"] == pytest.approx(2.25)
    assert rows["small"]["kid_moves"] == pytest.approx(0.0125)
    assert rows["jpeg"]["kid_moves"] == 0  # an estimate below 0 moves nothing
    assert rows["jpeg"]["reid_mean_of_max"] == 0.9


def test_a_sentence_says_how_large_a_difference_of_two_models_saving_alone_may_make():
    caption = one_table("table21d_preprocessing", run_of(MODELS)).caption
    assert "5.000 in FID beside Good's 4.000 (Jpeg)" in caption
    assert "0.0125 in KID beside Good's 0.0100 (Small)" in caption
    assert "0.090 in the average re-ID score (Jpeg)" in caption
    assert "0.200 in latent distance (Small)" in caption
    assert "3.0 in pixel distance (Jpeg)" in caption


def test_without_such_copies_or_without_a_model_the_table_says_why():
    table = one_table("table21d_preprocessing", run_of(MODELS[:3]))
    assert {cell.reason for row in table.rows for cell in row.cells} == {NONE_RUN}
    table = one_table("table21d_preprocessing", run_of(MODELS[2:]))
    reasons = {c.column.metric: c.reason for c in table.rows[1].cells}
    assert "no model's images" in reasons["fid_moves"]
    assert reasons["fid"] is None


def test_no_way_of_saving_moves_an_fid_farther_than_its_bound_and_some_reach_it():
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(60):
        real = rng.standard_normal((400, 4))
        model = rng.standard_normal((400, 4)) @ rng.normal(np.eye(4), 0.3) + rng.normal(0, 1, 4)
        moved = model @ rng.normal(np.eye(4), 0.1) + rng.normal(0, 0.3, 4)
        before, after = (frechet_distance(real, x) for x in (model, moved))
        bound = may_move(before, frechet_distance(model, moved))
        assert abs(after - before) <= bound * (1 + 1e-6)
        reached.append(abs(after - before) / bound)
    # A shift away from the radiographs moves it by as much; the copies' own FID is no bound.
    real, model = rng.standard_normal((400, 4)), rng.standard_normal((400, 4))
    model += 2 - model.mean(axis=0) + real.mean(axis=0)
    moved = model + 0.5
    before, after = (frechet_distance(real, x) for x in (model, moved))
    own = frechet_distance(model, moved)
    assert after - before > 3 * own
    assert max(reached) > 0.7
