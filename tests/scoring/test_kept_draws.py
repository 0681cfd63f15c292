"""Scores of downstream tasks keep the gain on each drawn test set where they are told to."""

from dataclasses import replace

import numpy as np
import pytest

from tests.scoring.scripts import SCRIPTS
from workflow_scripts.downstream.gains import percentiles
from workflow_scripts.tables.derive.slopes import AXES

KEPT = {
    "downstream/classification/synthetic_only.json": "auroc_gain",
    "downstream/classification/augmented.json": "auroc_gain",
    "downstream/segmentation/augmented.json": "dice_gain",
    "downstream/report_generation/augmented.json": "chexbert_micro_f1_14_gain",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    out = tmp_path_factory.mktemp("kept")
    records = {}
    for output in KEPT:
        script = SCRIPTS[output]
        script = replace(script, flags=f"{script.flags} --keep-draws")
        records[output] = script.run(out, out)[output]
    return records


@pytest.mark.parametrize("output", KEPT)
def test_draws_are_those_that_the_interval_comes_from(kept, output):
    record, metric = kept[output], KEPT[output]
    replicates = record["details"]["replicates"][metric]
    draws = np.array(replicates["values"], dtype=float)
    value = next(
        v for v in record["values"] if (v["metric"], v.get("subset", "all")) == (metric, "all")
    )
    assert len(draws) == record["details"]["settings"]["bootstrap"]
    assert replicates["units"] <= record["details"]["n_test_patients"]
    assert abs(np.nanmedian(draws) - value["value"]) < np.nanstd(draws)
    if value["interval_kind"].startswith("bootstrap"):  # one run: nothing else is in it
        bounds = percentiles(draws, replicates["units"])
        np.testing.assert_allclose(bounds, value["interval"], atol=1e-12)


def test_texture_and_topology_are_kept_on_the_sets_that_downstream_draws(tmp_path):
    """And nothing else of the record moves."""
    output = "faithfulness/texture/tiny.json"
    (script,) = (script for script in SCRIPTS.values() if output in script.written)
    plain = script.run(tmp_path, tmp_path)[output]
    drawing = replace(script, flags=f"{script.flags} --keep-draws 50 --draws-seed 42")
    record = drawing.run(tmp_path, tmp_path)[output]
    assert record["values"] == plain["values"]
    assert "replicates" not in plain["details"]
    values = {value["metric"]: value["value"] for value in record["values"]}
    for metric in AXES:
        replicates = record["details"]["replicates"][metric]
        draws = np.array(replicates["values"], dtype=float)
        assert abs(np.nanmedian(draws) - values[metric]) < 2 * np.nanstd(draws)
        # Of all test patients, those without a prompt, too: downstream draws these.
        assert replicates["units"] > record["details"]["n_patients"]


def test_both_tasks_of_images_draw_the_same_patients_though_some_have_no_mask(kept):
    digests = {
        record["details"]["replicates"][KEPT[output]]["units_sha256"]
        for output, record in kept.items()
        if "report" not in output  # whose test images are those with reports
    }
    assert len(digests) == 1
