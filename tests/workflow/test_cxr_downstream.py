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


def with_paediatric(folder):
    """Write the table of the paediatric films, whose captions only point to them."""
    films = pd.read_csv(SAMPLE / "metadata.csv")
    films = films[films["view"] == "AP (paediatric)"].reset_index(drop=True)
    films["caption"] = [f"Paediatric film {i}." for i in range(len(films))]
    films.to_csv(folder / "data/paediatric.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def paediatric(tmp_path_factory):
    """A checkout in which classifiers were trained on the paediatric films."""
    folder = with_paediatric(checkout_with(tmp_path_factory.mktemp("paediatric") / "checkout"))
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


SHOWN = ("training_copies", "held_out_real", "jpeg_50", "blurred_real", "warped_real", "noise")


@pytest.fixture(scope="module")
def faithfulness(tmp_path_factory):
    """Records of what a judge of pneumonia and the world's labeller see in films and controls."""
    folder = with_paediatric(checkout_with(tmp_path_factory.mktemp("faithful") / "checkout"))
    configs = [f"tests/workflow/cxr_{part}.yaml" for part in ("paediatric", "faithfulness")]
    out = folder / "results/faithfulness"
    targets = [f"results/faithfulness/texture/{model}.json" for model in SHOWN]
    run([*WARM, "snakemake", *FLAGS, *configs, "--", *targets], folder)
    return {
        model: [
            read_record(out / f"{part}/{model}.json") for part in ("findings/classifier", "texture")
        ]
        for model in SHOWN
    }


def test_pneumonia_is_seen_in_films_of_other_children_and_not_in_noise(faithfulness):
    shares = {model: findings.get("judged_share") for model, (findings, _) in faithfulness.items()}
    assert faithfulness["noise"][0].get("judged_auroc_ceiling").interval[0] > 0.9
    assert shares["training_copies"].value == 1
    for model, there in (("held_out_real", 1), ("jpeg_50", 1), ("noise", 0)):
        low, high = shares[model].interval
        assert low <= there <= high, (model, shares[model])
    for model in ("blurred_real", "warped_real"):
        assert shares["noise"].interval[1] < shares[model].interval[0] < 1


def test_a_blur_takes_the_texture_of_real_films_and_a_warp_their_topology(faithfulness):
    texture = {m: record.get("spectrum_distance") for m, (_, record) in faithfulness.items()}
    assert texture["blurred_real"].interval[0] > 5 * texture["jpeg_50"].value
    assert texture["jpeg_50"].interval[0] > texture["warped_real"].interval[1]
    assert texture["held_out_real"].interval[0] == 0
    organs = {m: record.get("organ_dice_share") for m, (_, record) in faithfulness.items()}
    assert organs["warped_real"].interval[1] < organs["jpeg_50"].interval[0]
    for model in ("held_out_real", "jpeg_50"):
        low, high = organs[model].interval
        assert low < 1 < high


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
