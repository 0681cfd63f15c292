"""The whole workflow on real radiographs, if their folder exists."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.workflow.checkouts import ROOT, WARM, make_checkout, run, with_world
from workflow_scripts.common.manifest import read_manifest
from workflow_scripts.common.records import read_record
from workflow_scripts.features.cache import read_features
from workflow_scripts.fidelity.frechet import frechet_distance
from workflow_scripts.tables.derive.paired import difference

SAMPLE = Path(os.environ.get("CXR_SAMPLE", ROOT.parent / "shared" / "cxr_sample"))
FLAGS = ["--profile", "profiles/demo", "--configfile", "config.yaml"]
FLAGS += ["profiles/demo/overlay.yaml", "tests/workflow/cxr_sample.yaml"]

CONTROLS = ("training_copies", "held_out_real", "blurred_real", "noise")
"""Controls from the nearest to the prompts' radiographs to the farthest."""

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.full,
    pytest.mark.sample,
    pytest.mark.skipif(
        not (SAMPLE / "metadata.csv").is_file(), reason="CXR_SAMPLE names no folder of radiographs"
    ),
]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A checkout with the embedded world and the real radiographs; the workflow has run."""
    folder = tmp_path_factory.mktemp("sample") / "checkout"
    folder.mkdir()
    with_world(make_checkout(folder))
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


def require_order(records, reference=""):
    """Assert copies of the prompts' radiographs < other ones of the population < blurred < noise.

    The order is that of FID and of KID. KID is centred on 0 for real radiographs of the same
    population, so its differences must have a 95% interval over patients above 0.

    Args:
        records: Fidelity records by model.
        reference: "" for the prompts' own radiographs; `_test_set` for all test images.
    """
    copies, *others = (records[model] for model in CONTROLS)
    for metric in ("fid", "kid"):
        assert copies.get(metric + reference).value == pytest.approx(0, abs=1e-6)
    values = [record.get("fid" + reference).value for record in others]
    assert 0.1 < values[0] < values[1] < values[2]
    low, high = others[0].get("kid" + reference).interval
    assert low < 0 < high
    values = [record.get("kid" + reference).value for record in others]
    assert values == sorted(values)


def test_controls_stand_in_their_order(sample):
    """Only the COVID-era films have captions: the paediatric ones are not in the reference."""
    records = fidelity_of(sample)
    require_order(records)
    for nearer, farther in itertools.pairwise(CONTROLS[1:]):
        gap = difference(records[farther], records[nearer], "kid")
        assert gap.interval[0] > 0, (nearer, farther, gap)
    # Other patients' films are no farther than the films' own halves are from one another.
    held_out = records["held_out_real"]
    assert held_out.get("fid").value < held_out.get("fid_floor").value
    assert records["noise"].get("fid").value > 5 * held_out.get("fid_floor").value
    for metric in ("fid", "kid"):
        values = [records[f"tiny_sd{base}"].get(metric).value for base in ("", "_base")]
        assert values[0] < values[1]


def test_the_order_is_lost_where_films_that_nobody_asked_for_are_the_reference(sample):
    """With all test images as reference, copies and other films of the population are far away."""
    records = fidelity_of(sample)
    with pytest.raises(AssertionError):
        require_order(records, "_test_set")
    copies, held_out = records["training_copies"], records["held_out_real"]
    assert copies.get("fid_test_set").value > 10 * copies.get("fid_studies").value
    for record in (copies, held_out):
        assert record.get("kid_test_set").interval[0] > 0
    assert held_out.get("fid_test_set").value > 2 * held_out.get("fid").value


def fidelity_of(folder):
    """Return the fidelity records by model."""
    paths = (folder / "results/fidelity/rad_dino").glob("*.json")
    return {path.stem: read_record(path) for path in paths}


def test_another_population_is_told_from_patients_drawn_at_random(sample):
    """Compare COVID-era films of adults with paediatric ones, by a permutation of all patients."""
    features = read_features(sample / "results/features/real/test/rad_dino.h5")
    metadata = pd.read_csv(SAMPLE / "metadata.csv")
    known = metadata.set_index(metadata["image"].map(lambda name: Path(name).stem))
    rows = known.loc[features.ids]
    children = (rows["view"] == "AP (paediatric)").to_numpy()
    chosen = children | rows["patient_id"].str.startswith("covid").to_numpy()
    films, children = features.features[chosen], children[chosen]
    names, patients = np.unique(rows["patient_id"].to_numpy(str)[chosen], return_inverse=True)
    assert min(children.sum(), (~children).sum()) > 30
    apart = frechet_distance(films[children], films[~children])
    rng, young = np.random.default_rng(0), len(np.unique(patients[children]))
    null = []
    for _ in range(199):
        drawn = np.isin(patients, rng.permutation(len(names))[:young])
        null.append(frechet_distance(films[drawn], films[~drawn]))
    assert (1 + sum(value >= apart for value in null)) / 200 <= 0.01
    assert apart > 3 * np.mean(null)


def test_training_copies_of_real_radiographs_read_zero(sample):
    record = read_record(sample / "results/privacy/training_copies.json")
    assert record.get("latent_mean_of_min").value == 0
    assert record.get("pixel_mean_of_min").value == 0


def attack_by_another(folder, weights):
    """Return the attacker's record with other weights, on the run's held-out films."""
    manifest = ["--manifest", "results/cohort/manifest.parquet"]
    command = ["python", "-m", "workflow_scripts.features.extract", "--collection", "real"]
    command += [*manifest, "--image-split", "test", "validate", "--purpose", "privacy"]
    command += ["--encoder", f"reid={weights}", "--out", "other", "--progress", "rest"]
    run(command, folder)
    command = ["python", "-m", "workflow_scripts.privacy.score_attacker", "--protocol", "sound"]
    command += [*manifest, "--prompts", "results/cohort/prompts/privacy.parquet"]
    run([*command, "--real", "other", "--output", "other/real.json"], folder)
    return read_record(folder / "other/real.json")


def test_the_attacker_trained_on_some_real_patients_tells_others_apart(sample):
    """The quality is modest: a hundred patients and a network of a few thousand weights."""
    trained = read_record(sample / "results/privacy/attacker/real.json")
    auc = trained.get("reid_auc")
    assert auc.interval[0] > 0.5  # the AUC of chance
    assert auc.n > 100  # pairs of images of one patient, none of whom was in training
    # The world's own network, of procedural patients, before it saw real ones, on the same pairs.
    # No more is asked: a lead of 0.046 has a standard error of 0.033 over these patients, by the
    # jackknife of 20 groups of them.
    world = "results/world/weights/reid/ResNet-50_epoch11_data_handling_RPN.pth"
    assert auc.value > attack_by_another(sample, world).get("reid_auc").value
    # Negatives of other sources would make it look better than it is.
    assert trained.get("reid_auc_all_sites").value > auc.value + 0.03


def test_a_model_trained_for_long_on_few_real_films_is_caught(sample):
    """After 250 epochs on 78 films the model reproduces prompts' films; its base does not."""
    tuned, base, unrelated = (
        read_record(sample / f"results/privacy/lenses/{model}.json").get("any_seen")
        for model in ("tiny_sd", "tiny_sd_base", "held_out_real")
    )
    assert tuned.interval[0] > max(base.value, unrelated.value)
    count = read_record(sample / "results/privacy/tiny_sd.json").get("reid_count")
    chance = read_record(sample / "results/privacy/attacker/real.json").get("chance_count")
    assert count.interval[0] > chance.value


