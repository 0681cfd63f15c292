"""The privacy record: copies are detected, unrelated images are not, and prompts are counted."""

import stat

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import norm

from tests.clustered import correlated, long_stays
from tests.feature_files import changed
from tests.privacy.conftest import PATIENTS, REPLICATES, radiograph, write_h5
from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import read_record
from workflow_scripts.privacy import score as privacy
from workflow_scripts.privacy.distances import pixel_distance, pixels
from workflow_scripts.privacy.intervals import bootstrap_of_means, percentile_interval
from workflow_scripts.privacy.score import (
    LENSES,
    OTHERS_SCHEMA,
    PAIR_SCHEMA,
    Settings,
    effective_number,
    main,
    privacy_values,
    prompt_table,
)


def run(world, protocol="sound", *flags):
    output, pairs = world.root / "model.json", world.root / "model_pairs.parquet"
    paths = world.flags
    main(
        [
            *("--model", "model", "--protocol", protocol, "--manifest", str(paths.manifest)),
            *("--prompts", str(paths.prompts), "--real", str(paths.real)),
            *("--generated", str(paths.generated), "--shards", *map(str, paths.shards)),
            *("--output", str(output), "--pairs", str(pairs), "--bootstrap", "50", *flags),
        ]
    )
    return read_record(output), pd.read_parquet(pairs)


