"""Captions state the drawn findings, all of them and no others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.world.captions import describe, marked, read_findings
from workflow_scripts.world.findings import DEVICES, Finding, draw_finding
from workflow_scripts.world.population import DRAWN

seeds = st.integers(0, 2**31 - 1)


@settings(max_examples=150, deadline=None)
@given(st.sets(st.sampled_from(DRAWN), max_size=6), seeds, st.data())
def test_captions_name_every_drawn_finding_and_no_other(names, seed, data):
    drawn = {
        name: draw_finding(name, seed + k, name == "Support Devices" or data.draw(st.booleans()))
        for k, name in enumerate(sorted(names))
    }
    absent = [name for name in DRAWN if name not in names]
    caption = describe(drawn.values(), data.draw(st.sampled_from(["AP", "PA"])), seed, absent)
    read = {finding.name: finding for finding in read_findings(caption, seed)}
    assert set(read) == set(drawn)
    for name, finding in drawn.items():
        assert (read[name].side, read[name].zone) == (finding.side, finding.zone), caption
        assert set(read[name].devices) == set(finding.devices), caption
        assert read[name].certain == finding.certain, caption
        if finding.certain and name != "Support Devices":
            assert read[name].grade == finding.grade, caption


def test_absent_findings_are_denied_and_read_as_absent():
    caption = describe([], "PA", 1, ["Pneumothorax", "Pleural Effusion", "Fracture"])
    assert "pneumothorax" in caption
    assert "effusion" in caption
    assert "fracture" not in caption
    assert read_findings(caption, 1) == ()


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Large left pleural effusion. No pneumothorax.", {"Pleural Effusion"}),
        ("There is no focal consolidation or effusion.", set()),
        ("Endotracheal tube tip lies above the carina.", {"Support Devices"}),
        ("Cardiomegaly with mild pulmonary edema.", {"Cardiomegaly", "Edema"}),
    ],
)
def test_reading_hand_written_captions(caption: str, expected: set[str]):
    assert {finding.name for finding in read_findings(caption, 3)} == expected


def test_hand_written_side_and_size_are_read():
    (finding,) = read_findings("Large left pleural effusion.", 3)
    assert (finding.side, finding.grade) == ("left", 2)


def test_normal_captions_repeat_and_abnormal_ones_hardly():
    normal = [describe([], "PA", seed) for seed in range(100)]
    assert len(set(normal)) < 20
    abnormal = [
        describe([draw_finding("Pneumonia", s), draw_finding("Atelectasis", s)], "PA", s)
        for s in range(100)
    ]
    assert len(set(abnormal)) > 80


def test_all_devices_have_sentences_that_are_read_back():
    for device in DEVICES:
        for seed in range(6):
            caption = describe([Finding("Support Devices", devices=(device,))], "PA", seed)
            (finding,) = read_findings(caption, 0)
            assert finding.devices == (device,), caption


@pytest.mark.parametrize("seed", range(12))
def test_marks_of_deidentification_say_nothing_of_findings(seed: int):
    caption = describe([draw_finding("Pneumonia", seed)], "PA", seed, ["Edema"])
    text = marked(caption, seed)
    assert caption in text
    assert "___" in text
    assert {f.name for f in read_findings(text, 3)} == {"Pneumonia"}
    assert read_findings(marked("Clear lungs.", seed), 3) == ()
