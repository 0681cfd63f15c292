"""Patients, findings and splits have the shares they should."""

from collections import defaultdict

import numpy as np
import pytest

from workflow_scripts.common.manifest import FINDINGS, SPLITS
from workflow_scripts.world.population import (
    DRAWN,
    PREVALENCE,
    draw_labels,
    draw_population,
)


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray]:
    return draw_labels(30_000, 5)


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
    assert 5 < len(missing) < 50
    assert {e.annotated for e in missing} == {True, False}
    captions = [e.caption for e in frontal if e.caption and e.labels["No Finding"] != 1]
    assert len(set(captions)) > 0.95 * len(captions)
    assert len({e.image_id for e in world}) == len(world)


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
