"""Patients, findings and splits have the intended frequencies."""

from collections import defaultdict

import numpy as np
import pytest

from workflow_scripts.common.manifest import FINDINGS, SPLITS
from workflow_scripts.world.anatomy import draw_study
from workflow_scripts.world.population import (
    DRAWN,
    PREVALENCE,
    draw_labels,
    draw_population,
)
from workflow_scripts.world.radiograph import render


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray]:
    return draw_labels(100_000, 5)


@pytest.fixture(scope="module")
def world():
    return draw_population(320, 7)


def test_the_prevalences_are_the_papers():
    assert set(PREVALENCE) == set(FINDINGS)
    assert PREVALENCE["No Finding"] == pytest.approx(78939 / 237388)
    assert list(PREVALENCE.values()) == sorted(PREVALENCE.values(), reverse=True)


def test_a_big_draw_has_the_papers_prevalences(many):
    _, state = many
    for name, column in zip(DRAWN, state.T, strict=True):
        assert (column == 1).mean() == pytest.approx(PREVALENCE[name], rel=0.10), name
    disease = state[:, [name != "Support Devices" for name in DRAWN]]
    assert (disease == 0).all(1).mean() == pytest.approx(PREVALENCE["No Finding"], rel=0.05)


def test_findings_coincide_as_they_should(many):
    _, state = many
    present = {name: column == 1 for name, column in zip(DRAWN, state.T, strict=True)}
    for one, other in (("Consolidation", "Lung Opacity"), ("Edema", "Pleural Effusion")):
        assert present[other][present[one]].mean() > 1.5 * PREVALENCE[other]


def test_chronic_findings_last_and_acute_ones_pass(many):
    owner, state = many
    same = owner[1:] == owner[:-1]

    def again(name: str) -> float:
        column = state[:, DRAWN.index(name)] == 1
        return column[1:][same & column[:-1]].mean()

    assert again("Fracture") > 0.6
    assert again("Cardiomegaly") > 0.6
    assert again("Pneumonia") < 0.4


def test_no_finding_stands_alone_but_for_devices(world):
    for exposure in world:
        positive = {name for name, value in exposure.labels.items() if value in (1, -1)}
        if exposure.labels["No Finding"] == 1:
            assert positive <= {"No Finding", "Support Devices"}
        else:
            assert positive - {"Support Devices"}


def test_labels_are_what_was_drawn(world):
    for exposure in world:
        drawn = {finding.name: 1 if finding.certain else -1 for finding in exposure.findings}
        for name in DRAWN:
            assert exposure.labels[name] == drawn.get(name, exposure.labels[name])
            assert name in drawn or exposure.labels[name] in (0, None)
    values = {value for exposure in world for value in exposure.labels.values()}
    assert values == {1, 0, -1, None}


def test_every_study_shows_what_was_drawn_for_it(world):
    _, state = draw_labels(320, 7)
    for exposure in world:
        row = state[int(exposure.study_id.removeprefix("9999"))]
        drawn = {name: value for name, value in zip(DRAWN, row.tolist(), strict=True) if value}
        assert {f.name: 1 if f.certain else -1 for f in exposure.findings} == drawn


def test_the_split_is_by_patient_and_has_every_finding_in_training(world):
    splits = defaultdict(set)
    for exposure in world:
        splits[exposure.patient_id].add(exposure.split)
    assert all(len(found) == 1 for found in splits.values())
    shares = [sum(found == {name} for found in splits.values()) / 320 for name in SPLITS]
    assert shares == pytest.approx([0.6, 0.2, 0.2])
    trained = {
        name for e in world if e.split == "train" for name, value in e.labels.items() if value == 1
    }
    assert trained == set(FINDINGS)


def test_the_default_size_and_what_the_cohort_has_to_filter(world):
    frontal = [e for e in world if e.study.view in ("AP", "PA")]
    assert 700 < len(frontal) < 900
    assert 20 < len(world) - len(frontal) < 150
    assert all(e.caption is None for e in world if e.study.view == "LATERAL")
    missing = [e for e in frontal if e.caption is None]
    assert 20 < len(missing) < 90
    assert {bool(e.annotations) for e in missing} == {True, False}
    assert len({e.image_id for e in world}) == len(world)


# MIMIC's awkward shape


def films(world, split: str) -> dict[str, list]:
    """Return each patient's frontal films of a split."""
    exposures = defaultdict(list)
    for exposure in world:
        if exposure.split == split and exposure.study.view != "LATERAL":
            exposures[exposure.patient_id].append(exposure)
    return exposures


