"""The parser of captions against sentences labelled by hand, and captions of known truth."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from workflow_scripts.cohort.stress_prompts import stress_set
from workflow_scripts.faithfulness.caption_attributes import (
    ERRORS,
    FINDING_WORDS,
    READ,
    read_caption,
)
from workflow_scripts.faithfulness.stress_measures import QUESTIONS
from workflow_scripts.world.captions import describe
from workflow_scripts.world.findings import draw_finding

BY_HAND = yaml.safe_load(Path(__file__).with_name("captions_by_hand.yaml").read_text())
GRADES = {"mild": 0, "small": 0, "moderate": 1, "severe": 2, "large": 2}


def shares_wrong(pairs):
    """Return, of each attribute, (wrong, read) over pairs of (what was meant, what was read)."""
    counts = {name: [0, 0] for name in ("side", "zone", "severity")}
    for meant, read in pairs:
        for place, name in enumerate(counts):
            value = getattr(read, name)
            if value in ("", None, "bilateral") or (name == "zone" and value == "mid"):
                continue  # no radiograph is called one or the other by these
            counts[name][1] += 1
            counts[name][0] += value != meant[place]
    return counts


def test_errors_are_those_on_sentences_labelled_by_hand():
    stress = stress_set()
    asked = {
        q.told_by: (set(stress.loc[stress["contrast"] == q.contrast, "finding"]), q.values)
        for q in QUESTIONS
        if q.told_by != "label"
    }
    wrong, seen, presence = dict.fromkeys(READ, 0), dict.fromkeys(READ, 0), []
    for caption, meant in BY_HAND:
        read = read_caption(caption)
        for name in meant.keys() | read.keys():
            of, own = meant.get(name), read.get(name)
            affirmed = own is not None and own.present
            presence.append((name in meant and of is not False) == affirmed)
            for place, attribute in enumerate(READ):
                findings, values = asked[attribute]
                value = getattr(own, attribute) if affirmed else None
                if value is not None and value in values and name in findings:
                    seen[attribute] += 1
                    wrong[attribute] += not of or value != of[place]
    assert seen == READ
    assert {name: wrong[name] / seen[name] for name in seen} == ERRORS
    assert np.mean(presence) > 0.95


def test_captions_of_the_world_are_read_as_they_were_meant():
    pairs, wrong, seen = [], 0, 0
    names = [name for name in FINDING_WORDS if name != "Support Devices"]
    rng = np.random.default_rng(0)
    for number in range(400):
        chosen = [name for name in names if rng.random() < 0.2]
        drawn = {name: draw_finding(name, number) for name in chosen}
        read = read_caption(describe(drawn.values(), "AP", number, set(names) - set(chosen)))
        for name in names:
            seen += 1
            wrong += (name in read and read[name].present) != (name in drawn)
            if name in drawn and name in read and read[name].present:
                own = drawn[name]
                zone = own.zone or {"Atelectasis": "lower", "Pneumothorax": "upper"}.get(name, "")
                pairs.append(((own.side, zone, own.grade), read[name]))
    counts = shares_wrong(pairs)
    assert wrong / seen < 0.02
    assert all(read > 100 for _, read in counts.values())
    for name, (bad, read) in counts.items():
        assert bad / read <= 0.03, (name, bad, read)


def test_the_stress_set_is_read_as_its_attributes_say():
    for row in stress_set().itertuples():
        read = read_caption(row.caption)
        if row.finding not in FINDING_WORDS or row.device:
            continue
        assert (row.finding in read and read[row.finding].present) == (row.mention == "positive")
        if row.mention == "positive":
            said = read[row.finding]
            assert row.side in ("", said.side), row.caption
            assert row.zone in ("", said.zone), row.caption
            assert not row.severity or said.severity == GRADES[row.severity], row.caption


@pytest.mark.parametrize(
    ("caption", "finding", "present", "side"),
    [
        ("Effusion on the left, moderate.", "Pleural Effusion", True, "left"),
        ("No consolidation but left effusion.", "Pleural Effusion", True, "left"),
        ("No consolidation but left effusion.", "Consolidation", False, ""),
        ("Left effusion. Right effusion.", "Pleural Effusion", True, "bilateral"),
    ],
)
def test_by_hand(caption, finding, present, side):
    said = read_caption(caption)[finding]
    assert (said.present, said.side) == (present, side)


def test_what_was_removed_is_gone_and_what_is_said_before_it_is_not():
    read = read_caption("Tiny left apical pneumothorax persists after removal of the chest tube.")
    assert not read["Support Devices"].present
    assert read["Pneumothorax"].present
    assert (read["Pneumothorax"].side, read["Pneumothorax"].zone) == ("left", "upper")


def test_a_question_is_no_answer():
    assert read_caption("Possible small left effusion.") == {}
