"""The pool of a curated set, and what its worth is measured from."""

import copy
import re

import pytest

from workflow_scripts.common.config import validate_config
from workflow_scripts.common.errors import InputError
from workflow_scripts.planning import arguments
from workflow_scripts.planning.run import Run
from workflow_scripts.preflight.check import read_config

SET = {"captions": 120, "prevalence": {"Fracture": 0.05}, "draw_seed": 42, "shards": 3}


@pytest.fixture
def config():
    return copy.deepcopy(read_config(["config.yaml", "profiles/demo/overlay.yaml"]))


@pytest.fixture
def drawn(config):
    config["prompt_sets"]["drawn"] = SET
    config["curate"]["pool"] = "drawn"
    validate_config(config)
    return Run(config)


def test_a_drawn_pool_is_sampled_in_shards_from_captions_with_findings(drawn):
    assert drawn.curated_shards("tiny_sd") == [
        f"results/generate/tiny_sd/drawn/part-{k:05d}-of-00003.parquet" for k in range(3)
    ]
    assert drawn.curated_prompts("tiny_sd") == "results/cohort/prompts/drawn.parquet"
    sampled = drawn.sampled_prompts("tiny_sd", "drawn")
    assert sampled == "results/cohort/labelled_training/prompts/drawn.parquet"
    assert arguments.drawn_flags(drawn) == [
        *("--captions", "120", "--draw-seed", "42", "--prevalence", "Fracture=0.05")
    ]


def test_shards_are_no_flag_of_the_draw(drawn):
    before = arguments.drawn_flags(drawn)
    drawn.config["prompt_sets"]["drawn"] = SET | {"shards": 1}
    assert arguments.drawn_flags(drawn) == before


@pytest.mark.parametrize("model", ["noise", "my_model", "nobody"])
def test_only_of_a_model_that_is_sampled_here_new_images_are_drawn(drawn, model):
    with pytest.raises(InputError, match="can be drawn: it is not a model of run_models"):
        drawn.curated_shards(model)


def test_a_pool_that_nothing_draws_is_refused(config):
    config["curate"]["pool"] = "drawn"
    with pytest.raises(InputError, match="the config does not say how") as error:
        Run(config).curated_prompts("tiny_sd")
    assert error.value.where == "prompt_sets.drawn"


def test_by_default_there_is_no_such_set(config):
    assert "drawn" not in config["prompt_sets"]
    assert arguments.drawn_flags(Run(config)) == []


def test_a_share_beyond_one_and_an_unknown_finding_are_refused(config):
    for prevalence in ({"Fracture": 1.5}, {"Oedema": 0.1}):
        config["prompt_sets"]["drawn"] = SET | {"prevalence": prevalence}
        with pytest.raises(InputError, match=r"prompt_sets\.drawn\.prevalence"):
            validate_config(config)


def test_worth_is_measured_on_request_alone(config):
    run = Run(config)
    assert run.worth_of("tiny_sd") is None
    assert run.worth_runs("tiny_sd") == ["results/curate/tiny_sd/worth/repeat-0"]
    config["curate"]["worth"] = True
    validate_config(config)
    assert run.worth_of("tiny_sd") == "results/curate/tiny_sd/worth.json"
    # Whether it is measured is not part of the policy, by which the set is drawn.
    assert "--worth" not in arguments.curate_flags(run)


def test_segmentation_is_measured_beside_classification_on_request_alone(config):
    config["curate"]["worth"] = True
    run = Run(config)
    assert run.segmented_worth_of("tiny_sd") is None
    runs = ["results/curate/tiny_sd/segmenters/repeat-0"]
    assert run.segmented_worth_runs("tiny_sd") == runs
    config["curate"] |= {"worth_also": ["segmentation"], "models": ["tiny_sd"]}
    validate_config(config)
    record = "results/curate/tiny_sd/worth_segmentation.json"
    assert run.segmented_worth_of("tiny_sd") == record
    assert run.records("curate")[-1] == record
    assert len(run.records("curate")) == 3
    assert "--worth-also" not in arguments.curate_flags(run)
    words = arguments.segmented_worth_flags(run)
    task = config["downstream"]["segmentation"]
    assert words[words.index("--masked-images") + 1] == str(task["images"])
    assert words[words.index("--labeller-size") + 1] == str(task["labeller"]["size"])
    assert words[words.index("--draw-seed") + 1] == str(config["curate"]["seed"])


