"""Curated sets of the demo: copies and noise are refused, and nothing planted gets out."""

import json
import shlex
import sys

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, DatasetCardData

from tests.curate.test_croissant import needs_reader, read
from tests.stops import kill
from tests.workflow.checkouts import copy_results, make_checkout, run
from workflow_scripts.common.images import ImageItem
from workflow_scripts.common.manifest import FINDINGS, read_manifest
from workflow_scripts.curate.lenses import LENS_SCHEMA, LENSES
from workflow_scripts.curate.search import pixels_digest
from workflow_scripts.privacy.private_table import read_private_table

pytestmark = [pytest.mark.workflow, pytest.mark.full]

MODELS = ("my_model", "training_copies", "noise")


@pytest.fixture(scope="module")
def curated(demo, tmp_path_factory):
    """A copy of the demo in which three sets were curated; the demo itself is left as it is."""
    folder = tmp_path_factory.mktemp("curated")
    make_checkout(folder)
    copy_results(demo, folder)
    targets = [f"results/curate/{model}/published" for model in MODELS]
    run(["snakemake", "--profile", "profiles/demo", "--", *targets], folder)
    return folder


def decision(curated, model):
    return json.loads((curated / f"results/curate/{model}/published/decision.json").read_text())


def measured(curated, model):
    return {row["key"]: row for row in decision(curated, model)["measured"]}


def test_an_honest_model_passes(curated):
    assert decision(curated, "my_model")["verdict"] != "do_not_release"
    assert decision(curated, "my_model")["kept"] == 60


def test_copies_are_refused(curated):
    assert decision(curated, "training_copies")["verdict"] == "do_not_release"
    assert measured(curated, "training_copies")["flagged"]["value"] > 0.9


def test_noise_passes_privacy_and_fails_quality(curated):
    assert decision(curated, "noise")["verdict"] == "do_not_release"
    assert measured(curated, "noise")["flagged"]["passed"]
    assert measured(curated, "noise")["sparse"]["value"] > 0.9
    assert decision(curated, "noise")["kept"] == 0


def test_nothing_planted_and_no_radiograph_reaches_the_set(curated):
    folder = curated / "results/curate/my_model"
    lenses = read_private_table(folder / "lenses.parquet", LENS_SCHEMA)
    real = set(lenses.loc[lenses["group"] != "pool", "digest"])
    table = pq.read_table(folder / "published/data").to_pandas()
    assert len(table) == 60
    assert real
    shown = {
        pixels_digest(ImageItem("", row["path"], row["bytes"]).open()) for row in table["image"]
    }
    assert not shown & real
    chosen = pd.read_parquet(folder / "chosen.parquet")
    assert set(chosen["prompt_id"]) <= set(lenses.loc[lenses["group"] == "pool", "id"])


def test_the_set_opens_with_datasets_and_as_a_folder_of_a_hub(curated, tmp_path):
    folder = curated / "results/curate/my_model/published"
    by_name = datasets.load_dataset(
        "parquet", data_files=str(folder / "data/train-*.parquet"), split="train",
        cache_dir=str(tmp_path / "a"),
    )  # fmt: skip
    by_folder = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "b"))
    for opened in (by_name, by_folder):
        assert len(opened) == 60
        assert opened[0]["image"].size == (128, 128)
        assert {*FINDINGS, *(f"score_{lens}" for lens in LENSES)} < set(opened.column_names)
    card = DatasetCard.load(folder / "README.md")
    assert isinstance(card.data, DatasetCardData)
    assert card.data.pretty_name == "Synthetic chest radiographs of my_model"
    assert {f["name"] for f in card.data.dataset_info["features"]} == set(by_name.column_names)
    assert "extra_gated_prompt" in card.data.to_dict()  # its verdict is `credentialed`


@needs_reader
def test_mlcommons_reader_validates_the_set_and_loads_every_record(curated):
    told = read(curated / "results/curate/my_model/published")
    assert told["errors"] == []
    assert [record["size"] for record in told["records"]] == [[128, 128]] * 60


def test_what_held_radiographs_is_gone_and_no_id_is_published(curated):
    folder = curated / "results/curate/my_model"
    assert not (folder / "candidates.parquet").exists()
    manifest = read_manifest(curated / "results/cohort/manifest.parquet")
    texts = "".join(path.read_text() for path in (folder / "published").glob("*.*") if path.suffix)
    assert not [name for name in manifest["image_id"] if name in texts]


def killed_and_continued(curated, words, progress, output):
    """Kill a script once a part of it is kept, run it again, and return where it wrote."""
    words = [sys.executable, "-m", *words, "--progress", progress, "--output", output]
    kill(lambda: any(progress.glob("attempt-*/[!.]*")), words, cwd=curated)
    assert not output.exists()
    said = run(words, curated).stdout
    assert "continuing" in said
    assert not progress.exists()
    return output


def printed(curated, rule):
    """Return the words of the script that a rule ran for my_model, without progress and output."""
    target = f"results/curate/my_model/{'seen' if rule == 'curate_look' else 'lenses'}.parquet"
    told = run(["snakemake", "--profile", "profiles/demo", "-n", "-p", "--forcerun", rule,
                "--", target], curated).stdout  # fmt: skip
    line = next(x for x in told.splitlines() if f"workflow_scripts.{rule.replace('_', '.')} " in x)
    words = shlex.split(line[line.index("workflow_scripts.") :].split(" 2> ")[0])
    for flag in ("--progress", "--output"):
        place = words.index(flag)
        del words[place : place + 2]
    return words


def test_a_look_that_was_killed_goes_on_and_sees_the_same(curated, tmp_path):
    words = printed(curated, "curate_look")
    output = tmp_path / "seen.parquet"
    found = pq.read_table(killed_and_continued(curated, words, tmp_path / ".progress", output))
    whole = pq.read_table(curated / "results/curate/my_model/seen.parquet")
    # What it is described by has the time at which it was written.
    assert found.replace_schema_metadata(None) == whole.replace_schema_metadata(None)


def test_a_search_that_was_killed_goes_on_and_gives_the_same_bytes(curated, tmp_path):
    words = printed(curated, "curate_lenses")
    plan = ["snakemake", "--profile", "profiles/demo", "--notemp", "--forcerun", "curate_plant"]
    candidates = "results/curate/my_model/candidates.parquet"
    expected = (curated / "results/curate/my_model/lenses.parquet").read_bytes()
    run([*plan, "--", candidates], curated)
    output = tmp_path / "lenses.parquet"
    found = killed_and_continued(curated, words, tmp_path / ".progress", output).read_bytes()
    (curated / candidates).unlink()
    assert found == expected
