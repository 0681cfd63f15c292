"""The stress set says what its attributes say, in groups that differ in one thing."""

import gzip
import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.downloads import published
from workflow_scripts.cohort import stress_prompts
from workflow_scripts.cohort.stress_prompts import (
    CONTRASTS,
    GROUPS,
    STRESS_SCHEMA,
    STRESS_VERSION,
    stress_set,
)
from workflow_scripts.common.leak_search import folded_readings, passages_in
from workflow_scripts.world.captions import describe, marked, read_findings
from workflow_scripts.world.findings import draw_finding
from workflow_scripts.world.population import DRAWN

ATTRIBUTES = ["mention", "finding", "side", "zone", "severity", "device", "view", "wording"]
DIFFERS = {
    "presence": {"mention", "side", "zone", "severity"},
    "side": {"side"},
    "severity": {"severity"},
    "zone": {"zone"},
    "device": {"mention", "device"},
    "view": {"view"},
    "wording": {"wording"},
}
"""What may differ within a group; what is not there has no side, zone or severity either."""

BYTES = {1: "395165cb3edb176225d49f6f04d5d2dc0f2989d9137ffb964b0e3a4680d18b36"}
"""sha256 of the set as CSV, of each version."""


@pytest.fixture(scope="module")
def stress() -> pd.DataFrame:
    return stress_set()


def test_the_set_stays_byte_identical_for_a_version(stress):
    text = stress.to_csv(index=False, lineterminator="\n")
    assert hashlib.sha256(text.encode()).hexdigest() == BYTES[STRESS_VERSION]


def test_some_six_hundred_prompts_in_pairs_and_triples(stress):
    assert list(stress.columns) == STRESS_SCHEMA.names
    assert stress["prompt_id"].is_unique
    assert 550 <= len(stress) <= 650
    sizes = stress.groupby(["contrast", "group"]).size()
    triples = {"presence", "severity"}
    assert all(size == (3 if name in triples else 2) for (name, _), size in sizes.items())
    assert sizes.groupby("contrast").size().to_dict() == GROUPS


def test_prompts_of_a_group_differ_in_one_thing_and_share_the_seed(stress):
    for (contrast, _), group in stress.groupby(["contrast", "group"]):
        assert group["seed"].nunique() == 1
        assert group["context"].nunique() == 1
        assert group["caption"].nunique() == len(group)
        differing = {name for name in ATTRIBUTES if group[name].nunique() > 1}
        assert differing
        assert differing <= DIFFERS[contrast], group["caption"].tolist()
        # Only the sentence of the contrast, or that of the view, is another one.
        sentences = [set(caption.split(". ")) for caption in group["caption"]]
        alone = [own - set.intersection(*sentences) for own in sentences]
        assert all(len(own) <= 1 for own in alone)


def test_what_is_there_and_what_is_denied_share_a_finding_and_no_side(stress):
    presence = stress[stress["contrast"] == "presence"]
    assert set(presence["level"]) == {"present", "denied", "unmentioned"}
    denied = presence[presence["level"] == "denied"]
    assert denied["caption"].str.contains(". No ", regex=False).all()
    assert (denied[["side", "zone", "severity"]] == "").all(axis=None)


def test_a_reader_of_captions_finds_what_the_attributes_say(stress):
    grades = {"mild": 0, "small": 0, "moderate": 1, "severe": 2, "large": 2}
    for row in stress.itertuples():
        found = {finding.name: finding for finding in read_findings(row.caption, 0)}
        assert set(found) == ({row.finding} if row.mention == "positive" else set()), row.caption
        if row.mention != "positive":
            continue
        read = found[row.finding]
        if row.device:
            assert row.device in read.devices, row.caption
            continue
        assert read.certain
        assert not row.side or read.side == row.side, row.caption
        assert not row.zone or read.zone == row.zone, row.caption
        assert not row.severity or read.grade == grades[row.severity], row.caption


def test_no_caption_is_cut_by_clip(stress):
    from transformers import CLIPTokenizer

    lines = gzip.decompress(
        (published("clip") / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    ).decode()
    lengths = _clip_lengths(lines, stress["caption"].unique().tolist(), CLIPTokenizer)
    assert max(lengths) <= 77


def _clip_lengths(lines, captions, tokenizer_class):
    """Return the tokens of captions with both marks, by the published merges."""
    merges = [tuple(line.split()) for line in lines.split("\n")[1 : 49152 - 256 - 2 + 1]]
    letters = _byte_letters()
    vocabulary = letters + [letter + "</w>" for letter in letters] + ["".join(m) for m in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = tokenizer_class(vocab={word: k for k, word in enumerate(vocabulary)}, merges=merges)
    return [len(ids) for ids in tokenizer(captions)["input_ids"]]


def _byte_letters():
    """Return the 256 letters that stand for bytes in CLIP's vocabulary, in its order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + k) for k in range(len(others))]


def test_no_six_words_in_a_row_stand_in_captions_of_the_world(stress):
    rng = np.random.default_rng(0)
    captions = []
    for number in range(3000):
        names = [name for name in DRAWN if rng.random() < 0.15]
        drawn = [draw_finding(name, number, bool(rng.random() < 0.8)) for name in names]
        absent = [name for name in DRAWN if name not in names and rng.random() < 0.3]
        caption = describe(drawn, "AP", number, absent)
        captions.append(marked(caption, number) if number % 5 == 0 else caption)
    texts = folded_readings([("stress", "\n".join(stress["caption"]))])
    assert passages_in(texts, captions) == []
    # The search is able to find: a caption of the set among them.
    assert passages_in(texts, [*captions, stress["caption"].iloc[0]])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, sum(GROUPS.values())))
def test_a_part_holds_whole_groups_of_every_contrast_and_is_part_of_the_set(groups):
    part, whole = stress_set(groups), stress_set()
    assert part.groupby(["contrast", "group"]).ngroups == groups
    assert set(part["contrast"]) == set(CONTRASTS[:groups])
    merged = part.merge(whole, how="inner")
    assert len(merged) == len(part)


def test_no_groups_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        stress_set(0)


def test_as_prompts_they_have_labels_and_no_radiograph(stress):
    prompts = stress_prompts.stress_prompts(stress).set_index("prompt_id")
    by_id = stress.set_index("prompt_id")
    labels = prompts["Pleural Effusion"]
    effusions = by_id[by_id["finding"] == "Pleural Effusion"]
    assert (labels[effusions.index[effusions["mention"] == "positive"]] == 1).all()
    assert (labels[effusions.index[effusions["mention"] == "negative"]] == 0).all()
    assert labels[by_id.index.difference(effusions.index)].isna().all()
    assert prompts["image_id"].isna().all()


def test_a_changed_word_is_seen(stress, monkeypatch):
    words = stress_prompts._DISEASE | {
        "Edema": replace(stress_prompts._DISEASE["Edema"], absent="edema")
    }
    monkeypatch.setattr(stress_prompts, "_DISEASE", words)
    assert not stress_set().equals(stress)
