"""The scorecard: seven criteria, values as the records have them, every gap named."""

import json
from pathlib import Path

import pytest

from tests.curate.small_set import decision, describe
from workflow_scripts.curate.scorecard import CRITERIA


@pytest.fixture
def scorecard(tmp_path: Path) -> dict:
    return json.loads((describe(tmp_path, decision()) / "scorecard.json").read_text())


def entry(scorecard: dict, criterion: str, words: str) -> dict:
    (found,) = [
        entry
        for entry in scorecard["criteria"][criterion]["entries"]
        if entry["words"].startswith(words)
    ]
    return found


def test_the_seven_criteria_of_the_paper_are_all_there(scorecard: dict):
    assert set(scorecard["criteria"]) == set(CRITERIA)
    assert set(CRITERIA) == {
        "congruence",
        "coverage",
        "constraint",
        "completeness",
        "compliance",
        "comprehension",
        "consistency",
    }
    assert "2406.11143" in scorecard["source"]
    assert all(criterion["entries"] for criterion in scorecard["criteria"].values())


def test_a_value_stands_as_its_record_has_it(scorecard: dict):
    kid = entry(scorecard, "congruence", "Distance of the distributions (KID)")
    assert kid["shown"] == "0.1235 (0.1 to 0.2)"
    assert kid["of"] == "the model's images before filtering"
    assert entry(scorecard, "compliance", "Prompts at which a lens")["shown"] == "0.07"


def test_a_line_has_a_value_or_a_gap(scorecard: dict):
    lines = [e for c in scorecard["criteria"].values() for e in c["entries"]]
    assert all((line["shown"] is None) == bool(line["gap"]) for line in lines)
    assert scorecard["gaps"] == sum(line["shown"] is None for line in lines)


def test_gaps_are_named_with_their_reason(scorecard: dict):
    assert entry(scorecard, "coverage", "Share of radiographs among images")["gap"] == (
        "too few images"
    )
    absent = entry(scorecard, "constraint", "Images with implausible anatomy")
    assert absent["gap"] == "no record of it was given"
    assert "no reader study" in entry(scorecard, "congruence", "A radiologist")["gap"]
    assert "no image has them" in entry(scorecard, "consistency", "By sex, age")["gap"]
    assert entry(scorecard, "constraint", "Finding visible")["gap"] == "no judge was trained"
    assert entry(scorecard, "compliance", "membership inference")["gap"] == "not tested"
    assert "left out" in entry(scorecard, "completeness", "The prompt")["gap"]


def test_the_filters_miss_rate_stands_under_compliance(scorecard: dict):
    crops = entry(scorecard, "compliance", "Planted leaks that the filter caught: crops")
    assert crops["shown"] == "13 of 20; lower bound of the share 0.4421"
    assert entry(scorecard, "compliance", "Leaks of the planted kinds")["shown"] == "3"


def test_consistency_is_the_spread_over_findings(scorecard: dict):
    spread = entry(scorecard, "consistency", "FID of single findings")
    assert spread["shown"] == "1.5 (Edema) to 3.25 (Fracture), 2 of 14 findings"


def test_a_record_that_the_decision_repeats_stands_once(tmp_path: Path):
    """And one whose record was not given stands as the decision has it."""
    rows = [
        {"key": f"{place}/{metric}", "words": f"repeated {metric}", "value": 0.5, "limit": None}
        for place, metric in (
            ("fidelity/rad_dino", "kid"),
            ("fidelity/rad_dino", "fid"),
            ("privacy/pairwise", "reid_share"),
        )
    ]
    card = json.loads((describe(tmp_path, decision(measured=rows)) / "scorecard.json").read_text())
    words = {e["words"] for c in card["criteria"].values() for e in c["entries"]}
    assert "repeated kid" not in words
    assert entry(card, "congruence", "repeated fid")["of"] == "the model's images before filtering"
    assert entry(card, "compliance", "repeated reid_share")["shown"] == "0.5"


def test_completeness_counts_the_labels_of_the_shards(scorecard: dict):
    stated = entry(scorecard, "completeness", "Labels that are stated")
    assert stated["shown"] == "10 of 70"  # two of 14 findings, five images


def test_the_page_has_every_line(tmp_path: Path, scorecard: dict):
    page = (tmp_path / "published" / "scorecard.md").read_text()
    for criterion in scorecard["criteria"].values():
        assert criterion["question"] in page
        for line in criterion["entries"]:
            assert line["words"] in page
            assert (line["shown"] or f"gap: {line['gap']}") in page
