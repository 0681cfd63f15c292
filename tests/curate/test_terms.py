"""Licence and access: what follows from weights and training data, and what no table says."""

import json
from pathlib import Path

import pytest
import yaml

from tests.curate.small_set import decision, describe
from workflow_scripts.curate.terms import ACCESS, TRAINING_DATA, WEIGHTS, terms_of, weights_of

CONFIG = Path(__file__).parents[2] / "config.yaml"


def test_the_weights_of_every_model_of_the_config_have_a_row():
    for name, block in yaml.safe_load(CONFIG.read_text())["models"].items():
        row = weights_of("MIMIC-CXR", block["family"], block.get("base"))
        assert row.licence != "not known to this workflow", name
        assert (row.name.startswith("none")) == (block["family"] == "control"), name


def test_every_row_names_its_source():
    for row in (*WEIGHTS, *TRAINING_DATA):
        assert row.source, row.name
        assert row.licence, row.name
    folders = [folder for row in WEIGHTS for folder in row.folders]
    assert len(folders) == len(set(folders))


@pytest.mark.parametrize("base", ["weights/sana-600m-512px", "weights/lumina-image-2.0"])
@pytest.mark.parametrize("verdict", ACCESS)
def test_what_comes_from_mimic_is_never_open(base: str, verdict: str):
    terms = terms_of(verdict, "MIMIC-CXR", "any", base)
    assert terms.access == ("do_not_release" if verdict == ACCESS[2] else "credentialed")
    assert "PhysioNet" in terms.licence


def test_a_decision_not_to_release_is_never_softened():
    for cohort in ("Embedded world", "MIMIC-CXR", "a hospital's own"):
        assert terms_of("do_not_release", cohort, "sana", None).access == "do_not_release"


def test_weights_for_research_alone_forbid_commercial_use():
    assert terms_of("release", "Embedded world", "sana", "sana-600m-512px").commercial is False
    assert terms_of("release", "Embedded world", "lumina2", "Lumina-Image-2.0").commercial is True
    assert terms_of("release", "MIMIC-CXR", "lumina2", "lumina-image-2.0").commercial is None


def test_what_no_row_covers_is_asked_and_not_guessed():
    terms = terms_of("release", "A hospital", "stable_diffusion", "weights/my-own")
    assert terms.access == "credentialed"
    assert terms.hub_licence == "unknown"
    assert any("weights/my-own" in question for question in terms.open_questions)
    assert any("A hospital" in question for question in terms.open_questions)


def test_a_folder_called_world_does_not_open_another_cohorts_images():
    assert terms_of("release", "A hospital", "sana", "/data/world/sana").weights.source.startswith(
        "none"
    )


def test_the_page_says_when_terms_are_stricter_than_the_tests(tmp_path: Path):
    cohort = {"name": "MIMIC-CXR"}
    folder = describe(tmp_path, decision(cohort=cohort), base="weights/flux.1-dev")
    page = (folder / "terms.md").read_text()
    assert "This set is for credentialed researchers only." in page
    assert "By its tests alone it may be published." in page
    assert "Commercial use: not allowed." in page
    assert json.loads((folder / "terms.json").read_text())["access"] == "credentialed"
    assert "By its tests alone the set may be published" in (folder / "README.md").read_text()


def test_an_open_licence_of_the_radiographs_says_nothing_of_images_from_unknown_weights():
    terms = terms_of("release", "Embedded world", "external", None)
    assert (terms.access, terms.hub_licence, terms.link) == ("credentialed", "unknown", "")
    known = terms_of("release", "Embedded world", "stable_diffusion", "results/world/weights/a")
    assert (known.access, known.hub_licence) == ("release", "apache-2.0")
