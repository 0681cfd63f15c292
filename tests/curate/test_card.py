"""The dataset card: read by the hub's own classes, and true to the decision."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.curate.small_set import decision, describe, write_records, write_set
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.curate.describe import main


@pytest.fixture
def read_offline(monkeypatch):
    """Nothing is fetched from the hub, or kept in the home folder."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")


def test_the_hubs_card_classes_read_the_head(tmp_path: Path, read_offline):
    from huggingface_hub import DatasetCard, DatasetCardData

    card = DatasetCard.load(describe(tmp_path, decision()) / "README.md")
    assert isinstance(card.data, DatasetCardData)
    assert card.data.license == "apache-2.0"
    assert card.data.size_categories == ["n<1K"]
    assert "extra_gated_prompt" not in card.data.to_dict()
    names = [feature["name"] for feature in card.data.to_dict()["dataset_info"]["features"]]
    assert names == ["image", *FINDINGS, "latent_distance"]
    assert "5 synthetic chest radiographs" in card.text


def test_the_folder_opens_by_its_card(tmp_path: Path, read_offline):
    """`datasets` takes types and files from the head, so that it has to agree with the shards."""
    import datasets

    folder = describe(tmp_path, decision(), prompts=True)
    cache = {"cache_dir": str(tmp_path / "cache"), "split": "train"}
    by_card = datasets.load_dataset(str(folder), **cache)
    by_files = datasets.load_dataset(
        "parquet", data_files=str(folder / "data" / "train-*.parquet"), **cache
    )
    for found in (by_card, by_files):
        assert len(found) == 5
        assert sum(label == 1 for label in found["Edema"]) == 2
    assert by_card[0]["image"].size == (16, 16)
    assert by_card.features["Edema"].dtype == "int8"


def test_the_card_shows_what_was_measured_and_what_was_not(tmp_path: Path):
    text = (describe(tmp_path, decision()) / "README.md").read_text()
    assert "| Alarms of the latent lens | 0.0312 (0.01 to 0.07) | 0.05 | yes |" in text
    assert "| Finding visible to the judge | no judge was trained | 0.5 | not judged |" in text
    assert "| crops | 20 | 13 | 0.4421 |" in text
    assert "at most 3 leaks of the planted kinds remain among 5 images" in text
    assert "- membership inference by a second model" in text


def test_a_set_that_is_not_for_everybody_asks_before_a_download(tmp_path: Path):
    cohort = {"name": "MIMIC-CXR", "source": "mimic_cxr_jpg"}
    folder = describe(tmp_path, decision(cohort=cohort), base="weights/sana-600m-512px")
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert head["license"] == "other"
    assert head["license_name"] == "physionet-credentialed-health-data-license-1.5.0"
    assert "credentialed" in head["extra_gated_prompt"]
    assert head["extra_gated_fields"]


def test_no_bound_is_said_to_be_none(tmp_path: Path):
    text = (describe(tmp_path, decision(remaining_leaks_upper=None)) / "README.md").read_text()
    assert "How many leaks may remain is not known" in text


def test_a_set_of_nothing_is_described_as_one(tmp_path: Path):
    """Where all images are refused, the shard is empty or not there."""
    refused = decision(kept=0, verdict="do_not_release", reasons=["it copies its patients"])
    for shards in (0, 1):
        folder = describe(tmp_path / str(shards), refused, shards=shards)
        text = (folder / "README.md").read_text()
        assert "**Do not release.** It copies its patients." in text
        head = yaml.safe_load(text.split("---\n")[1])
        assert ("dataset_info" in head) == (shards > 0)
        assert head["extra_gated_fields"]


