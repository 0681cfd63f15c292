"""The other prompts whose radiographs a prompt's images are compared with."""

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.privacy import other_prompts
from workflow_scripts.privacy.other_prompts import other_radiographs


def prompts_of(n, patients=None, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"i{k}" for k in range(n)]
    known = pd.Series(
        names if patients is None else patients, index=pd.Index(names, name="image_id")
    )
    return known, rng.integers(0, 8, n).astype(np.uint16)


def differing(pairs, known, findings):
    of = dict(zip(known.index, findings.tolist(), strict=True))
    return [
        (of[a] ^ of[b]).bit_count()
        for a, b in zip(pairs["image_id"], pairs["other_image_id"], strict=True)
    ]


@pytest.mark.parametrize("together", [2000, 7])
def test_each_radiograph_stands_for_as_many_prompts_and_never_for_its_own(monkeypatch, together):
    monkeypatch.setattr(other_prompts, "_TOGETHER", together)
    known, findings = prompts_of(40)
    pairs = other_radiographs(known, findings, 5)
    assert len(pairs.drop_duplicates()) == len(pairs) == 200
    assert (pairs["image_id"] != pairs["other_image_id"]).all()
    for column in pairs:
        assert set(pairs[column].value_counts()) == {5}


def test_findings_are_as_like_as_they_can_be():
    known, findings = prompts_of(40)
    groups = np.bincount(findings)
    assert groups.min() >= 2
    # One round: everybody has somebody with the same findings.
    assert sum(differing(other_radiographs(known, findings, 1), known, findings)) == 0
    # Five rounds: far less apart than any two prompts.
    apart = np.mean(differing(other_radiographs(known, findings, 5), known, findings))
    assert apart < 0.5 * np.mean([(a ^ b).bit_count() for a in findings.tolist() for b in findings])


def test_two_prompts_of_one_patient_are_no_measure_of_chance():
    known, findings = prompts_of(12, [f"p{k // 3}" for k in range(12)])
    pairs = other_radiographs(known, findings, 20)
    assert (known[pairs["image_id"]].to_numpy() != known[pairs["other_image_id"]].to_numpy()).all()
    assert len(pairs.drop_duplicates()) == len(pairs) == 12 * 9  # all there are
    alone = other_radiographs(*prompts_of(4, ["p"] * 4), 3)
    assert alone.empty
    assert list(alone.columns) == ["image_id", "other_image_id"]


def test_the_seed_decides_and_nothing_else():
    known, findings = prompts_of(30)
    first, again, other = (other_radiographs(known, findings, 3, seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)
