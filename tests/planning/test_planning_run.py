"""Where a run's files lie, by hand, on the paper's config with a few models changed."""

import copy

import pytest

from workflow_scripts.planning.run import REID_WEIGHTS, Run
from workflow_scripts.preflight.check import read_config


@pytest.fixture(scope="module")
def config():
    found = copy.deepcopy(read_config(["config.yaml"]))
    found["run_models"] = ["sd_v1_4", "sd_v1_4_impression", "radedit", "held_out_real", "mine"]
    found["models"]["mine"] = {
        "family": "external",
        "external": {"images": "films", "metadata": "films.csv"},
        "display": {"name": "Mine"},
        "prompt_sets": ["test"],
    }
    found["downstream"]["classification"]["repeats"] = 2
    return found


@pytest.fixture(scope="module")
def run(config):
    return Run(config)


def test_models_are_told_apart_by_what_makes_their_images(run):
    assert run.controls == ["held_out_real"]
    assert run.external == ["mine"]
    assert run.sampled == ["sd_v1_4", "sd_v1_4_impression", "radedit"]
    assert run.finetuned == ["sd_v1_4", "sd_v1_4_impression"]
    assert run.with_images("privacy") == [*run.sampled, "held_out_real"]
    assert run.with_images("augment") == ["sd_v1_4", "radedit", "held_out_real"]
    assert run.with_examples() == ["sd_v1_4", "radedit", "held_out_real", "mine"]
    assert run.other_protocol == "as_published"


def test_captions_of_another_source_have_a_folder_of_their_own(run):
    assert run.caption_folders() == ["", "captions_impression/"]
    assert run.manifest("sd_v1_4") == "results/cohort/manifest.parquet"
    folder = "results/cohort/captions_impression"
    assert run.manifest("sd_v1_4_impression") == f"{folder}/manifest.parquet"
    assert run.training_manifest("sd_v1_4_impression") == f"{folder}/training/manifest.parquet"
    assert run.prompts("sd_v1_4_impression", "test") == f"{folder}/prompts/test.parquet"
    assert run.own_features("sd_v1_4_impression") == [
        f"results/features/real/captions_impression/prompts/as_published/{name}.h5"
        for name in ("rad_dino", "reid")
    ]
    assert len(run.every_prompt_set()) == 2 * 3
    assert run.exported_prompts()[0] == "results/cohort/prompts/test.csv"
    assert "its own captions" in run.why_missing("sd_v1_4_impression", "augment")
    assert "no images" in run.why_missing("mine", "privacy")


def test_prompts_are_sampled_from_the_part_that_they_are_drawn_from(run):
    parts = {name: run.sampled_prompts("sd_v1_4", name) for name in ("test", "privacy", "augment")}
    assert parts == {
        "test": "results/cohort/test/prompts/test.parquet",
        "privacy": "results/cohort/training/prompts/privacy.parquet",
        "augment": "results/cohort/labelled_training/prompts/augment.parquet",  # draw: official
    }


def test_a_published_model_has_no_checkpoint_and_a_set_as_many_shards_as_asked(run):
    assert run.checkpoint("sd_v1_4") == "results/finetune/sd_v1_4/checkpoint"
    assert run.curve("sd_v1_4") == "results/finetune/sd_v1_4/training.csv"
    assert run.checkpoint("radedit") is None
    assert run.curve("radedit") is None
    shards = run.shards("radedit", "test")
    assert len(shards) == 4
    assert shards[3] == "results/generate/radedit/test/part-00003-of-00004.parquet"


def test_a_trained_re_identification_network_takes_the_place_of_the_published_one(config, run):
    assert run.trained_weights() == []
    assert run.encoder_weights("reid").endswith("RPN.pth")
    changed = copy.deepcopy(config)
    changed["encoders"]["reid"]["train"] = {"size": 64}
    training = Run(changed)
    assert training.trained_weights() == [training.encoder_weights("reid")] == [REID_WEIGHTS]


def test_arms_are_held_against_real_data_or_what_they_continue(run):
    real = [f"results/downstream/classification/real_only/real/repeat-{k}.parquet" for k in (0, 1)]
    assert run.outcomes("classification", "real_only", "real") == real
    assert run.baseline("classification", "augmented") == real
    assert run.baseline("classification", "real_only") == []
    folder = "results/downstream/report_generation"
    released = [f"{folder}/released/real/repeat-0.parquet"]
    assert run.baseline("report_generation", "synthetic_only") == released
    assert run.baseline("report_generation", "augmented")[0].startswith(f"{folder}/real_only/")
    assert run.baseline("report_generation", "released") == []
    scores = run.report_scores("synthetic_only", "radedit")
    assert f"{folder}/synthetic_only/radedit/green-0.parquet" in scores
    assert f"{folder}/released/real/chexbert-0.parquet" in scores
    assert len(scores) == 2 * 4
    assert [run.training_seed("classification", k) for k in ("0", "1")] == [42, 43]


def test_baselines_are_trained_on_no_synthetic_image(run):
    for setting in ("real_only", "released"):
        assert run.training_shards(setting, "real") == []
    assert run.training_shards("augmented", "radedit") == run.shards("radedit", "augment")
    assert run.labelled_shards("real") == []
    assert run.masks("real_only", "real") is None
    masks = "results/downstream/segmentation/masks/radedit.parquet"
    assert run.masks("augmented", "radedit") == masks


def test_records_are_those_of_the_models_that_have_the_images(run):
    assert "results/fidelity/rad_dino/mine.json" in run.records("fidelity")
    assert "results/privacy/closest/radedit.json" in run.records("privacy")
    assert not any("mine" in name for name in run.records("privacy") + run.records("downstream"))


def test_reports_are_written_of_every_models_test_images_where_the_config_asks_for_them(config):
    changed = copy.deepcopy(config)
    changed["faithfulness"]["judges"] = ["densenet_121", "llava_rad"]
    changed["downstream"]["tasks"] = ["classification"]  # neither organs nor report generation
    asked = Run(changed)
    assert (asked.judges, asked.reads_reports, asked.looks) == (["densenet_121"], True, False)
    models = ("sd_v1_4", "sd_v1_4_impression", "radedit", "held_out_real", "mine")
    records = [f"results/faithfulness/round_trip/{model}.json" for model in models]
    assert asked.records("faithfulness") == records
    assert not any("round_trip" in name for name in Run(config).records("faithfulness"))


def test_a_users_table_is_an_input_once_it_is_there(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.external_tables("mine") == []
    (tmp_path / "films.csv").touch()
    assert run.external_tables("mine") == ["films.csv"]
