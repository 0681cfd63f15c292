"""What jobs are told of the files that they read: changed by content, and by nothing else."""

import copy
import os

import pytest

from workflow_scripts.planning.reads import MANY_FILES, Reads
from workflow_scripts.planning.run import Run
from workflow_scripts.preflight.check import read_config

VERSIONS = {"cohort": 1}


@pytest.fixture
def config(tmp_path, monkeypatch):
    found = copy.deepcopy(read_config(["config.yaml"]))
    monkeypatch.chdir(tmp_path)
    found["encoders"]["reid"]["weights"] = "w/reid.pth"
    found["downstream"]["report_generation"]["start"] = "w/llava"
    found["downstream"]["segmentation"]["exact_masks"] = "w/masks"
    for name in (
        "w/reid.pth",
        "w/rad.bin",
        "w/llava/base/a",
        "w/llava/released/b",
        "w/masks/1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found["encoders"]["rad_dino"]["weights"] = "w/rad.bin"
    return found


def reads(config, tmp_path):
    return Reads(Run(config), VERSIONS, tmp_path / ".known")


def test_an_encoder_is_told_by_content_and_one_that_is_trained_not_at_all(config, tmp_path):
    before = reads(config, tmp_path).encoders(["rad_dino", "reid"])
    assert [line.split()[0] for line in before] == ["rad_dino", "reid"]
    os.utime("w/rad.bin", (1, 1))
    assert reads(config, tmp_path).encoders(["rad_dino", "reid"]) == before
    (tmp_path / "w/rad.bin").write_text("another")
    after = reads(config, tmp_path).encoders(["rad_dino", "reid"])
    assert after[1] == before[1]
    assert after[0] != before[0]
    config["encoders"]["reid"]["train"] = {"size": 64}
    assert reads(config, tmp_path).encoders(["rad_dino", "reid"]) == after[:1]


def test_a_report_generator_is_told_of_what_its_setting_may_start_from(config, tmp_path):
    found = reads(config, tmp_path)
    base, released = found.reporter_start("real_only"), found.reporter_start("released")
    assert found.reporter_start("synthetic_only") == base + released
    assert len(base) == len(released) == 1 != len({*base, *released})


def test_a_checkpoint_trained_in_full_needs_nothing_of_its_base(config, tmp_path):
    found = reads(config, tmp_path)
    assert found.sampled_base("sd_v1_4") == []
    assert found.sampled_base("radedit") == found.base("radedit")


def test_masks_and_scorers_that_are_not_configured_are_nothing(config, tmp_path):
    assert len(reads(config, tmp_path).exact_masks()) == 1
    config["downstream"]["segmentation"]["exact_masks"] = None
    assert reads(config, tmp_path).exact_masks() == []
    assert reads(config, tmp_path).scorer("nothing") == []


def test_a_folder_of_many_files_has_one_digest(config, tmp_path):
    for number in range(MANY_FILES):
        (tmp_path / f"w/masks/{number}.png").write_text(str(number))
    assert len(reads(config, tmp_path).exact_masks()) == 1


def test_a_part_of_the_cohort_is_told_by_what_it_will_hold(config, tmp_path):
    assert reads(config, tmp_path).cohort("") != reads(config, tmp_path).cohort("training/")