def test_captions_are_shown_to_nobody_without_access(tmp_path: Path, monkeypatch):
    """A cohort whose terms leave it open is not one of those that this workflow knows."""
    from workflow_scripts.curate import described, terms

    row = terms.TrainingData("Open films", "CC0", "release", True, "cc0-1.0", "", "", "here")
    monkeypatch.setattr(terms, "TRAINING_DATA", (*terms.TRAINING_DATA, row))
    monkeypatch.setattr(described, "TRAINING_DATA", terms.TRAINING_DATA)
    content = decision(cohort={"name": "Open films"}, pool={"prompt_set": "test", "images": 9})
    assert describe(tmp_path / "open", content, True, base="lumina-image-2.0").is_dir()
    closed = terms.TrainingData("Open films", "CC0", "credentialed", True, "other", "", "", "here")
    monkeypatch.setattr(described, "TRAINING_DATA", (closed,))
    with pytest.raises(InputError, match="captions of radiographs"):
        describe(tmp_path / "closed", content, True, base="lumina-image-2.0")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kept": 4}, "the decision kept 4 images, the shards hold 5"),
        ({"verdict": "perhaps"}, "the verdict 'perhaps'"),
        ({"planted": None}, "misstates planted"),
        ({"cohort": {}}, "names no cohort"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(
    tmp_path: Path, changed, said
):
    path, dataset = write_set(tmp_path, decision())
    path.write_text(json.dumps(decision(**changed)))
    flags = ["--decision", path, "--dataset", dataset, "--output", tmp_path / "published"]
    with pytest.raises(InputError, match=said):
        main([str(flag) for flag in flags])
    assert not (tmp_path / "published").exists()


def test_the_shards_are_not_replaced_by_what_is_made_of_them(tmp_path: Path):
    path, dataset = write_set(tmp_path, decision())
    for output in (dataset, tmp_path):
        with pytest.raises(InputError, match="would replace the shards"):
            main(["--decision", str(path), "--dataset", str(dataset), "--output", str(output)])
    assert len(list(dataset.rglob("*.parquet"))) == 2


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path):
    first, second = (describe(tmp_path / name, decision()) for name in ("a", "b"))
    names = sorted(p.relative_to(first).as_posix() for p in first.rglob("*") if p.is_file())
    assert names == sorted(
        ["README.md", "croissant.json", "datasheet.md", "decision.json", "scorecard.json",
         "scorecard.md", "terms.json", "terms.md", "data/train-00000-of-00002.parquet",
         "data/train-00001-of-00002.parquet"]
    )  # fmt: skip
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_every_question_of_the_datasheet_has_an_answer(tmp_path: Path):
    text = (describe(tmp_path, decision()) / "datasheet.md").read_text()
    sections = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert sections == [
        "Motivation",
        "Composition",
        "Collection process",
        "Preprocessing, cleaning, labelling",
        "Uses",
        "Distribution",
        "Maintenance",
    ]
    for asked in text.split("\n### ")[1:]:
        question, _, answer = asked.partition("\n")
        assert question.endswith("?")
        assert answer.split("\n## ")[0].strip(), question
    assert "Edema 2" in text
    assert "Alarms of the latent lens: 0.05" in text


def test_records_of_another_model_say_nothing_here(tmp_path: Path):
    folder = describe(tmp_path, decision())
    assert len(write_records(tmp_path)) == 3
    assert "0.987" not in (folder / "scorecard.md").read_text()


@pytest.mark.parametrize("column", ["image_id", "caption"])
def test_what_the_documents_say_is_searched_before_anything_is_written(tmp_path: Path, column: str):
    """A reason that repeats a patient's id or caption would be published with the set."""
    manifest = Path(__file__).parents[1] / "scoring" / "inputs" / "manifest.parquet"
    leak = str(pd.read_parquet(manifest)[column].iloc[0])
    for reason, refused in (("every limit is met", False), (f"see {leak}", True)):
        folder = tmp_path / str(refused)
        path, dataset = write_set(folder, decision(reasons=[reason]))
        flags = ["--decision", path, "--dataset", dataset, "--output", folder / "published"]
        flags += ["--searched-manifests", manifest]
        if refused:
            with pytest.raises(InputError, match="would be published"):
                main([str(flag) for flag in flags])
        else:
            main([str(flag) for flag in flags])
        assert (folder / "published").exists() != refused
