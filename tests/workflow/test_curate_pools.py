"""Curated sets of the demo from new samples and from the stress set, and what they are worth."""

import csv
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from tests.workflow.checkouts import copy_results, make_checkout, planned_jobs, run
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import read_shard_ids
from workflow_scripts.common.manifest import read_prompts
from workflow_scripts.common.records import read_record

pytestmark = [pytest.mark.workflow, pytest.mark.full]

DRAWN = {
    "prompt_sets": {
        "drawn": {
            "captions": 100,
            "prevalence": {"Pleural Effusion": 0.3, "Fracture": 0.05},
            "draw_seed": 42,
            "shards": 2,
        }
    },
    "curate": {"pool": "drawn", "images": 10, "worth": True, "worth_also": ["segmentation"]},
}
STRESS = {
    "curate": {
        "pool": "stress",
        "images": 20,
        "quotas": {"Pleural Effusion": 2},
        "published_prompts": "templates",
        "worth": True,
    }
}


def with_overlay(folder, overlay):
    """Snakemake's flags with the demo's config and an overlay on it."""
    (folder / "own.yaml").write_text(yaml.safe_dump(overlay))
    configs = ["config.yaml", "profiles/demo/overlay.yaml", "own.yaml"]
    return ["--profile", "profiles/demo", "--configfile", *configs, "--"]


@pytest.fixture(scope="module")
def copied(demo, tmp_path_factory):
    """A copy of the demo; the demo itself is left as it is."""
    folder = tmp_path_factory.mktemp("pools")
    make_checkout(folder)
    copy_results(demo, folder)
    return folder


@pytest.fixture(scope="module")
def drawn(copied):
    """A set of new samples of a model that the demo trains."""
    target = "results/curate/tiny_sd/published"
    run(["snakemake", *with_overlay(copied, DRAWN), target], copied)
    return copied


@pytest.fixture(scope="module")
def stress(copied):
    """A set of the stress set's images, of the user's own model."""
    target = "results/curate/my_model/published"
    run(["snakemake", *with_overlay(copied, STRESS), target], copied)
    return copied


def test_new_samples_have_the_prevalence_that_was_asked_for(drawn):
    prompts = read_prompts(drawn / "results/cohort/prompts/drawn.parquet")
    assert len(prompts) == 100
    assert (prompts["Pleural Effusion"] == 1).sum() == 30
    assert (prompts["Fracture"] == 1).sum() == 5
    shards = sorted((drawn / "results/generate/tiny_sd/drawn").glob("part-*.parquet"))
    assert len(shards) == 2
    assert sorted(read_shard_ids(shards)) == sorted(prompts["prompt_id"])
    part = read_prompts(drawn / "results/cohort/labelled_training/prompts/drawn.parquet")
    pd.testing.assert_frame_equal(prompts, part)


def test_the_set_is_drawn_from_them(drawn):
    folder = drawn / "results/curate/tiny_sd"
    assert json.loads((folder / "decision.json").read_text())["pool"] == {
        "prompt_set": "drawn",
        "images": 100,
    }
    chosen = pd.read_parquet(folder / "chosen.parquet")
    assert set(chosen["prompt_id"].str.split("-").str[0]) <= {"drawn"}


def test_its_worth_names_what_was_trained_on(drawn):
    folder = drawn / "results/curate/tiny_sd"
    record = read_record(folder / "worth.json")
    published = folder / "published/data/train-00000-of-00001.parquet"
    assert record.details["dataset_sha256"] == sha256_of(published)
    assert record.details["pool_images"] == 100
    kept = pq.read_metadata(published).num_rows
    assert {s["images"] for s in record.details["sets"].values()} == {kept}
    real = read_record(drawn / "results/downstream/classification/real_only/real.json")
    assert record.get("real_auroc").value == pytest.approx(real.get("auroc").value)
    assert record.get("filter_added_auroc").value is not None
    assert "without the filter, alone" in (folder / "published/README.md").read_text()


def test_segmentation_is_tried_with_the_worlds_labeller(drawn):
    folder = drawn / "results/curate/tiny_sd"
    record = read_record(folder / "worth_segmentation.json")
    kept = pq.read_metadata(folder / "published/data/train-00000-of-00001.parquet").num_rows
    assert record.details["masked"] == {"curated": kept, "unfiltered": kept}
    real = read_record(drawn / "results/downstream/segmentation/real_only/real.json")
    assert record.get("real_dice").value == pytest.approx(real.get("dice").value)
    effect, arms = record.get("filter_added_dice"), ("curated", "unfiltered")
    first, second = (record.get(f"{name}_added_dice").value for name in arms)
    assert effect.value == pytest.approx(first - second)
    card = (folder / "published/README.md").read_text()
    assert "A U-Net was trained to segment the clavicles" in card


def test_prompts_of_the_stress_set_go_with_its_images(stress):
    folder = stress / "results/curate/my_model/published"
    table = pq.read_table(folder / "data/train-00000-of-00001.parquet").to_pandas()
    prompts = read_prompts(stress / "results/cohort/prompts/stress.parquet")
    assert len(table)
    assert set(table["prompt"]) <= set(prompts["caption"])
    assert json.loads((folder / "decision.json").read_text())["pool"]["prompt_set"] == "stress"


def test_templates_are_no_patients_and_nothing_is_trained_on_them(stress):
    record = read_record(stress / "results/curate/my_model/worth.json")
    assert "belong to no patient" in record.get("curated_alone_auroc").reason
    card = (stress / "results/curate/my_model/published/README.md").read_text()
    assert "belong to no patient" in card


def test_other_stages_do_not_see_the_drawn_set(drawn):
    """Neither features nor downstream read its samples; costs and report name its shards."""
    plain = planned_jobs(drawn, "--profile", "profiles/demo")
    more = planned_jobs(drawn, *with_overlay(drawn, DRAWN)[:-1]) - plain
    assert {rule for rule, _ in more} == {
        "costs_jobs", "tables_costs", "tables_figures", "tables_report",
    }  # fmt: skip


def test_tables_show_the_set_and_its_worth_where_the_config_names_the_model(drawn):
    """A run without `curate.models` shows none, though the set is there."""
    folder = drawn / "results/tables"
    before = (folder / "table25b_curated_worth.md").read_text()
    assert "not run: no model's set is asked for" in before
    named = DRAWN | {"curate": DRAWN["curate"] | {"models": ["tiny_sd"]}}
    run(["snakemake", *with_overlay(drawn, named), "results/tables/table25_curated.csv"], drawn)
    with (folder / "table25_curated.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    decision = json.loads((drawn / "results/curate/tiny_sd/decision.json").read_text())
    assert int(float(row["Pool"])) == 100
    assert int(float(row["Set"])) == decision["kept"]
    assert int(float(row["Leaks left, at most ↓"])) == decision["remaining_leaks_upper"]
    with (folder / "table25b_curated_worth.csv").open() as stream:
        rows = {row["Classifier trained on"]: row for row in csv.DictReader(stream)}
    record = read_record(drawn / "results/curate/tiny_sd/worth.json")
    for words, arm in (
        ("real images alone", "real"),
        ("as many images, no filter", "unfiltered_alone"),
        ("real images and the set", "curated_added"),
    ):
        shown = float(rows[words]["AUROC ↑"])
        assert shown == pytest.approx(record.get(f"{arm}_auroc").value)
    effect = float(rows["the set"]["AUROC, by the filter ↑"])
    assert effect == pytest.approx(record.get("filter_alone_auroc").value)
