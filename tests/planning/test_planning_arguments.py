"""What rules print: read back by each script's own parser, it is what the config says."""

import argparse
import importlib
import json
import re
import shlex
import subprocess
import sys

import pytest

from tests.workflow.checkouts import ROOT
from workflow_scripts.common.config import SCHEMA_PATH
from workflow_scripts.common.settings import (
    add_flags,
    flag_values,
    settings_in,
    settings_of_block,
    settings_of_flags,
)
from workflow_scripts.planning import arguments
from workflow_scripts.planning.cohort import cohort_flags, cohort_tables, folder_and_part
from workflow_scripts.planning.flags import flags, labelled, words
from workflow_scripts.planning.run import Run
from workflow_scripts.preflight.check import read_config

REID = {"size": 64, "epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "pairs": 10}
REID |= {"validation_share": 0.1, "contrast": 0.2, "seed": 3}


@pytest.fixture(scope="module")
def config():
    found = read_config(["config.yaml"])
    found["encoders"]["reid"]["train"] = REID
    return found


@pytest.fixture(scope="module")
def run(config):
    return Run(config)


def classes():
    """Every settings class that the schema names, by its place."""
    return re.findall(r"[\w.]+\.\w+:\w+", SCHEMA_PATH.read_text())


def blocks_of(config, cls):
    """The blocks of the config that a class describes."""
    models = [block for block in config["models"].values() if block]
    downstream = config["downstream"]
    return {
        "TrainSettings": [m["finetune"] for m in models if m.get("finetune")],
        "SampleSettings": [m["generate"] for m in models if "generate" in m],
        "BatchSettings": [m["generate"] for m in models if "generate" in m],
        "ControlSettings": [m["control"] for m in models if "control" in m],
        "Settings": [config["fidelity" if "fidelity" in cls.__module__ else "privacy"]],
        "ClosestSettings": [config["privacy"]],
        "MembershipSettings": [config["privacy"]["membership"]],
        "ExtractionSettings": [config["privacy"]["extraction"]],
        "ReidSettings": [REID],
        "CurateSettings": [
            config["curate"],
            config["curate"]
            | {"lens_false_alarms": {"reid": 0.005}, "most_by_attacks": {"extracted_share": 0.1}},
        ],
        "MadeSettings": [config["curate"], {"models": ["sana", "noise"]}],
        "WorthSettings": [config["curate"], {"worth": True, "worth_also": ["segmentation"]}],
        "ClassifierSettings": [downstream["classification"]],
        "DrawSettings": [downstream["segmentation"]],
        "SegmenterSettings": [downstream["segmentation"]],
        "LabellerSettings": [downstream["segmentation"]["labeller"]],
        "ReporterSettings": [downstream["report_generation"]],
    }[cls.__name__]


@pytest.mark.parametrize("place", classes())
def test_what_a_rule_prints_is_read_back_as_the_block_says(config, place):
    module, _, name = place.partition(":")
    cls = getattr(importlib.import_module(f"workflow_scripts.{module}"), name)
    parser = argparse.ArgumentParser()
    add_flags(parser, cls)
    found = blocks_of(config, cls)
    assert found
    for block in found:
        printed = " ".join(flags(flag_values(cls, block)))
        read = settings_of_flags(cls, parser.parse_args(shlex.split(printed)), parser)
        assert read == settings_of_block(cls, block)
    assert all(setting.key.says.endswith(".") for setting in settings_in(cls))


def test_planning_loads_no_large_library():
    """Snakemake reads the rules for every job that it starts, too."""
    large = ("torch", "diffusers", "transformers", "accelerate", "sklearn", "matplotlib", "scipy")
    code = (
        "import sys, workflow_scripts.planning.arguments, workflow_scripts.planning.reads;"
        "from workflow_scripts.common.config import schema; schema();"
        f"print([name for name in {large} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_settings_become_sorted_words_that_a_shell_reads_back():
    settings = {
        "size": 64,
        "learning_rate": 1e-4,
        "targets": ["a", "b c"],
        "on": True,
        "off": False,
        "none": None,
        "option": {"y": False, "x": "it's"},
    }
    expected = ["--learning-rate", "0.0001", "--on", "--option", "x=it's", "--option", "y=false"]
    expected += ["--size", "64", "--targets", "a", "b c"]
    assert words(settings) == expected
    assert shlex.split(" ".join(flags(settings))) == expected
    assert labelled("--images", [("a", "x y")]) == ["--images", "'a=x y'"]


def test_each_repeat_has_a_seed_of_its_own_and_so_no_seed_of_the_block(run):
    for found in (
        arguments.classifier_flags(run),
        arguments.segmenter_flags(run),
        arguments.reporter_flags(run),
    ):
        assert "--seed" not in found
        assert "--repeats" not in found
    assert "--images" not in arguments.segmenter_flags(run)
    labeller = arguments.labeller_flags(run)
    assert labeller[labeller.index("--classes") + 1 :][:2] == ["31", "32"]
    assert "--images" in labeller
    assert arguments.privacy_flags(run, only=("seed",)) == ["--seed", "42"]
    assert arguments.closest_flags(run) == ["--matches", "5"]
    assert "--encoders" not in arguments.fidelity_flags(run)
    assert arguments.scorer_flags(run, "nothing") == []


def test_a_models_images_follow_from_its_block_alone(run):
    block = json.loads(arguments.sampled_block(run, "sd_v1_4"))
    assert block.keys() == {"family", "base", "parts", "generate"}
    tuned = arguments.sample_flags(run, "sd_v1_4")
    assert tuned[tuned.index("--base") + 1] == "results/finetune/sd_v1_4/checkpoint"
    assert arguments.encoder_flags(run, ["reid"]) == [
        "--encoder",
        "reid=results/features/reid/weights.pth",
    ]


def test_steps_of_a_ladder_keep_their_draws_and_nothing_else_does(config):
    wanted = ["blur_1", "warp_2", "blurred_real", "noise", "jpeg_50", "sd_v1_4"]
    run = Run({**config, "run_models": wanted})
    kept = {model for model in wanted if arguments.keep_draws_flag(run, model)}
    assert kept == {"blur_1", "warp_2", "blurred_real"}
    assert arguments.keep_draws_flag(run, "real") == []
    axes = {model: arguments.kept_axes_flags(run, model) for model in wanted}
    assert {model for model, flags in axes.items() if flags} == kept
    assert axes["warp_2"] == ["--draws-seed", "42", "--keep-draws", "1000"]


def test_tables_are_told_of_every_model(run):
    rows = {row["key"]: row for row in json.loads(shlex.split(arguments.model_table(run))[0])}
    assert list(rows) == run.models
    assert rows["sd_v1_4"]["finetuning"] == "FFT"
    assert rows["flipped_copies"]["missing"].keys() == {"test", "augment", "stress"}
    known = json.loads(shlex.split(arguments.tokenizers(run))[0])
    assert known.keys() == set(run.sampled)
    figures = arguments.figure_flags(run)
    assert figures[:3] == ["--test-prompts", "results/cohort/prompts/test.parquet", "--prompts"]
    assert figures[3].startswith("llava_rad=")
    assert figures.count("--images") == len(run.with_examples())
    pairs = arguments.riskiest_flags(run)
    assert pairs[:2] == ["--pairs", "sd_v1_4=results/privacy/closest/sd_v1_4_pairs.parquet"]


def test_a_part_of_the_cohort_is_read_without_what_it_does_not_hold(config):
    assert folder_and_part("captions_impression/training/") == ("captions_impression/", "training")
    assert folder_and_part("captions_impression/") == ("captions_impression/", "")
    whole, part = cohort_flags(config, ""), cohort_flags(config, "captions_impression/training/")
    assert whole[0] == part[0] == "mimic_cxr_jpg"
    assert part[part.index("--caption-source") + 1] == "impression"
    assert part[-3:] == ["--part", "training", "--no-check-files"]
    assert "--alike" in whole
    assert "--alike" not in part


def test_a_folders_columns_and_findings_become_flags(config, tmp_path):
    folder = {
        "root": "films",
        "metadata": str(tmp_path / "films.csv"),
        "columns": {"path": "file", "patient_id": "patient", "caption": "text"},
        "findings": {
            "column": "labels",
            "separator": "|",
            "values": {"Effusion": "Pleural Effusion"},
            "absent": 0,
        },
        "test_share": 0.2,
    }
    cohort = {**config["cohort"], "source": "image_folder", "image_folder": folder}
    changed = {**config, "cohort": cohort}
    found = shlex.split(" ".join(cohort_flags(changed, "captions_short/")))
    assert "caption=short" in found
    assert "Pleural Effusion=Effusion" in found
    assert found[found.index("--finding-absent") + 1] == "0"
    assert found[found.index("--test-share") + 1] == "0.2"
    assert "--finding" not in cohort_flags(changed, "test/"), "a test's captions have no label"
    assert cohort_tables(changed) == []
    (tmp_path / "films.csv").touch()
    assert cohort_tables(changed) == [str(tmp_path / "films.csv")]


def test_of_a_model_that_came_trained_sampling_says_how_its_losses_are_measured(config):
    from workflow_scripts.finetune.families import get_family
    from workflow_scripts.finetune.families.base import Family
    from workflow_scripts.privacy.membership.settings import LIKELIHOODS

    generate = config["models"]["llm_cxr"]["generate"]
    asked = {**generate, "precision": "bf16", "options": {"top_p": 0.5, "instruction": "Draw it."}}
    models = {**config["models"], "llm_cxr": {**config["models"]["llm_cxr"], "generate": asked}}
    run = Run({**config, "models": models})
    assert run.presumed == ["llm_cxr"]
    found = " ".join(arguments.membership_flags(run, "llm_cxr"))
    assert "--size 256" in found
    assert "--mixed-precision bf16" in found
    assert "instruction=Draw it." in found
    assert "top_p" not in found
    assert "--mixed-precision no" in " ".join(arguments.membership_flags(Run(config), "llm_cxr"))
    # Whoever came trained and has a loss of its own is attacked by it.
    for name in LIKELIHOODS:
        family = get_family(name)
        assert not family.trained
        assert type(family).loss is not Family.loss
    assert type(get_family("radedit")).loss is Family.loss
