"""The stress set's numbers: judges of known error, values by hand, and what must not matter."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.cohort.stress_prompts import stress_set
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.downstream.classification.metrics import weighted_auroc
from workflow_scripts.downstream.gains import patient_draws, percentiles
from workflow_scripts.faithfulness import contrasts
from workflow_scripts.faithfulness.contrasts import (
    Radiographs,
    image_scores,
    stress_values,
    triple_taus,
)
from workflow_scripts.faithfulness.evidence import REGIONS, Readings
from workflow_scripts.faithfulness.stress_measures import METRICS, QUESTIONS, SCORE_COLUMNS

EFFUSION = FINDINGS.index("Pleural Effusion")
HEART = FINDINGS.index("Cardiomegaly")


def blank(n, rng=None):
    """Return readings of images that say nothing: noise, or zeros."""
    draw = np.zeros if rng is None else rng.standard_normal
    evidence = {name: np.array(draw((n, len(FINDINGS)))) for name in REGIONS}
    return Readings(np.array(draw((n, len(FINDINGS)))), evidence, np.array(draw((n, 3))))


def pairs(contrast, levels, count, finding="Pleural Effusion"):
    """Return groups of prompts of one contrast and finding."""
    rows = [
        (f"stress-{contrast}-{k:03d}-{level}", contrast, k, level, finding, f"{k} {level}")
        for k in range(count)
        for level in levels
    ]
    return pd.DataFrame(
        rows, columns=["prompt_id", "contrast", "group", "level", "finding", "caption"]
    )


def by_key(values):
    return {(v.metric, v.subset): v for v in values}


def sided(rng, sides, sharpness):
    """Return readings whose evidence lies on the given sides, +1 left."""
    seen = blank(len(sides), rng)
    seen.evidence["left"][:, EFFUSION] += sharpness * sides
    return seen


def judged(rng, share, sharpness=1.5, groups=60):
    """Return side's values of a model that draws a share of its images on the side asked for."""
    stress = pairs("side", ("left", "right"), groups)
    asked = np.where(stress["level"] == "left", 1, -1)
    drawn = np.where(rng.random(len(stress)) < share, asked, rng.choice([-1, 1], len(stress)))
    true = np.repeat([1, -1], 100)
    captions = [f"Small {'left' if s > 0 else 'right'} pleural effusion." for s in true]
    real = Radiographs(
        sided(rng, true, sharpness),
        np.array([f"p{k}" for k in range(200)]),
        np.ones((200, len(FINDINGS)), bool),
        captions,
    )
    images = sided(rng, drawn, sharpness)
    return by_key(stress_values(stress, images, images, real, 100, int(rng.integers(1e6))))


def test_a_judge_of_known_error_recovers_the_true_share_and_its_interval_covers():
    rng, share = np.random.default_rng(3), 0.6
    runs = [judged(rng, share) for _ in range(25)]
    found = [values["stress_side_share", "all"] for values in runs]
    raw = [values["stress_side", "all"].value for values in runs]
    assert np.mean([v.value for v in found]) == pytest.approx(share, abs=0.05)
    assert 2 * np.mean(raw) - 1 < share - 0.03  # uncorrected it is too low
    covers = [v.interval[0] <= share <= v.interval[1] for v in found]
    assert np.mean(covers) >= 0.8  # of 25


def test_errors_of_the_parser_are_undone(monkeypatch):
    monkeypatch.setattr(contrasts, "ERRORS", {"side": 0.0})
    plain = judged(np.random.default_rng(1), 0.9)["stress_side_ceiling", "all"].value
    monkeypatch.setattr(contrasts, "ERRORS", {"side": 0.1})
    undone = judged(np.random.default_rng(1), 0.9)["stress_side_ceiling", "all"].value
    assert undone - 0.5 == pytest.approx((plain - 0.5) / 0.9)


def test_without_captions_that_say_it_the_value_stands_uncorrected_and_says_so():
    stress = pairs("side", ("left", "right"), 12)
    images = sided(np.random.default_rng(0), np.where(stress["level"] == "left", 1, -1), 3.0)
    real = Radiographs(
        blank(30), np.arange(30).astype(str), np.ones((30, 14), bool), ["Pleural effusion."] * 30
    )
    values = by_key(stress_values(stress, images, images, real, 100, 0))
    assert values["stress_side", "all"].value > 0.9
    assert values["stress_side_share", "all"].value is None
    assert "uncorrected" in values["stress_side_share", "all"].reason
    assert "the rarer side that captions say" in values["stress_side_share", "all"].reason


def test_falsely_read_captions_that_say_neither_cost_their_share():
    rng = np.random.default_rng(8)
    sides = rng.choice([-1, 1], 20_000)
    neutral = rng.random(20_000) < 0.3  # the judge sees them on no side
    scores = rng.normal(size=20_000) + np.where(neutral, 0, 0.25 * sides)
    whole, true = (
        contrasts._auroc(sides[rows] > 0, scores[rows], np.empty((0, rows.sum()))).value
        for rows in (np.ones(20_000, bool), ~neutral)
    )
    assert 0.5 + (whole - 0.5) / (1 - 0.3) == pytest.approx(true, abs=0.01)


