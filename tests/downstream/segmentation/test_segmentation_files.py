"""Checks before a run: the config's settings, and the files of the labeller and exact masks."""

import pytest
import torch

from workflow_scripts.common.config import validate_config
from workflow_scripts.common.errors import InputError
from workflow_scripts.preflight.check import preflight, read_config

from .conftest import random_cxas


@pytest.fixture
def config(tmp_path):
    config = read_config(["config.yaml"])
    config["downstream"]["tasks"] = ["segmentation"]
    weights = tmp_path / "UNet_ResNet50_default.pth"
    torch.save({"model": random_cxas((1, 1, 1, 1), classes=40).state_dict()}, weights)
    config["downstream"]["segmentation"]["labeller"]["weights"] = str(weights)
    return config


def test_the_labeller_is_checked_where_segmentation_runs(config):
    (check,) = preflight(config, {"downstream"}, set())
    assert check.what == "downstream.segmentation.labeller"
    assert check.fault is None
    config["downstream"]["segmentation"]["labeller"]["classes"] = [31, 40]
    (check,) = preflight(config, {"downstream"}, set())
    assert "of a network with 40" in str(check.fault)
    config["downstream"]["segmentation"]["labeller"]["weights"] = "nowhere.pth"
    (check,) = preflight(config, {"downstream"}, set())
    assert "missing" in str(check.fault)
    config["downstream"]["tasks"] = []
    assert preflight(config, {"downstream"}, set()) == []


def test_exact_masks_are_a_folder_that_holds_some(config, tmp_path):
    folder = tmp_path / "masks"
    config["downstream"]["segmentation"]["exact_masks"] = str(folder)

    def fault():
        _, check = preflight(config, {"downstream"}, set())
        assert check.what == "downstream.segmentation.exact_masks"
        return check.fault

    assert "missing" in str(fault())
    folder.mkdir()
    (folder / "a.jpg").touch()
    assert "no {image_id}.png" in str(fault())
    (folder / "a.png").touch()
    assert fault() is None


def test_a_size_that_the_levels_do_not_divide_is_refused(config):
    validate_config(config)
    config["downstream"]["segmentation"]["size"] = 250
    with pytest.raises(InputError, match=r"downstream\.segmentation\.size: 250"):
        validate_config(config)
    config["downstream"]["segmentation"]["loss"] = "focal"
    with pytest.raises(InputError, match=r"downstream\.segmentation\.loss"):
        validate_config(config)