def test_most_test_films_are_of_few_patients_who_stay_long(world):
    tested = films(world, "test")
    studies = {patient: len({e.study_id for e in own}) for patient, own in tested.items()}
    long = [patient for patient, n in studies.items() if n >= 5]
    assert (len(tested), len(long)) == (64, 16)  # one of 20 patients, all of them tested on
    assert sum(len(tested[p]) for p in long) > 0.55 * sum(map(len, tested.values()))
    assert max(map(len, tested.values())) >= 8
    assert all(n <= 2 for patient, n in studies.items() if patient not in long)
    for split in ("train", "validate"):
        assert all(len({e.study_id for e in own}) < 5 for own in films(world, split).values())


def test_eight_findings_can_be_tested_on_ten_patients(world):
    tested = films(world, "test")
    positive = {
        name: sum(any(e.labels[name] == 1 for e in own) for own in tested.values())
        for name in FINDINGS
    }
    assert sum(n >= 10 for n in positive.values()) >= 8, positive


def test_the_films_of_a_study_have_one_report(world):
    said = defaultdict(set)
    for exposure in world:
        if exposure.caption is not None:
            said[exposure.study_id].add(exposure.annotations)
    assert all(len(found) == 1 for found in said.values())


def test_captions_recur_within_a_patient_and_over_patients(world):
    studies, patients = defaultdict(set), defaultdict(set)
    shown = defaultdict(set)
    for exposure in world:
        if exposure.caption is not None:
            studies[exposure.patient_id, exposure.caption].add(exposure.study_id)
            patients[exposure.caption].add(exposure.patient_id)
            if exposure.labels["No Finding"] != 1:
                shown[exposure.patient_id, exposure.caption].add(exposure.findings)
    assert sum(len(found) > 1 for found in studies.values()) > 30
    assert sum(len(found) > 1 for found in patients.values()) > 5
    # Where a patient's words recur, they are true of every film: the findings are the same.
    assert all(len(found) == 1 for found in shown.values())


def test_reports_stand_by_both_methods_and_only_the_radiologists_have_marks(world):
    for split in SPLITS:
        kinds = {
            tuple(method for method, _ in e.annotations)
            for own in films(world, split).values()
            for e in own
        }
        alone = ("rule-based",) if split == "test" else ("gpt4",)
        assert kinds >= {(), ("gpt4", "rule-based"), ("rule-based",), alone}
        assert split != "test" or ("gpt4",) not in kinds
    texts = [annotation for e in world for annotation in e.annotations if annotation[1]]
    marks = {
        name: np.mean(["___" in text for method, text in texts if method == name])
        for name in ("gpt4", "rule-based")
    }
    assert marks["gpt4"] == 0
    assert 0.3 < marks["rule-based"] < 0.7
    both = [dict(e.annotations) for e in world if len(e.annotations) == 2 and e.caption]
    assert np.mean([one["gpt4"] != one["rule-based"] for one in both]) > 0.8


def test_another_sites_patients_have_no_report_and_look_otherwise(world):
    frontal = [e for e in world if e.study.view != "LATERAL"]
    silent = {e.patient_id for e in frontal} - {e.patient_id for e in frontal if e.annotations}
    scale, contrast = (
        {
            there: np.median(
                [getattr(e.study, what) for e in frontal if (e.patient_id in silent) == there]
            )
            for there in (False, True)
        }
        for what in ("scale", "contrast")
    )
    assert scale[True] < 0.95 * scale[False]
    assert contrast[True] < 0.80 * contrast[False]
    shares = {
        split: np.mean([patient in silent for patient in films(world, split)]) for split in SPLITS
    }
    assert 0.08 < shares["test"] < 0.2
    assert 0.03 < shares["train"] < shares["test"]
    here = render(frontal[0].patient, draw_study(3, "PA")).image
    there = render(frontal[0].patient, draw_study(3, "PA", elsewhere=True)).image
    chest = np.s_[64:192, 64:192]
    assert there[chest].std() < 0.85 * here[chest].std()


def test_a_patient_keeps_anatomy_and_chronic_findings(world):
    anatomy, sites = defaultdict(set), defaultdict(set)
    for exposure in world:
        anatomy[exposure.patient_id].add(exposure.patient)
        for finding in exposure.findings:
            if finding.name == "Fracture" and finding.certain:
                sites[exposure.patient_id].add((finding.side, finding.zone, finding.seed))
    assert all(len(found) == 1 for found in anatomy.values())
    assert sites
    assert all(len(found) == 1 for found in sites.values())
