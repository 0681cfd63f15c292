"""To the digit: the committed records give the committed tables, byte for byte."""

import json
import shutil

import pytest

from tests.tables.freeze import FROZEN, differences, regenerate


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
            "Fracture",
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