def test_percentiles_of_ten_groups_and_patients_are_expanded():
    """Plain ones held an AUROC of ten groups in 87 to 91% of simulations, these in 92 to 96%."""
    stress = pairs("presence", ("present", "denied", "unmentioned"), 10)
    images, rng = blank(30), np.random.default_rng(0)
    images.probabilities[:, EFFUSION] = rng.normal(size=30) + (stress["level"] == "present")
    asked = (stress["level"] != "denied").to_numpy()
    labels = np.zeros((40, len(FINDINGS)), bool)
    labels[:10] = True
    seen = blank(40)
    seen.probabilities[:, EFFUSION] = rng.normal(size=40) + 2 * labels[:, 0]
    real = Radiographs(seen, np.arange(40).astype(str), labels, [None] * 40)
    values = by_key(stress_values(stress, images, images, real, 300, 5))
    number = next(k for k, question in enumerate(QUESTIONS) if question.key == "presence")
    for key, high, scores, draws in (
        (
            "stress_presence",
            (stress["level"] == "present").to_numpy()[asked],
            images.probabilities[asked, EFFUSION],
            contrasts._group_draws(stress["group"].to_numpy()[asked], 300, [5, number]),
        ),
        (
            "stress_presence_ceiling",
            labels[:, 0],
            seen.probabilities[:, EFFUSION],
            np.concatenate(list(patient_draws(real.patients, 300, 5))),
        ),
    ):
        drawn = weighted_auroc(high, scores, draws)
        assert values[key, "Pleural Effusion"].interval == percentiles(drawn, 10)
        assert percentiles(drawn, 10)[0] < percentiles(drawn)[0]


def test_a_distance_of_few_groups_has_no_interval():
    levels = {"wording": ("wording0", "wording1"), "presence": ("present", "denied", "unmentioned")}
    real = Radiographs(blank(1), np.array(["p"]), np.zeros((1, len(FINDINGS)), bool), [None])
    for count, has in ((9, False), (10, True)):
        stress = pd.concat([pairs(*one, count) for one in levels.items()], ignore_index=True)
        images = blank(len(stress), np.random.default_rng(0))
        value = by_key(stress_values(stress, images, images, real, 100, 0))["stress_wording", "all"]
        assert value.value > 0
        assert (value.interval is not None) == (value.interval_kind is not None) == has


def side_values(groups):
    """Return side's values of two findings, each with so many groups, drawn where asked."""
    stress = pd.concat(
        [
            pairs("side", ("left", "right"), groups),
            pairs("side", ("left", "right"), groups, "Consolidation").assign(
                group=lambda rows: rows["group"] + groups
            ),
        ],
        ignore_index=True,
    )
    rng = np.random.default_rng(0)
    asked = np.where(stress["level"] == "left", 1, -1)
    images = sided(rng, asked, 1.5)
    images.evidence["left"][:, FINDINGS.index("Consolidation")] += 1.5 * asked
    true = np.repeat([1, -1], 40)
    seen = sided(rng, true, 1.5)
    seen.evidence["left"][:, FINDINGS.index("Consolidation")] += 1.5 * true
    words = ["left" if s > 0 else "right" for s in true]
    captions = [
        # 60 radiographs say the side of an effusion, 60 of a consolidation, 80 of either.
        (f"{word} pleural effusion. " if k % 40 < 30 else "")
        + (f"{word} consolidation." if k % 40 >= 10 else "")
        for k, word in enumerate(words)
    ]
    real = Radiographs(
        seen, np.arange(80).astype(str), np.ones((80, len(FINDINGS)), bool), captions
    )
    return by_key(stress_values(stress, images, images, real, 100, 0))


def test_a_ceiling_counts_its_radiographs_and_all_those_of_any_finding():
    values = side_values(12)
    assert values["stress_side_ceiling", "Pleural Effusion"].n == 60
    assert values["stress_side_ceiling", "all"].n == 80
    assert values["stress_side_share", "all"].n_reference == 80
    assert values["stress_side_share", "all"].n == 48


def test_of_few_groups_of_a_finding_there_is_no_interval_and_over_findings_there_is():
    few, many = side_values(9), side_values(10)
    for key in ("stress_side", "stress_side_share"):
        assert few[key, "Consolidation"].interval is None
        assert few[key, "Consolidation"].value is not None
        assert few[key, "all"].interval is not None
        assert many[key, "Consolidation"].interval is not None


