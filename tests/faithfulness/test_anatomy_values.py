"""Distances, plausibility and the prompt, on numbers whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.faithfulness.anatomy_values import (
    Rule,
    anatomy_values,
    distance,
    floor,
    halves,
    measured,
    real_values,
)
from workflow_scripts.faithfulness.patients import jackknifed

PATIENTS, FILMS = 60, 4
N = PATIENTS * FILMS


def chests(seed=0, cardiomegaly=None, shift=0.1, **changes):
    """Return what was seen in films of patients whose hearts are alike in all films of one."""
    rng = np.random.default_rng(seed)
    large = np.zeros(N) if cardiomegaly is None else cardiomegaly
    own = np.repeat(rng.normal(0, 0.03, PATIENTS), FILMS)
    columns = {
        "id": [f"i{k}" for k in range(N)],
        "patient_id": np.repeat([f"p{k}" for k in range(PATIENTS)], FILMS),
        "ratio": 0.45 + own + rng.normal(0, 0.02, N) + shift * large,
        "area_right": rng.normal(0.14, 0.01, N),
        "area_left": rng.normal(0.12, 0.01, N),
        "asymmetry": rng.normal(0.07, 0.02, N),
        "heart_inside": np.ones(N),
        "clavicles": 2,
        "ribs": 18,
        "structures": [b"\xf8"] * N,
        "organs": b"",
    }
    return measured(pd.DataFrame(columns | changes))


def labels(seed=5):
    return (np.random.default_rng(seed).random(N) < 0.3).astype(float)


def values_of(images, own=None, large=None):
    own = chests(1, labels()) if own is None else own
    found = anatomy_values(images, own, own, labels() if large is None else large, 200, 3)
    return {value.metric: value for value in found}


def test_the_distance_of_a_shift_is_the_shift():
    values = np.random.default_rng(0).normal(size=400)
    assert distance(values, values + 0.25) == pytest.approx(0.25)
    assert distance(np.array([0.0, np.nan, 1.0]), np.array([0.0, 1.0])) == 0
    assert np.isnan(distance(np.array([0.0, np.nan]), values))


def test_the_floor_is_the_distance_of_other_patients_at_as_many_images():
    truths, floors = [], []
    for seed in range(20):
        rows = chests(seed)
        truths.append(distance(rows["ratio"].to_numpy(), chests(500 + seed)["ratio"].to_numpy()))
        floors.append(floor(rows["ratio"].to_numpy(), rows["patient_id"].to_numpy(), N, N, seed))
    assert np.mean(floors) == pytest.approx(np.mean(truths), rel=0.25)
    rows = chests(0)
    sides = rows["ratio"].to_numpy(), rows["patient_id"].to_numpy()
    # It falls with the square root of the images of both sides.
    assert floor(*sides, 4 * N, 4 * N, 0) == pytest.approx(floor(*sides, N, N, 0) / 2)
    assert floor(*sides, N, N, 0) == pytest.approx(floor(*sides, N // 2, N // 2, 0) / 2**0.5)
    # Patients are the units: without them the floor would be far too low.
    alone = floor(chests(0)["ratio"].to_numpy(), np.arange(N), N, N, 0)
    assert alone < 0.75 * np.mean(floors)


def test_the_interval_of_a_distance_covers_it_at_the_shape_of_patients():
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sides = [
            np.repeat(rng.normal(0, 1, PATIENTS), FILMS) + rng.normal(0, 0.5, N) for _ in range(2)
        ]
        owners = np.repeat(np.arange(PATIENTS), FILMS).astype(str)
        # In no order: else a group of neighbours would be a group of patients by itself.
        order = rng.permutation(N)
        sides, owners = [side[order] for side in sides], owners[order]

        def statistic(keep, kept, sides=sides):
            return distance(sides[0][keep], sides[1][kept] + 1.0)

        _, interval = jackknifed(statistic, owners, owners, 0.0)
        covered += interval[0] <= 1.0 <= interval[1]
    assert covered >= 52


def test_radiographs_of_the_same_hearts_stand_at_zero_and_one_shifted_organ_moves_alone():
    own = chests(1, labels())
    same = values_of(own, own)
    assert same["ratio_distance"].value == 0
    assert same["ratio_share_of_ceiling"].value == 1
    moved = values_of(own.assign(ratio=own["ratio"] + 0.1), own)
    assert moved["ratio_distance"].value == pytest.approx(0.1)
    assert moved["ratio_distance"].value > 3 * moved["ratio_floor"].value
    for name in ("lung_area", "asymmetry", "heart_inside"):
        assert moved[f"{name}_distance"].value == 0
    assert moved["ratio_difference"].value == pytest.approx(same["ratio_difference"].value)


def test_a_heart_that_does_not_follow_its_prompt_is_at_chance_and_one_that_does_at_the_ceiling():
    follows = values_of(chests(2, labels()))
    assert follows["ratio_difference"].value == pytest.approx(0.1, abs=0.02)
    assert follows["ratio_share_of_ceiling"].interval[1] > 0.9
    deaf = values_of(chests(2))
    assert abs(deaf["ratio_difference"].value) < 0.02
    assert (
        deaf["ratio_share_of_ceiling"].interval[0] < 0 < deaf["ratio_share_of_ceiling"].interval[1]
    )
    assert deaf["ratio_auroc_ceiling"].value > 0.9


def test_images_without_heart_or_lungs_are_missed_and_say_nothing_of_their_prompt():
    gone = chests(2, labels())
    gone.loc[: N // 2, "ratio"] = np.nan
    found = values_of(gone)
    assert found["implausible"].value >= 0.5
    assert found["ratio_distance"].n == gone["ratio"].notna().sum()
    assert 0.2 < found["ratio_share_of_ceiling"].value < 0.8
    # A heart that is never drawn where it should be large is no small heart.
    never = chests(2)
    never.loc[labels() == 1, "ratio"] = np.nan
    assert values_of(never)["ratio_auroc"].value == pytest.approx(0.5, abs=0.02)
    assert "0 patient(s) whose images show" in values_of(never)["ratio_difference"].reason
    # What shows none is left out of the difference; it does not draw it to 0.
    half = chests(2, labels())
    half.loc[::2, "ratio"] = np.nan
    measured_half = values_of(half)["ratio_difference"]
    assert measured_half.n == N // 2
    assert measured_half.value == pytest.approx(0.1, abs=0.02)
    empty = values_of(gone.assign(ratio=np.nan))
    assert empty["ratio_distance"].value is None
    assert empty["implausible"].value == 1
    for name in ("ratio_difference", "ratio_auroc", "ratio_auroc_ceiling"):
        assert empty[name].value is None
        assert empty[name].reason == "no image shows heart and lungs"


def test_the_rule_is_tried_on_patients_that_it_was_not_set_on():
    rows = chests(3)
    first = halves(rows["patient_id"].to_numpy(), 3)
    assert not set(rows["patient_id"][first]) & set(rows["patient_id"][~first])
    rule = Rule(rows[first])
    assert not rule.implausible(rows[first]).any()
    assert rule.implausible(rows[~first]).mean() < 0.2
    alarms = values_of(rows, rows)["implausible_radiographs"]
    assert alarms.value == rule.implausible(rows[~first]).mean() > 0
    assert alarms.n == (~first).sum()
    of_model = values_of(rows, rows)["implausible"]
    assert (of_model.value, of_model.n) == (alarms.value, alarms.n), "a copy is no better"
    strange = rows.assign(asymmetry=0.8)
    assert rule.implausible(strange).all()
    assert rule.implausible(rows.assign(clavicles=1)).all()
    without = rows.assign(clavicles=1)
    assert not Rule(without[first]).implausible(without[first]).all(), "radiographs lack them, too"


def test_one_patient_with_most_films_does_not_make_the_share_certain():
    """Its 60 films are one draw of a patient, whatever the other nine show."""
    rows = chests(3)
    first = halves(rows["patient_id"].to_numpy(), 3)
    rule = Rule(rows[first])
    plausible = rows[~first & ~rule.implausible(rows)].drop_duplicates("patient_id")
    images = plausible.iloc[[0] * 60 + list(range(1, 10))].reset_index(drop=True)
    images.loc[:59, "asymmetry"] = 0.8
    found = anatomy_values(images, rows, rows, np.zeros(len(images)), 50, 3)
    implausible = next(value for value in found if value.metric == "implausible")
    assert implausible.value == pytest.approx(60 / 69)
    assert implausible.interval[0] < 0.3  # of ten equal patients it would be 0.55


def test_of_few_patients_with_cardiomegaly_nothing_is_said():
    large = np.zeros(N)
    large[:FILMS] = 1
    value = values_of(chests(2), large=large)["ratio_auroc"]
    assert value.value is None
    assert "1 test patient(s) with or without cardiomegaly" in value.reason


def test_the_radiographs_own_row_has_its_false_alarms():
    rows = chests(4, labels())
    found = {value.metric: value for value in real_values(rows, labels(), 100, 3)}
    seen = values_of(rows, rows)
    assert found["implausible"].value == seen["implausible_radiographs"].value
    assert found["both_clavicles"].value == 1
    assert found["ribs"].value == 18
    assert values_of(rows, rows.assign(ribs=0))["ribs"].reason.startswith("the labeller draws no")


def test_intervals_of_shares_end_where_shares_do():
    """Of few images that lack clavicles, or that have them, a patient's weighs much."""
    clavicles = np.full(N, 2)
    clavicles[:3] = 0  # films of one patient
    most = values_of(chests(2, clavicles=clavicles))["both_clavicles"]
    least = values_of(chests(2, clavicles=2 - clavicles))["both_clavicles"]
    assert (most.interval[1], least.interval[0]) == (1, 0)
    assert most.interval[0] < most.value < 1
    assert 0 < least.value < least.interval[1]
