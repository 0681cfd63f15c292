"""The whole workflow on real radiographs, when their folder is there."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.workflow.checkouts import ROOT, WARM, make_checkout, run
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.records import read_record
from workflow_scripts.features.cache import read_features
from workflow_scripts.fidelity.floor import RealImages, fid_floor
from workflow_scripts.fidelity.frechet import frechet_distance

SAMPLE = Path(os.environ.get("CXR_SAMPLE", ROOT.parent / "shared" / "cxr_sample"))
FLAGS = ["--profile", "profiles/demo", "--configfile", "config.yaml"]
FLAGS += ["profiles/demo/overlay.yaml", "tests/workflow/cxr_sample.yaml"]

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.full,
    pytest.mark.sample,
    pytest.mark.skipif(
        not (SAMPLE / "metadata.csv").is_file(), reason="CXR_SAMPLE names no folder of radiographs"
    ),
]


@pytest.fixture(scope="module")
def sample(demo, tmp_path_factory):
    """A checkout with the demo's world and the real radiographs; the workflow has run."""
    folder = tmp_path_factory.mktemp("sample") / "checkout"
    folder.mkdir()
    make_checkout(folder)
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results/world").symlink_to((demo / "results/world").resolve())
    (folder / "data").mkdir()
    (folder / "data/cxr_sample").symlink_to(SAMPLE.resolve())
    run([*WARM, "snakemake", *FLAGS], folder)
    return folder


def test_every_image_is_kept_or_its_loss_is_counted(sample):
    metadata = pd.read_csv(SAMPLE / "metadata.csv")
    manifest = read_manifest(sample / "results/cohort/manifest.parquet")
    attrition = pd.read_csv(sample / "results/cohort/attrition.csv")
    dropped = int(metadata["near_duplicate_of"].notna().sum())
    assert len(manifest) == len(metadata) - dropped
    assert int(attrition.loc[attrition["unit"] == "images", "removed"].sum()) >= dropped
    assert manifest["caption"].notna().sum() < len(manifest) / 2


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_controls_and_models_stand_in_their_order(sample, metric):
    """Only the COVID-era films have captions: the paediatric ones are nobody's reference.

    52 test films, and a tiny RAD-DINO that hardly sees a blur on real ones: held-out films read a
    FID of 1.17 sharp and 0.96 blurred, and other patients would move the difference from -0.8 to
    0.3. So a blur need not read worse here, but may not read better than noise allows.
    """
    records = {
        path.stem: read_record(path)
        for path in (sample / "results/fidelity/rad_dino").glob("*.json")
    }
    found = {model: record.get(metric).value for model, record in records.items()}
    assert found["training_copies"] == pytest.approx(0, abs=1e-6)
    for real in ("held_out_real", "blurred_real"):
        assert found[real] < found["noise"] / 5
        if metric == "fid":  # real images of other patients may read a KID below 0
            assert found[real] > found["training_copies"] + 0.1
    low, high = records["held_out_real"].get("kid").interval
    assert low < 0 < high
    assert records["blurred_real"].get("kid").value > low
    assert found["tiny_sd"] < found["tiny_sd_base"]
    copies = records["training_copies"]
    assert copies.get("fid_test_set").value > 10 * copies.get("fid_studies").value


def test_real_films_stand_at_their_floor_and_another_population_far_from_it(sample):
    """COVID-era films of adults against paediatric ones, and each against its own kind."""
    features = read_features(sample / "results/features/real/test/rad_dino.h5")
    metadata = pd.read_csv(SAMPLE / "metadata.csv")
    known = metadata.set_index(metadata["image"].map(lambda name: Path(name).stem))
    rows = known.loc[features.ids]
    patients = rows["patient_id"].to_numpy(str)
    children = (rows["view"] == "AP (paediatric)").to_numpy()
    adults = rows["patient_id"].str.startswith("covid").to_numpy()
    assert min(children.sum(), adults.sum()) > 30
    apart = frechet_distance(features.features[children], features.features[adults])
    rng = np.random.default_rng(0)
    every = RealImages(features.features, patients)
    mixed = fid_floor(every, children.sum(), adults.sum(), rng)
    assert apart > 3 * mixed.value
    for group in (children, adults):
        n = int(group.sum()) // 2
        within = fid_floor(every.only(group), n, n, np.random.default_rng(0))
        assert within.measured[0] > 30
        assert apart > 1.5 * within.value


def test_training_copies_of_real_radiographs_read_zero(sample):
    record = read_record(sample / "results/privacy/training_copies.json")
    assert record.get("latent_mean_of_min").value == 0
    assert record.get("pixel_mean_of_min").value == 0


def attacker(folder, **weights):
    """The attacker's record: of the run, or of other weights on the same held-out films."""
    if not weights:
        return read_record(folder / "results/privacy/attacker/real.json")
    manifest = ["--manifest", "results/cohort/manifest.parquet"]
    command = ["python", "-m", "workflow_scripts.features.extract", "--collection", "real"]
    command += [*manifest, "--image-split", "test", "validate", "--purpose", "privacy"]
    command += ["--encoder", f"reid={weights['reid']}", "--out", "other", "--progress", "rest"]
    run(command, folder)
    command = ["python", "-m", "workflow_scripts.privacy.score_attacker", "--protocol", "sound"]
    command += [*manifest, "--prompts", "results/cohort/prompts/privacy.parquet"]
    run([*command, "--real", "other", "--output", "other/real.json"], folder)
    return read_record(folder / "other/real.json")


def test_the_attacker_trained_on_some_real_patients_tells_others_apart(sample):
    """Modestly: a hundred patients and a network of a few thousand weights."""
    trained = attacker(sample)
    auc = trained.get("reid_auc")
    assert auc.interval[0] > 0.5
    assert auc.n > 100  # pairs of one patient, none of whom it was trained on
    # The world's own network, of procedural patients, before it saw real ones.
    world = "results/world/weights/reid/ResNet-50_epoch11_data_handling_RPN.pth"
    assert auc.value > attacker(sample, reid=world).get("reid_auc").value
    # Negatives of other sources would make it look better than it is.
    assert trained.get("reid_auc_all_sites").value > auc.value + 0.03


def test_a_model_trained_for_long_on_few_real_films_is_caught(sample):
    """250 epochs on 78 films: the fine-tuned model gives more films away than chance would."""
    lenses = read_record(sample / "results/privacy/lenses/tiny_sd.json").get("any_seen")
    assert lenses.value is None
    assert "at least 20 are needed" in lenses.reason
    count, chance = (
        read_record(sample / "results/privacy/tiny_sd.json").get("reid_count"),
        attacker(sample).get("chance_count"),
    )
    assert count.interval[0] > chance.value


def test_every_record_of_the_run_is_whole(sample):
    records = sorted((sample / "results").glob("*/**/*.json"))
    records = [p for p in records if {"fidelity", "privacy", "downstream"} & set(p.parts)]
    # Fidelity; pairwise and attacker twice, closest, novelty, lenses; real alone and two settings
    # of downstream.
    assert len(records) == 6 + 2 * (8 + 1) + 3 * 8 + (1 + 10)
    for path in records:
        assert json.loads(path.read_text())["values"]
    assert (sample / "results/tables/report.html").stat().st_size > 0