@pytest.mark.parametrize(
    ("changed", "tasks", "said"),
    [
        ({"worth": False}, None, "nothing is measured without curate.worth"),
        ({}, ["classification"], "downstream.tasks has no segmentation, which measures it"),
    ],
)
def test_segmentation_that_cannot_be_measured_is_refused(config, changed, tasks, said):
    config["curate"] |= {"worth": True, "worth_also": ["segmentation"], **changed}
    config["downstream"]["tasks"] = tasks or config["downstream"]["tasks"]
    with pytest.raises(InputError, match=re.escape(said)):
        validate_config(config)


def test_a_u_net_needs_its_task_and_no_test_patients(config):
    config["downstream"]["tasks"] = ["classification"]
    with pytest.raises(InputError, match="measured by segmentation, which does not run"):
        Run(config).segmented_worth_runs("tiny_sd")


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [("tasks", ["segmentation"], "downstream.tasks"), ("pool", "test", "curate.pool")],
)
def test_worth_needs_a_baseline_and_no_test_patients(config, key, value, where):
    config["curate" if key == "pool" else "downstream"][key] = value
    with pytest.raises(InputError) as error:
        Run(config).worth_runs("tiny_sd")
    assert error.value.where == where


def test_no_run_makes_a_set_that_nobody_asks_for(config):
    for asked in (config, config | {"curate": config["curate"] | {"worth": True}}):
        run = Run(asked)
        assert run.curated() == run.curated_sets() == run.records("curate") == []


def test_sets_that_every_run_makes_stand_in_the_order_of_the_tables(config):
    config["curate"]["models"] = ["noise", "tiny_sd"]
    validate_config(config)
    run = Run(config)
    assert run.curated_sets() == [f"results/curate/{m}/published" for m in ("tiny_sd", "noise")]
    assert run.records("curate") == [
        f"results/curate/{m}/filter.json" for m in ("tiny_sd", "noise")
    ]
    config["curate"]["worth"] = True
    validate_config(config)
    assert run.records("curate")[:2] == [
        f"results/curate/tiny_sd/{name}.json" for name in ("filter", "worth")
    ]
    # Which sets are made is no part of the policy, by which each is drawn.
    assert "--models" not in arguments.curate_flags(run)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"models": ["nobody"]}, "'nobody' is not in run_models"),
        ({"models": ["tiny_sd_base"], "pool": "augment"}, "no images of the prompt set 'augment'"),
        ({"models": ["my_model"], "pool": "drawn"}, "is not sampled here"),
        ({"models": ["tiny_sd"], "pool": "drawn"}, "prompt_sets.drawn is missing"),
        ({"models": ["tiny_sd"], "pool": "test", "worth": True}, "curate.worth: the pool"),
    ],
)
def test_sets_that_cannot_be_made_are_refused_before_anything_is_planned(config, changed, said):
    config["curate"] |= changed
    if said.startswith("no images"):
        config["models"]["tiny_sd_base"]["prompt_sets"] = ["test"]
    with pytest.raises(InputError, match=re.escape(said)):
        validate_config(config)


def test_worth_without_its_task_is_refused(config):
    config["curate"] |= {"models": ["tiny_sd"], "worth": True}
    config["downstream"]["tasks"] = ["segmentation"]
    with pytest.raises(InputError, match=r"downstream\.tasks has no classification"):
        validate_config(config)