def test_every_record_of_the_run_is_whole(sample):
    records = sorted((sample / "results").glob("*/**/*.json"))
    records = [p for p in records if {"fidelity", "privacy", "downstream"} & set(p.parts)]
    # Fidelity; pairwise and attacker twice, closest, novelty, lenses, extraction; membership; real
    # alone and two settings of downstream.
    assert len(records) == 6 + 2 * (8 + 1) + 4 * 8 + 2 + (1 + 10)
    for path in records:
        assert json.loads(path.read_text())["values"]
    assert (sample / "results/tables/report.html").stat().st_size > 0


def test_a_set_of_a_model_that_repeats_its_patients_must_not_be_released(sample):
    run([*WARM, "snakemake", *FLAGS, "--", "results/curate/tiny_sd/decision.json"], sample)
    decision = json.loads((sample / "results/curate/tiny_sd/decision.json").read_text())
    assert decision["verdict"] == "do_not_release"
    planted = [row for row in decision["planted"] if row["planted"]]
    assert sum(row["caught"] for row in planted) > 0.8 * sum(row["planted"] for row in planted)
    # So few patients bound nothing, and the page has to say so.
    (left,) = [row for row in decision["measured"] if row["key"] == "remaining_leaks"]
    assert not left["passed"]
    assert "too many leaks may be left in the set" in decision["reasons"]