def logistic(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("threads", ["1", "3"])
def test_copies_max_out_every_lens(world, threads):
    world.give_copies()
    record, pairs = run(world, "sound", "--threads", threads)
    assert (pairs[["latent", "pixel"]] == 0).all(axis=None)
    # |a - b| = 0: the highest score that the network gives, sigmoid of its bias.
    np.testing.assert_allclose(pairs["reid"], logistic(4))
    assert record.get("latent_mean_of_min").value == 0
    assert record.get("pixel_mean_of_min").value == 0
    assert record.get("reid_mean_of_max").value == pytest.approx(logistic(4))
    assert record.get("reid_count").value == record.get("reid_count").n == PATIENTS
    assert record.get("reid_share").value == 1


def test_unrelated_images_do_not(world):
    world.give_unrelated()
    record, pairs = run(world)
    difference = np.abs(1 - 2 * world.reid[world.own].astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(pairs["reid"], logistic(4 - 9 * difference), rtol=1e-5)
    assert record.get("reid_count").value == (pairs["reid"] > 0.85).sum() / REPLICATES == 0
    assert record.get("latent_mean_of_min").value > 0.5
    # Gray noise, smoothed by the enlargement to 512 pixels: 104 less some.
    assert 70 < record.get("pixel_mean_of_min").value < 104
    assert [value.n for value in record.values] == [PATIENTS] * len(record.values)


def test_the_published_pixel_distance_of_unrelated_images_sits_at_147(world):
    world.give_unrelated("as_published")
    record, _ = run(world, "as_published")
    assert record.get("pixel_mean_of_min").value == pytest.approx(147.2, abs=3)
    world.give_copies("as_published")
    record, _ = run(world, "as_published")
    assert record.get("pixel_mean_of_min").value == 0


def test_a_flipped_copy_is_seen_in_the_mirror_alone(world):
    own = world.own
    images = [radiograph(int(row)).transpose(Image.Transpose.FLIP_LEFT_RIGHT) for row in own]
    world.give(images, 5 + world.latent[own], 1 - world.reid[own])
    record, pairs = run(world)
    # The resize of an odd margin moves a mirrored image by less than a pixel.
    assert (pairs["mirrored"] < 0.3 * pairs["pixel"]).all()
    assert record.get("pixel_mean_of_min").value > 70
    assert record.get("mirrored_mean_of_min").value < 20


def near_copy_in(world, replicate, protocol):
    """Make one replicate of a prompt a copy and all other images unrelated."""
    own = world.own
    chosen = (world.pairs["replicate"] == replicate).to_numpy()
    images = [
        radiograph(int(row)) if copy else radiograph(1000 + number)
        for number, (row, copy) in enumerate(zip(own, chosen, strict=True))
    ]
    latent = np.where(chosen[:, None], world.latent[own], 5)
    reid = np.where(chosen[:, None], world.reid[own], 1 - world.reid[own])
    world.give(images, latent, reid, protocol)


@pytest.mark.parametrize("replicate", range(REPLICATES))
def test_the_riskiest_replicate_counts_and_counts_once(world, replicate):
    near_copy_in(world, replicate, "sound")
    record, pairs = run(world)
    assert record.get("reid_count").value == PATIENTS
    assert record.get("reid_share").value == 1
    assert record.get("pixel_mean_of_min").value == record.get("latent_mean_of_min").value == 0
    assert record.get("pixel_mean").value == pytest.approx(pairs["pixel"].mean())
    assert record.get("pixel_mean").value > 40
    assert (pairs["pixel"] == 0).sum() == PATIENTS


def test_as_published_compares_the_last_image_only(world):
    near_copy_in(world, 0, "as_published")
    record, pairs = run(world, "as_published")
    assert record.get("pixel_mean_of_min").value == pytest.approx(147.2, abs=3)
    assert (pairs.groupby("image_id")["pixel"].nunique() == 1).all()
    assert record.get("latent_mean_of_min").value == 0  # the other lenses look at every image
    near_copy_in(world, REPLICATES - 1, "as_published")
    record, pairs = run(world, "as_published")
    assert (pairs["pixel"] == 0).all()


def test_pairs_are_those_of_each_prompt_and_its_own_radiograph(world):
    world.give_unrelated()
    _, pairs = run(world)
    assert list(pairs.columns) == PAIR_SCHEMA.names
    pd.testing.assert_frame_equal(
        pairs[["prompt_id", "image_id"]].astype(object),
        world.pairs[["prompt_id", "image_id"]].astype(object),
    )
    # The latent distance by hand for one pair.
    with h5py.File(world.flags.generated / "rad_dino.h5") as file:
        generated = file["features"][7]
    difference = generated - world.latent[world.own[7]]
    expected = np.linalg.norm(difference) / 8**0.5
    assert pairs["latent"][7] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("protocol", ["sound", "as_published"])
def test_the_same_images_before_other_prompts_radiographs(world, protocol):
    """For copies, every lens then compares two different radiographs."""
    world.give_copies(protocol)
    path = world.root / "others.parquet"
    _, pairs = run(world, protocol, "--others", str(path))
    _, alone = run(world, protocol)
    pd.testing.assert_frame_equal(pairs, alone)
    others = pd.read_parquet(path)
    assert list(others.columns) == OTHERS_SCHEMA.names
    assert len(others) == PATIENTS * (PATIENTS - 1) * REPLICATES  # all five there are
    assert (others["image_id"] != others["other_image_id"]).all()
    first, second = (
        np.array([world.images.index(name) for name in others[column]])
        for column in ("image_id", "other_image_id")
    )
    away = np.linalg.norm(world.latent[first] - world.latent[second], axis=1) / 8**0.5
    np.testing.assert_allclose(others["latent"], away, rtol=1e-6)
    away = np.abs(world.reid[first] - world.reid[second].astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(others["reid"], logistic(4 - 9 * away), rtol=1e-5)
    switches = deviations(protocol)
    shown = [pixels(radiograph(row), switches) for row in range(PATIENTS)]
    for k in (0, 20, 77):
        real, generated = shown[second[k]], shown[first[k]]
        assert others["pixel"][k] == pytest.approx(pixel_distance(real, generated, switches))
        assert others["mirrored"][k] == pytest.approx(
            pixel_distance(real[:, ::-1], generated, switches)
        )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_as_published_compares_the_last_image_with_other_radiographs_as_well(world):
    near_copy_in(world, REPLICATES - 1, "as_published")
    path = world.root / "others.parquet"
    run(world, "as_published", "--others", str(path))
    others = pd.read_parquet(path)
    assert (others.groupby(["image_id", "other_image_id"])["pixel"].nunique() == 1).all()


def test_few_pairs_at_a_time_change_nothing(world, monkeypatch):
    world.give_unrelated()
    record, pairs = run(world)
    monkeypatch.setattr(privacy, "PAIRS_AT_ONCE", 4)
    again, same = run(world)
    pd.testing.assert_frame_equal(pairs, same)
    assert record.values == again.values


def test_the_table_of_pairs_is_for_its_owner_only(world):
    world.give_copies()
    run(world)
    path = world.root / "model_pairs.parquet"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Written over a file that others could read, it is closed to them as well.
    path.chmod(0o644)
    run(world)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_values_of_prompts_by_hand():
    pairs = pd.DataFrame(
        {
            "image_id": ["a", "a", "b", "b"],
            "reid": [0.9, 0.1, 0.85, 0.2],
            "latent": [0.5, 0.3, 0.7, 0.9],
            "pixel": [50.0, 60.0, 20.0, 10.0],
            "mirrored": [70.0, 60.0, 90.0, 80.0],
        }
    )
    patients = np.array(["p", "q"])
    measured = privacy_values(prompt_table(pairs), patients, Settings(bootstrap=200))
    values = {v.metric: v for v in measured}
    expected = {
        "reid_mean_of_max": 0.875,
        "latent_mean_of_min": 0.5,
        "pixel_mean_of_min": 30,
        "mirrored_mean_of_min": 70,
        "reid_mean": 0.5125,
        "latent_mean": 0.6,
        "pixel_mean": 35,
        "mirrored_mean": 75,
        "reid_sd_of_max": 0.05 / 2**0.5,
        "latent_sd_of_min": 0.4 / 2**0.5,
        "pixel_sd_of_min": 40 / 2**0.5,
        "mirrored_sd_of_min": 20 / 2**0.5,
        "reid_count": 1,  # 0.85 is not above 0.85
        "reid_share": 0.5,
        "reid_max": 0.9,
    }
    assert {name: value.value for name, value in values.items()} == pytest.approx(expected)
    ways = {name: value.direction for name, value in values.items()}
    assert {name for name in ways if ways[name] == "higher"} == {
        f"{lens}_{kind}"
        for lens in ("latent", "pixel", "mirrored")
        for kind in ("mean", "mean_of_min")
    }
    assert values["reid_max"].interval is None
    assert values["latent_mean_of_min"].interval == pytest.approx((0.3, 0.7))
    # Both prompts the same one, or one each.
    assert values["latent_sd_of_min"].interval == pytest.approx((0, 0.4 / 2**0.5), abs=1e-7)
    # Wilson's of one in two.
    assert values["reid_count"].interval == pytest.approx((0.1890573, 1.8109427))


def coverage(icc, runs=150):
    """Return the coverage of the intervals of a mean and of a share, for clustered patients."""
    covered = np.zeros(2)
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        risks, patients = correlated(rng, 60, long_stays(rng, 60, 5), icc)
        frame = pd.DataFrame({"image_id": range(len(risks)), **dict.fromkeys(LENSES, risks)})
        settings = Settings(threshold=0.5, bootstrap=200, seed=seed)
        values = {v.metric: v for v in privacy_values(prompt_table(frame), patients, settings)}
        for place, (metric, truth) in enumerate(
            [("reid_mean_of_max", 0.0), ("reid_share", norm.sf(0.5))]
        ):
            low, high = values[metric].interval
            covered[place] += low <= truth <= high
    return covered / runs


@pytest.mark.parametrize("icc", [0.0, 0.5])
def test_intervals_cover_where_patients_have_many_prompts(icc):
    # 95% less three standard errors of 150 runs, and what 60 patients cost a percentile.
    assert (coverage(icc) > 0.95 - 3 * (0.05 * 0.95 / 150) ** 0.5 - 0.02).all()


def test_means_over_ten_patients_reach_as_far_out_as_student_does():
    # On a normal distribution: sqrt(10 / 9) times Student's 2.262 with nine degrees of freedom.
    draws = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    assert percentile_interval(draws, 10)["interval"] == pytest.approx((-2.3845, 2.3845), abs=2e-3)
    assert percentile_interval(draws)["interval"] == pytest.approx((-1.96, 1.96), abs=2e-3)
    # The record's intervals are these: of ten prompts, each of a patient.
    frame = pd.DataFrame({"image_id": range(10), **dict.fromkeys(LENSES, np.arange(10.0))})
    settings = Settings(bootstrap=500)
    values = privacy_values(prompt_table(frame), np.arange(10), settings)
    table = np.column_stack([np.arange(10.0)] * 16)
    means = bootstrap_of_means(table, np.arange(10), settings)[:, 0]
    mean = next(value for value in values if value.metric == "latent_mean")
    assert mean.interval == percentile_interval(means, 10)["interval"]
    assert mean.interval[0] < percentile_interval(means)["interval"][0]


def test_prompts_of_one_patient_that_differ_count_as_they_are():
    values = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    patients = np.array(["p", "p", "q", "q", "r", "r"])
    # All patients alike: their means do not vary, yet there are not more prompts than six.
    assert effective_number(values, patients) == 6
    # Each patient's prompts alike: as many as there are patients, but for n - 1.
    assert effective_number(np.array([0.0, 0, 1, 1, 0, 0]), patients) == pytest.approx(2.4)
    assert effective_number(np.zeros(6), patients) == 3


def test_threshold_and_no_bootstrap(world):
    world.give_copies()
    record, _ = run(world, "sound", "--threshold", "0.99", "--bootstrap", "0")
    assert record.get("reid_count").value == 0  # a copy scores 0.982
    assert record.get("reid_mean_of_max").interval is None
    # None of 6: Wilson's upper bound, 1.96^2 / (6 + 1.96^2), needs no bootstrap.
    assert record.get("reid_count").interval == pytest.approx((0, 6 * 1.96**2 / (6 + 1.96**2)))
    assert record.details["threshold"] == 0.99


def test_images_and_features_of_different_prompts_are_refused(world):
    world.give_copies()
    world.flags.shards.pop()
    with pytest.raises(InputError, match="other images than the shards"):
        run(world)


def test_an_unreadable_radiograph_is_named(world):
    world.give_copies()
    path = world.root / "i3.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"i3\.png"):
        run(world)
    assert not (world.root / "model.json").exists()
    assert not list(world.root.glob("*pairs*"))


def test_other_images_under_the_same_ids_are_refused(world):
    world.give_copies()
    features = {path: path.read_bytes() for path in world.flags.generated.iterdir()}
    world.give_unrelated()
    for path, data in features.items():
        path.write_bytes(data)
    with pytest.raises(InputError, match="other images than the shards"):
        run(world)


def test_two_encoders_of_other_radiographs_are_refused(world):
    world.give_copies()
    with changed(world.flags.real / "reid.h5") as file:
        file.attrs["collection_sha256"] = "another"
    with pytest.raises(InputError, match=r"rad_dino and reid are of other images: collection_sha"):
        run(world)


@pytest.mark.parametrize(
    "attribute", ["weights_sha256", "preprocessing", "protocol", "collection", "purpose"]
)
@pytest.mark.parametrize("encoder", ["rad_dino", "reid"])
def test_features_of_another_origin_are_refused(world, encoder, attribute):
    world.give_copies()
    with changed(world.flags.real / f"{encoder}.h5") as file:
        file.attrs[attribute] = "another"
    with pytest.raises(InputError, match=attribute):
        run(world)


def test_a_radiograph_without_features_is_refused_by_name(world):
    world.give_copies()
    write_h5(world.flags.real, "rad_dino", world.latent[1:], world.images[1:])
    with pytest.raises(InputError, match="first 'i0'"):
        run(world)


def test_features_without_the_networks_last_layer_are_refused(world):
    world.give_copies()
    with changed(world.flags.generated / "reid.h5") as file:
        del file["fc_end_weight"]
    with pytest.raises(InputError, match="fc_end_weight"):
        run(world)
