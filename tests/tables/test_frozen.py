"""To the digit: the committed records give the committed tables, byte for byte."""

import json
import shutil

import pytest

from tests.tables.freeze import FROZEN, changes, differences, digest_of_weights, regenerate


def test_the_committed_records_give_the_committed_tables(tmp_path):
    regenerate(FROZEN, tmp_path / "tables")
    assert differences(FROZEN / "tables", tmp_path / "tables") == ""


@pytest.mark.parametrize(
    ("record", "metric", "subset", "table"),
    [
        ("fidelity/rad_dino/tiny_sd.json", "fid", "all", "table01_fidelity"),
        ("fidelity/rad_dino/tiny_sd_lora.json", "kid", "Edema", "table02b_kid_per_pathology"),
        ("privacy/tiny_sd.json", "latent_mean_of_min", "all", "table03_privacy"),
        (
            "downstream/classification/augmented/tiny_sd.json",
            "auroc",
            "Support Devices",
            "table04_classification_augmented",
        ),
    ],
)
def test_a_changed_number_is_shown(tmp_path, record, metric, subset, table):
    changed = tmp_path / "changed"
    shutil.copytree(FROZEN, changed)
    path = changed / "inputs" / record
    content = json.loads(path.read_text())
    (value,) = (v for v in content["values"] if (v["metric"], v["subset"]) == (metric, subset))
    was, value["value"] = value["value"], 0.987654321
    path.write_text(json.dumps(content))
    regenerate(changed, tmp_path / "tables")
    diff = differences(FROZEN / "tables", tmp_path / "tables")
    assert f"--- tables/{table}.csv" in diff
    removed = [line for line in diff.splitlines() if line.startswith("-") and f"{was:.12g}" in line]
    added = [line for line in diff.splitlines() if line.startswith("+") and "0.987654321" in line]
    assert removed
    assert added


def test_a_table_that_is_missing_is_shown(tmp_path):
    regenerate(FROZEN, tmp_path / "tables")
    (tmp_path / "tables/table05_segmentation.md").unlink()
    assert "table05_segmentation.md" in differences(FROZEN / "tables", tmp_path / "tables")


@pytest.fixture
def demo_like(tmp_path):
    """A checkout whose records are the committed ones, and the committed ones to change."""
    shutil.copytree(FROZEN / "inputs", tmp_path / "checkout/results")
    shutil.copytree(FROZEN, tmp_path / "frozen")
    return tmp_path / "checkout", tmp_path / "frozen"


def change(checkout, record, metric, **fields):
    path = checkout / "results" / record
    content = json.loads(path.read_text())
    (value,) = (v for v in content["values"] if (v["metric"], v["subset"]) == (metric, "all"))
    for name, change in fields.items():
        value[name] = change(value[name])
    path.write_text(json.dumps(content))


FIDELITY = "fidelity/rad_dino/tiny_sd.json"
PNEUMONIA = ("kid", "Pneumonia")


@pytest.mark.parametrize(
    ("record", "metric", "fields", "where"),
    [
        (FIDELITY, "fid", {"value": lambda x: 1.001 * x}, "alike"),
        ("privacy/tiny_sd.json", "reid_mean", {"value": lambda x: x + 1e-4}, "alike"),
        (FIDELITY, "kid", {"interval": lambda x: [x[0], 1.001 * x[1]]}, "alike"),
        (FIDELITY, "coverage", {"interval_kind": lambda x: "Wilson 95%"}, "alike"),
        (FIDELITY, "recall", {"n": lambda n: n - 1}, "elsewhere"),
        (FIDELITY, "recall", {"n_reference": lambda n: n - 1}, "elsewhere"),
        (FIDELITY, "fid", {"direction": lambda x: "higher"}, "elsewhere"),
        # The pixels of a control are the same on every processor.
        ("privacy/noise.json", "pixel_mean", {"value": lambda x: x + 0.01}, "elsewhere"),
        (
            "privacy/noise.json",
            "mirrored_mean",
            {"interval": lambda x: [x[0], x[1] + 0.01]},
            "elsewhere",
        ),
        # So is what a network is given.
        (
            "downstream/segmentation/augmented/tiny_sd.json",
            "n_images",
            {"value": lambda x: x - 1},
            "elsewhere",
        ),
        (
            "downstream/report_generation/augmented/tiny_sd.json",
            "words_mean_of_references",
            {"value": lambda x: x + 0.1},
            "elsewhere",
        ),
    ],
)
def test_a_record_that_says_something_else_is_named(demo_like, record, metric, fields, where):
    checkout, frozen = demo_like
    if where == "alike":
        (frozen / "weights.sha256").write_text(digest_of_weights(checkout))
    assert changes(checkout, frozen) == []
    change(checkout, record, metric, **fields)
    (found,) = changes(checkout, frozen)
    assert found.startswith(f"{record}: values, {metric} of all, {next(iter(fields))}")


def test_a_reason_or_a_value_that_is_lost_is_named_everywhere(demo_like):
    checkout, frozen = demo_like
    change(checkout, FIDELITY, "fid", value=lambda x: None, reason=lambda x: "lost")
    (found,) = changes(checkout, frozen)
    assert found == f"{FIDELITY}: values, fid of all, reason was None, is 'lost'"
    path = checkout / "results" / FIDELITY
    content = json.loads(path.read_text())
    content["values"] = [v for v in content["values"] if (v["metric"], v["subset"]) != PNEUMONIA]
    path.write_text(json.dumps(content))
    assert f"{FIDELITY}: values, kid of Pneumonia is no longer there" in changes(checkout, frozen)


def test_another_processor_trains_other_networks(demo_like):
    """What they measure there is not compared; `tests/scoring` compares without them."""
    checkout, frozen = demo_like
    change(checkout, FIDELITY, "fid", value=lambda x: 5 * x)
    change(checkout, FIDELITY, "kid", interval=lambda x: None, interval_kind=lambda x: None)
    change(checkout, "privacy/tiny_sd.json", "pixel_mean", value=lambda x: 2 * x)
    assert changes(checkout, frozen) == []
