"""The attacker's quality, compared with scikit-learn and with chance."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import write_manifest
from workflow_scripts.common.records import read_record
from workflow_scripts.features.pair_scores import pair_scores
from workflow_scripts.privacy.score_attacker import attacker_values, auc, main, score_pairs

WEIGHT, BIAS = -np.full((1, 6), 3.0), np.array([2.0])


def held_out(patients, spread, seed=0):
    rng = np.random.default_rng(seed)
    places = np.repeat(rng.random((patients, 6)), 3, axis=0)
    features = np.clip(places + spread * rng.standard_normal(places.shape), 0, 1)
    return features.astype(np.float32), np.repeat(np.arange(patients), 3).astype(str)


def one_site(features):
    return np.repeat("", len(features))


def by_definition(features, patients):
    i, j = np.triu_indices(len(features), 1)
    return patients[i] == patients[j], pair_scores(features[i], features[j], WEIGHT, BIAS)


@pytest.mark.parametrize("spread", [0.02, 0.3, 3.0])
def test_all_pairs_are_scored(spread):
    features, patients = held_out(20, spread)
    same, scores = by_definition(features, patients)
    pairs = score_pairs(features, patients, one_site(features), WEIGHT, BIAS, 0.6)
    values = {v.metric: v for v in attacker_values(pairs, 2000, 10, len(features))}
    assert values["reid_auc"].value == pytest.approx(roc_auc_score(same, scores), abs=1e-3)
    assert values["reid_true_positive_rate"].value == pytest.approx((scores[same] > 0.6).mean())
    assert values["reid_false_positive_rate"].value == pytest.approx((scores[~same] > 0.6).mean())
    assert (values["reid_auc"].n, values["reid_auc"].n_reference) == (same.sum(), (~same).sum())
    if spread == 0.02:  # every group tells all patients apart: no spread, and no certainty
        assert values["reid_auc"].value == 1
        assert values["reid_auc"].interval is values["reid_auc"].interval_kind is None
    else:
        low, high = values["reid_auc"].interval
        assert 0 <= low < values["reid_auc"].value < high <= 1


def test_the_jackknife_leaves_out_all_pairs_of_a_group():
    features, patients = held_out(20, 0.2)
    pairs = score_pairs(features, patients, one_site(features), WEIGHT, BIAS, 0.6)
    for group in range(20):  # twenty patients, a group each
        kept = patients != np.unique(patients)[group]
        same, scores = by_definition(features[kept], patients[kept])
        assert pairs.same[group].sum() == same.sum()
        assert pairs.other[group].sum() == (~same).sum()
        expected = roc_auc_score(same, scores)
        assert auc(pairs.same[group], pairs.other[group]) == pytest.approx(expected, abs=1e-3)


def test_chance_is_that_of_as_many_unrelated_images_as_a_prompt_has():
    features, patients = held_out(20, 0.3)
    pairs = score_pairs(features, patients, one_site(features), WEIGHT, BIAS, 0.25)
    values = {v.metric: v.value for v in attacker_values(pairs, 50, 10, len(features))}
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(4000):
        query = rng.integers(len(features))
        others = np.flatnonzero(patients != patients[query])
        drawn = rng.choice(others, 10)
        hits.append((pair_scores(features[query], features[drawn], WEIGHT, BIAS) > 0.25).any())
    assert 0.05 < np.mean(hits) < 0.95
    assert values["chance_share"] == pytest.approx(np.mean(hits), abs=0.025)
    assert values["chance_count"] == 50 * values["chance_share"]


def test_shuffled_patients_cannot_be_told_apart():
    features, patients = held_out(40, 0.02)
    shuffled = np.random.default_rng(0).permutation(patients)
    pairs = score_pairs(features, shuffled, one_site(features), WEIGHT, BIAS, 0.6)
    low, high = attacker_values(pairs, 50, 10, 120)[0].interval
    assert low < 0.5 < high


def test_without_two_radiographs_of_a_patient_there_is_no_auc():
    features, _ = held_out(5, 0.1)
    pairs = score_pairs(features, np.arange(15).astype(str), one_site(features), WEIGHT, BIAS, 0.6)
    values = {v.metric: v for v in attacker_values(pairs, 50, 10, 15)}
    assert values["reid_auc"].reason == "no two radiographs of one patient are held out"
    assert values["reid_true_positive_rate"].value is None
    assert values["chance_share"].value is not None


def test_the_site_alone_does_not_count_as_telling_patients_apart():
    """All patients are alike and the two sites differ: only the site can be recognised."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(40), 3)
    sites = np.where(patients < 20, "a", "b")
    features = np.clip(0.2 + 0.5 * (patients >= 20)[:, None] + 0.02 * rng.random((120, 6)), 0, 1)
    pairs = score_pairs(features, patients.astype(str), sites, WEIGHT, BIAS, 0.6)
    values = {v.metric: v for v in attacker_values(pairs, 50, 10, 120)}
    low, high = values["reid_auc"].interval
    assert low < 0.5 < high
    assert values["reid_auc_all_sites"].interval[0] > 0.6
    assert values["reid_auc"].n_reference + 60 * 60 == values["reid_auc_all_sites"].n_reference
    # An unrelated image is one of the same site: it scores as a patient's own other image does.
    true, false = (values[f"reid_{kind}_positive_rate"].value for kind in ("true", "false"))
    assert true == pytest.approx(false, abs=0.05) == pytest.approx(1, abs=0.05)


def test_one_site_has_no_auc_over_several():
    features, patients = held_out(20, 0.3)
    pairs = score_pairs(features, patients, one_site(features), WEIGHT, BIAS, 0.6)
    values = {v.metric: v for v in attacker_values(pairs, 50, 10, 60)}
    assert values["reid_auc_all_sites"].reason == "the radiographs come from one site"


def run(world, folder):
    output = world.root / "real.json"
    paths = ["--manifest", str(world.flags.manifest), "--prompts", str(world.flags.prompts)]
    main(["--protocol", "sound", *paths, "--real", str(folder), "--output", str(output)])
    return read_record(output)


def test_the_record_from_the_command_line(world):
    world.give_copies()
    record = run(world, world.hold_out(["h0", "h0", "h1"]))
    assert (record.model, record.family) == ("real", "attacker")
    assert (record.get("reid_auc").n, record.get("reid_auc").n_reference) == (1, 2)
    assert record.get("chance_count").n == len(world.images)


def test_training_patients_are_not_held_out(world):
    """A user's own validation split may share patients with training."""
    world.give_copies()
    folder = world.hold_out(["h0", "h0", "h1", "h2"])
    manifest = pd.read_parquet(world.flags.manifest)
    manifest.loc[manifest["image_id"] == "test3", "patient_id"] = "pi0"
    manifest.loc[manifest["image_id"] == "test3", "split"] = "validate"
    write_manifest(manifest, world.flags.manifest)
    record = run(world, folder)
    assert record.details["images"] == 3
    manifest.loc[manifest["image_id"].str.startswith("test"), ["split", "patient_id"]] = [
        "validate",
        "pi0",
    ]
    write_manifest(manifest, world.flags.manifest)
    with pytest.raises(InputError, match="every held-out patient is a training patient"):
        run(world, folder)