def test_tau_over_all_leaves_out_findings_that_the_judge_cannot_tell():
    stress = pd.concat(
        [
            pairs("severity", ("mild", "moderate", "severe"), 12),
            pairs("severity", ("mild", "moderate", "severe"), 12, "Edema").assign(
                group=lambda rows: rows["group"] + 12
            ),
        ],
        ignore_index=True,
    )
    images = blank(len(stress))
    grade = stress["level"].map({"mild": 0.1, "moderate": 0.2, "severe": 0.3}).to_numpy()
    images.probabilities[:, EFFUSION] = grade
    images.probabilities[:, FINDINGS.index("Edema")] = -grade
    seen = blank(80)
    seen.probabilities[:, EFFUSION] = np.repeat([0.1, 0.9], 40)
    captions = ["Mild effusion. Mild edema."] * 40 + ["Severe effusion. Severe edema."] * 40
    real = Radiographs(
        seen, np.arange(80).astype(str), np.ones((80, len(FINDINGS)), bool), captions
    )
    values = by_key(stress_values(stress, images, images, real, 100, 0))
    assert values["stress_severity_tau", "Edema"].value == -1
    assert values["stress_severity_tau", "all"].value == 1
    blind = replace(real, readings=blank(80))
    values = by_key(stress_values(stress, images, images, blind, 100, 0))
    assert values["stress_severity_tau", "all"].value == 0


def test_mirrored_images_lie_on_the_other_side():
    stress = pairs("side", ("left", "right"), 20)
    sides = np.where(stress["level"] == "left", 1, -1)
    images = sided(np.random.default_rng(0), sides, 2.0)
    turned = {**images.evidence, "left": images.evidence["right"]}
    turned["right"] = images.evidence["left"]
    real = Radiographs(blank(2), np.array(["a", "b"]), np.zeros((2, 14), bool), [None, None])
    mirror = replace(images, evidence=turned)
    values = by_key(stress_values(stress, images, mirror, real, 50, 0))
    own = values["stress_side", "all"].value
    assert values["stress_side_mirrored", "all"].value == pytest.approx(1 - own)


def test_presence_negation_and_tau_by_hand():
    present = pairs("presence", ("present", "denied", "unmentioned"), 2)
    severe = pairs("severity", ("mild", "moderate", "severe"), 2)
    stress = pd.concat([present, severe], ignore_index=True)
    images = blank(len(stress))
    images.probabilities[:, EFFUSION] = [
        *(0.9, 0.2, 0.1),
        *(0.15, 0.3, 0.2),
        *(0.1, 0.2, 0.3),
        *(0.3, 0.3, 0.2),
    ]
    real = Radiographs(blank(2), np.array(["a", "b"]), np.zeros((2, 14), bool), [None, None])
    values = by_key(stress_values(stress, images, images, real, 50, 0))
    # 0.9 and 0.15 against 0.1 and 0.2: three of four pairs; 0.2 and 0.3: three and a half.
    assert values["stress_presence", "all"].value == pytest.approx(3 / 4)
    assert values["stress_negation", "all"].value == pytest.approx(3.5 / 4)
    assert triple_taus(stress, images).to_list() == pytest.approx([1.0, -2 / 3])
    assert values["stress_severity_tau", "all"].value == pytest.approx(1 / 6)
    assert values["stress_severity_tau", "Pleural Effusion"].value == pytest.approx(1 / 6)


def test_the_change_of_other_words_is_a_share_of_what_another_content_changes():
    stress = pd.concat(
        [
            pairs("presence", ("present", "denied", "unmentioned"), 1),
            pairs("wording", ("wording0", "wording1"), 2),
        ],
        ignore_index=True,
    )
    images = blank(len(stress))
    images.features[0] = [3, 4, 0]  # present: 5 from unmentioned
    images.features[3] = [0, 1, 0]  # a first wording: 1 from the second
    real = Radiographs(blank(2), np.array(["a", "b"]), np.zeros((2, 14), bool), [None, None])
    values = by_key(stress_values(stress, images, images, real, 50, 0))
    assert values["stress_wording", "all"].value == pytest.approx(0.5 / 5)
    assert "`view`" in values["stress_view", "all"].reason
    images.features[0] = 0
    values = by_key(stress_values(stress, images, images, real, 50, 0))
    assert "the same whatever is asked" in values["stress_wording", "all"].reason


def test_every_declared_metric_has_a_value_or_a_reason_on_any_part_of_the_set():
    real = Radiographs(
        blank(40, np.random.default_rng(2)),
        np.arange(40).astype(str),
        np.random.default_rng(3).random((40, 14)) < 0.5,
        [None] * 40,
    )
    for groups in (1, 7, 40):
        stress = stress_set(groups)
        images = blank(len(stress), np.random.default_rng(groups))
        values = by_key(stress_values(stress, images, images, real, 50, 0))
        assert {metric.key for metric in METRICS} == {metric for metric, _ in values}
        assert all((metric.key, "all") in values for metric in METRICS)
        scores = image_scores(stress, images, list(values.values()))
        assert list(scores.columns) == list(SCORE_COLUMNS)
        assert scores["prompt_id"].tolist() == stress["prompt_id"].tolist()


def test_a_group_comes_out_as_asked_by_hand():
    stress = pairs("presence", ("present", "denied", "unmentioned"), 3)
    images = blank(len(stress))
    images.probabilities[:, EFFUSION] = [
        *(0.9, 0.3, 0.2),  # seen where asked alone
        *(0.9, 0.8, 0.2),  # seen though denied
        *(0.2, 0.2, 0.3),  # not seen
    ]
    scores = image_scores(stress, images, [])
    assert scores.drop_duplicates("group")["as_asked"].tolist() == [True, False, False]
    assert not scores["told"].any()
