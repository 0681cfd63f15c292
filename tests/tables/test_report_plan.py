"""Planned and actual GPU-hours: by hand, and never zero where nothing is known."""

from pathlib import Path

import pytest

from workflow_scripts.costs.attempts import Attempt
from workflow_scripts.costs.jobs import OTHER, SHARED
from workflow_scripts.preflight.check import read_config
from workflow_scripts.preflight.cost_model import classifier_settings, segmenter_settings
from workflow_scripts.preflight.rates import Rate
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.report_plan import NEVER, NO_JOB, NOT_PLANNED, plan_section

ROOT = Path(__file__).resolve().parents[2]
DEMO = read_config([str(ROOT / "config.yaml"), str(ROOT / "profiles/demo/overlay.yaml")])
TASKS = DEMO["downstream"]
COHORT = {split: SplitCounts(split, 100, 50, 90, {}) for split in ("train", "validate", "test")}
MODELS = [ModelEntry(key, "external", key.upper(), {}) for key in DEMO["run_models"]]


def rate(part, name, value, unit, settings, kind="H200"):
    return Rate(kind, "2030-01-01", "2", part, name, value, unit, settings, "f.csv")


CLASSIFY = rate(
    "classify", "images per second", 2.0, "1/s", classifier_settings(TASKS["classification"])
)
UNET = rate("unet", "seconds per step", 36.0, "s", segmenter_settings(TASKS["segmentation"]))


def attempt(stage, model, hours, gpus=2, gpu="NVIDIA H200"):
    return Attempt(
        stage, stage, model, f"{model}{hours}", "accounting", "1", "COMPLETED",
        elapsed_s=3600 * hours, gpus=gpus, gpu_model=gpu,
    )  # fmt: skip


ATTEMPTS = [
    attempt("classification", "tiny_sd", 3.0),
    attempt("classification", SHARED, 1.0),
    attempt("classification", OTHER, 100.0),
    attempt("fidelity", "tiny_sd", 0.5, gpus=0, gpu=""),
]


def section(attempts=ATTEMPTS, rates=(CLASSIFY, UNET)):
    return plan_section(DEMO, COHORT, 80, attempts, MODELS, rates)


def cells(table, key):
    (row,) = [row for row in table.rows if row.key == key]
    return {cell.column.metric: cell for cell in row.cells}


def hours_of_classification(sets):
    """By hand: training on a number of sets of images, at two images a second."""
    task, drawn = TASKS["classification"], DEMO["prompt_sets"]["augment"]["captions"]
    shown = (1 - task["validation_share"]) * task["epochs"] * task["repeats"] * drawn
    return sets * shown / 2 / 3600


def test_planned_hours_are_counts_times_rates_and_stand_beside_the_hours_taken():
    found = cells(section().stages, "classification")
    one = cells(section().models, "tiny_sd-classification")
    # One model: its images with as many real ones, and alone; real data alone: once.
    assert one["planned_gpu_hours"].value == pytest.approx(hours_of_classification(3))
    assert (one["gpu_hours"].value, one["wall_hours"].value) == (6.0, 3.0)
    shared = cells(section().models, "shared-classification")
    assert shared["planned_gpu_hours"].value == pytest.approx(hours_of_classification(1))
    assert shared["gpu_hours"].value == 2.0
    assert (found["gpu_hours"].value, found["wall_hours"].value) == (8.0, 4.0)
    rows = [row for row in section().models.rows if row.key.endswith("-classification")]
    planned = sum(row.cells[0].value for row in rows)
    assert found["planned_gpu_hours"].value == pytest.approx(planned)
    assert found["without_rate"].value == 0


def test_what_has_no_rate_is_a_dash_with_its_reason_and_never_zero():
    tables = section()
    made = cells(tables.stages, "finetune")
    assert made["planned_gpu_hours"].value is None
    assert "no rate was measured on the H200" in made["planned_gpu_hours"].reason
    assert "train:tiny_sd" in made["planned_gpu_hours"].reason
    assert made["gpu_hours"].reason == NO_JOB
    looked = cells(tables.stages, "faithfulness")
    assert "encode:cxas, judge" in looked["planned_gpu_hours"].reason
    assert looked["without_rate"].value > 0
    assert cells(tables.stages, "fidelity")["planned_gpu_hours"].reason == NOT_PLANNED
    assert cells(tables.stages, "fidelity")["gpu_hours"].value == 0  # measured: it had no GPU
    values = [row.cells[0].value for table in (tables.stages, tables.models) for row in table.rows]
    assert 0 not in values
    nothing = section(attempts=[], rates=()).stages
    assert {row.cells[0].reason for row in nothing.rows} == {NEVER}


def test_a_sum_that_lacks_rates_says_that_it_is_a_lower_bound():
    found = cells(section().stages, "segmentation")
    assert found["planned_gpu_hours"].value > 0
    assert found["without_rate"].value > 0  # the pseudo-masks
    assert "said at least" in section().sentence
    assert "lower bound" in section().stages.caption
    assert section().sentence.endswith("The run took 8.000 GPU-hours.")


def test_rates_of_another_kind_of_gpu_are_not_used():
    old = [attempt("classification", "tiny_sd", 1.0, gpu="NVIDIA A100-SXM4-80GB")]
    found = section(attempts=old)
    planned = [row.cells[0].value for row in found.stages.rows]
    assert set(planned) == {None}
    assert "no rate was measured on the A100" in found.sentence


def test_a_run_without_gpus_is_planned_for_the_kind_with_most_rates():
    found = section(attempts=[attempt("classification", "tiny_sd", 1.0, gpus=0, gpu="")])
    assert "those of the H200, for which most rates were measured" in found.stages.caption
    assert cells(found.stages, "classification")["planned_gpu_hours"].value > 0
    assert section(attempts=[]).sentence.endswith("The GPU-hours of the run are not known.")
