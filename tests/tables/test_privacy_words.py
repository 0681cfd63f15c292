"""What the report says of lenses and of the attacker follows from the tables."""

import json

import pytest

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.assemble import joined_table
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.privacy_words import (
    attacker_sentence,
    extraction_sentences,
    lens_sentences,
    membership_sentence,
)
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

MODELS = [
    {
        "key": key,
        "family": "control",
        "display": {"name": key},
        "settings": {"control": kind},
    }
    for key, kind in (("flips", "flipped_copies"), ("copies", "training_copies"), ("n", "noise"))
]


def tables(*records):
    found = Records()
    for record in records:
        found.add(record)
    run = Run(found, parse_models(json.dumps(MODELS)), "World")
    stems = ("table03c_attacker", "table03e_lenses")
    return {stem: joined_table(LAYOUTS[stem], run) for stem in stems}


def lenses(model, **seen):
    values = [Value(f"{lens}_seen", share, "lower", 30) for lens, share in seen.items()]
    return Record("privacy", model, "lenses", "sound", values)


def test_a_sentence_for_each_kind_of_copies_says_who_sees_and_who_misses():
    found = tables(
        lenses("flips", reid=0.1, latent=0.5, pixel=0.0, mirrored=1.0, any=1.0),
        lenses("copies", reid=1.0, latent=1.0, pixel=1.0, mirrored=1.0, any=1.0),
        lenses("n", reid=0.0, latent=0.0, pixel=0.0, mirrored=0.0, any=0.0),
    )
    sentences = lens_sentences(found["table03e_lenses"], parse_models(json.dumps(MODELS)))
    assert sentences == [
        "Flipped copies are seen by the latent distance (50%) and the pixel distance in the "
        "mirror (100%) and missed by the re-ID score (10%) and the pixel distance (0%).",
        "Training copies are seen by the re-ID score (100%), the latent distance (100%), the pixel "
        "distance (100%) and the pixel distance in the mirror (100%).",
    ]


def test_copies_that_nobody_sees_are_said_to_be():
    found = tables(lenses("flips", reid=0.1, latent=0.0, pixel=0.0, mirrored=0.0, any=0.1))
    sentences = lens_sentences(found["table03e_lenses"], parse_models(json.dumps(MODELS)))
    assert sentences == ["Flipped copies are seen by no lens."]


@pytest.mark.parametrize("protocols", [["sound"], ["sound", "as_published"], []])
def test_the_attacker_under_each_protocol_that_was_run(protocols):
    records = [
        Record(
            *("privacy", "real", "attacker", protocol),
            [
                Value("reid_auc", 0.9, "none", 60),
                Value("chance_count", 1.25, "none", 2000),
            ],
        )
        for protocol in protocols
    ]
    sentence = attacker_sentence(tables(*records)["table03c_attacker"])
    if not protocols:
        assert sentence is None
        return
    assert sentence.count("AUC of 0.900") == len(protocols)
    assert "put 1.2 of 2,000 prompts above δ" in sentence
    assert ("protocol as published" in sentence) == ("as_published" in protocols)


def attacked(model, auc=None, interval=None, reason=None, by_caption=None):
    kind, key = interval and "Newcombe 95%", "member_loss_calibrated_auc"
    values = [Value(key, auc, "lower", 60, "all", 60, interval, kind, reason)]
    values.append(Value("member_loss_calibrated_tpr", 0.25, "lower", 60, "all", 60))
    for metric, area in zip(("caption", "frequency"), by_caption or (), strict=False):
        bounds = (area - 0.1, area + 0.1)
        key = f"member_{metric}_calibrated_auc"
        values.append(Value(key, area, "lower", 60, "all", 60, bounds, kind))
    return Record("privacy", model, "membership", "sound", values)


