"""Downstream tasks on real radiographs, if their folder exists."""

import pandas as pd
import pytest

from tests.workflow.checkouts import WARM, make_checkout, run, with_world
from tests.workflow.test_cxr_sample import SAMPLE, pytestmark  # noqa: F401
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.records import read_record

FLAGS = ["--profile", "profiles/demo", "--configfile", "config.yaml", "profiles/demo/overlay.yaml"]
FLAGS += ["tests/workflow/cxr_sample.yaml"]
ARMS = ("real_only/real", "augmented/training_copies", "augmented/noise")


def checkout_with(folder):
    """A checkout with the world's weights and the real radiographs."""
    folder.mkdir()
    with_world(make_checkout(folder))
    (folder / "data").mkdir()
    (folder / "data/cxr_sample").symlink_to(SAMPLE.resolve())
    return folder


@pytest.fixture(scope="module")
def paediatric(tmp_path_factory):
    """A checkout in which classifiers were trained on the paediatric films."""
    folder = checkout_with(tmp_path_factory.mktemp("paediatric") / "checkout")
    films = pd.read_csv(SAMPLE / "metadata.csv")
    films = films[films["view"] == "AP (paediatric)"].reset_index(drop=True)
    films["caption"] = [f"Paediatric film {i}." for i in range(len(films))]
    films.to_csv(folder / "data/paediatric.csv", index=False)
    targets = [f"results/downstream/classification/{arm}.json" for arm in ARMS]
    run([*WARM, "snakemake", *FLAGS, "tests/workflow/cxr_paediatric.yaml", "--", *targets], folder)
    return folder


def auroc(folder, arm, metric="auroc"):
    record = read_record(folder / f"results/downstream/classification/{arm}.json")
    return record.get(metric, "Pneumonia")


def test_pneumonia_is_told_from_normal_in_children_never_seen(paediatric):
    manifest = read_manifest(paediatric / "results/cohort/manifest.parquet")
    patients = manifest.groupby("split")["patient_id"].agg(set)
    assert not patients["train"] & patients["test"]
    assert manifest["site"].nunique() == 1
    value = auroc(paediatric, "real_only/real")
    assert value.n > 60
    assert value.interval[0] > 0.8
    assert "training runs" in value.interval_kind
    assert auroc(paediatric, "real_only/real", "auroc_sd").value > 0


def test_copies_gain_nothing(paediatric):
    low, high = auroc(paediatric, "augmented/training_copies", "auroc_gain").interval
    assert low < 0 < high


def test_a_generator_learns_from_clinical_notes_and_is_scored(tmp_path):
    """The whole path runs on real text; a network of this size cannot learn to write it."""
    folder = checkout_with(tmp_path / "checkout")
    target = "results/downstream/report_generation/real_only/real.json"
    targets = [target, "results/cohort/manifest.parquet"]
    run([*WARM, "snakemake", *FLAGS, "tests/workflow/cxr_notes.yaml", "--", *targets], folder)
    record = read_record(folder / target)
    manifest = read_manifest(folder / "results/cohort/manifest.parquet")
    noted = manifest[manifest["caption"].notna()]
    (trained,) = record.details["runs"]
    assert trained["n_train_real"] == (noted["split"] == "train").sum()
    assert record.get("bleu_1").n == (noted["split"] == "test").sum()
    losses = [epoch["validation_loss"] for epoch in trained["stages"][1]["curve"]]
    assert min(losses) < losses[0] - 1
    assert trained["stages"][1]["n_cut"] > 0
    for metric in ("bleu_1", "rouge_l", "chexbert_micro_f1_14"):
        low, high = record.get(metric).interval
        assert 0 <= low < high
    for metric in ("radgraph_f1", "green", "ratescore"):
        assert "names no weights" in record.get(metric).reason