def test_a_model_that_tells_who_was_trained_on_is_said_to_and_another_is_not_cleared():
    found = Records()
    for record in (
        attacked("leaky", 0.8, (0.7, 0.9)),
        attacked("quiet", 0.52, (0.4, 0.6), by_caption=(0.55, 0.58)),
        attacked("worded", 0.52, (0.4, 0.6), by_caption=(0.75, 0.65)),
        attacked("unfair", reason="withheld: the view tells members from non-members"),
    ):
        found.add(record)
    models = [
        {"key": key, "family": "stable_diffusion", "display": {"name": key}, "settings": {}}
        for key in ("leaky", "quiet", "worded", "unfair")
    ]
    run = Run(found, parse_models(json.dumps(models)), "World")
    sentence = membership_sentence(joined_table(LAYOUTS["table22_membership"], run))
    assert "leaky reveals its training patients" in sentence
    assert "a member scores above a non-member in 80%" in sentence
    assert "at 1% false alarms 25% of members are found" in sentence
    assert "quiet: this attack does not tell its training patients from others" in sentence
    assert "worded: this attack does not tell" not in sentence
    assert "worded reveals its training patients by what their captions are worth" in sentence
    assert "in 75% of pairs (50% by chance; the strongest of four attacks). By the fall" in sentence
    assert "unfair has no result" in sentence
    assert "60 patients on whom no model was trained" in sentence
    assert "proves no privacy" in sentence


def test_of_a_model_that_came_trained_a_suspicion_is_named_and_no_finding():
    found = Records()
    for model, interval in (("guessed", (0.6, 0.8)), ("silent", (0.4, 0.6)), ("unknown", None)):
        kind = interval and "Newcombe 95%"
        reason = None if interval else "it came trained"
        area = interval and sum(interval) / 2
        value = Value("member_loss_auc", area, "lower", 60, "all", 60, interval, kind, reason)
        found.add(Record("privacy", model, "membership", "sound", [value]))
    models = [
        {"key": key, "family": "llm_cxr", "display": {"name": key}, "settings": {}}
        for key in ("guessed", "silent", "unknown")
    ]
    run = Run(found, parse_models(json.dumps(models)), "World")
    sentence = membership_sentence(joined_table(LAYOUTS["table22_membership"], run))
    assert "guessed, which was not trained here, tells the train split from other" in sentence
    assert "in 70% of pairs" in sentence
    assert "a suspicion, not a finding" in sentence
    assert "silent, which was not trained here, does not tell" in sentence
    assert "unknown" not in sentence
    assert "proves no privacy" in sentence


def test_without_an_attack_nothing_is_said():
    run = Run(Records(), parse_models(json.dumps(MODELS)), "World")
    assert membership_sentence(joined_table(LAYOUTS["table22_membership"], run)) is None


def extracted(model, count, n=30, interval=(0.0, 1.0)):
    kind = "bootstrap 95%"
    return Record(
        *("privacy", model, "extraction", "sound"),
        [
            Value("extracted_count", count, "lower", n, interval=interval, interval_kind=kind),
            Value("extracted_by_chance", 0.3, "none", n),
            Value("patients_named", count, "lower", int(count)),
        ],
    )


def test_what_is_pulled_out_of_models_and_models_without_an_alarm_together():
    found = Records()
    for record in (
        extracted("quiet", 0.0),
        extracted("leaky", 6.0, interval=(3.0, 9.0)),
        extracted("silent", 0.0),
        extracted("lucky", 1.0),
        extracted("copies", 30.0, interval=(28.0, 30.0)),
    ):
        found.add(record)
    models = [
        {"key": key, "family": "stable_diffusion", "display": {"name": key}, "settings": {}}
        for key in ("quiet", "leaky", "silent", "lucky")
    ]
    models += [
        {"key": "copies", "family": "control", "display": {"name": "copies"},
         "settings": {"control": "training_copies"}}
    ]  # fmt: skip
    entries = parse_models(json.dumps(models))
    table = joined_table(LAYOUTS["table23_extraction"], Run(found, entries, "World"))
    sentences = extraction_sentences(table, entries)
    assert sentences == [
        "leaky: 6 of 30 captions raise an alarm, more than chance explains (0.3); they show "
        "radiographs of 6 different patients.",
        "lucky: 1 of 30 captions raise an alarm, which chance may explain (0.3 are expected if "
        "no image copies a radiograph).",
        "quiet and silent: no caption of 30 raises an alarm.",
        "Training copies: 30 of 30 captions raise an alarm.",
    ]
