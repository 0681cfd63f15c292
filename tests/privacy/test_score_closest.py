"""The record of closest training images: named patients, and images that count as memorised."""

import stat

import numpy as np
import pandas as pd
import pytest

from tests.privacy.conftest import PATIENTS, REPLICATES, radiograph, write_h5
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import read_record
from workflow_scripts.privacy.score_closest import closest_values, main
from workflow_scripts.privacy.settings import Settings


def images_of(rows):
    return [radiograph(int(row)) for row in rows]


def run(world, *flags):
    output, pairs = world.root / "closest.json", world.root / "closest_pairs.parquet"
    paths = world.flags
    main(
        [
            *("--model", "model", "--protocol", "sound", "--manifest", str(paths.manifest)),
            *("--prompts", str(paths.prompts), "--real", str(paths.real)),
            *("--generated", str(paths.generated), "--bootstrap", "200"),
            *("--output", str(output), "--pairs", str(pairs), *flags),
        ]
    )
    table = pd.read_parquet(pairs)
    return read_record(output), table[table["match"] == 0].reset_index(drop=True)


def test_copies_name_their_patients_and_are_not_authentic(world):
    world.give_copies()
    record, pairs = run(world)
    assert len(pairs) == PATIENTS * REPLICATES
    image_of = dict(zip(world.pairs["prompt_id"], world.pairs["image_id"], strict=True))
    assert (pairs["latent_image_id"] == pairs["prompt_id"].map(image_of)).all()
    assert (pairs["latent_patient_id"] == pairs["patient_id"]).all()
    assert (pairs["latent"] == 0).all()
    assert (pairs["training_latent"] > 0).all()
    values = {value.metric: value.value for value in record.values}
    assert values["authpct"] == values["closest_latent_mean"] == values["closest_latent_min"] == 0
    assert values["own_patient_latent"] == values["own_patient_reid"] == 1
    assert values["closest_reid_share"] == 1
    assert values["closest_reid_max"] == pytest.approx(1 / (1 + np.exp(-4)))
    assert record.family == "closest"
    assert record.details["training_images"] == PATIENTS


def test_as_many_matches_as_asked_are_kept_the_closest_first(world):
    world.give_copies()
    run(world, "--matches", "3")
    pairs = pd.read_parquet(world.root / "closest_pairs.parquet")
    assert len(pairs) == 3 * PATIENTS * REPLICATES
    for _, of in pairs.groupby("prompt_id"):
        assert of["match"].tolist() == [0, 1, 2]
        assert of["latent"].is_monotonic_increasing
        assert of["reid"].is_monotonic_decreasing
        assert of["latent_image_id"].nunique() == of["reid_image_id"].nunique() == 3
        assert of["training_latent"].notna().tolist() == [True, False, False]
    # More than there are training images: all of them.
    run(world, "--matches", "50")
    pairs = pd.read_parquet(world.root / "closest_pairs.parquet")
    assert len(pairs) == PATIENTS * PATIENTS * REPLICATES


def test_a_copy_of_another_patient_is_found_though_its_prompt_is_not(world):
    """Pairwise scores cannot detect it: each prompt's image copies the next patient."""
    other = (world.own + 1) % PATIENTS
    world.give(images_of(other), world.latent[other], world.reid[other])
    record, pairs = run(world)
    assert (pairs["latent"] == 0).all()
    assert (pairs["latent_patient_id"] == [f"pi{row}" for row in other]).all()
    assert record.get("own_patient_latent").value == 0
    assert record.get("authpct").value == 0


def test_distances_by_hand_and_authenticity(world):
    """An image nearer to a training image than that one's neighbour is not authentic."""
    world.latent = np.zeros((PATIENTS, 8), np.float32)
    world.latent[:, 0] = [0, 2, 10, 20, 30, 40]
    latent = np.zeros((len(world.pairs), 8), np.float32)
    latent[:, 0] = -5  # 5 from the first, which is 2 from its neighbour: authentic
    latent[0, 0] = -1  # 1 from the first: not
    world.give(images_of(world.own), latent, world.reid[world.own])
    record, pairs = run(world)
    n = len(pairs)
    np.testing.assert_allclose(pairs["latent"], [1 / 8**0.5] + [5 / 8**0.5] * (n - 1))
    np.testing.assert_allclose(pairs["training_latent"], 2 / 8**0.5)
    assert record.get("authpct").value == pytest.approx(100 * (n - 1) / n)
    assert record.get("closest_latent_min").value == pytest.approx(1 / 8**0.5)


def test_intervals_are_over_prompts_and_the_extremes_have_none(world):
    world.give_unrelated()
    record, _ = run(world)
    for value in record.values:
        extreme = value.metric in ("closest_latent_min", "closest_reid_max")
        assert (value.interval is None) == extreme
        if value.interval is not None:
            assert value.interval[0] <= value.value <= value.interval[1]
    # Unrelated images name nobody by chance, which six prompts do not make certain.
    share = record.get("own_patient_latent")
    assert share.interval[1] > share.value
    again, _ = run(world, "--bootstrap", "0")
    assert again.get("authpct").interval is None
    assert again.get("authpct").value == record.get("authpct").value


def test_only_the_owner_may_read_the_pairs(world):
    world.give_copies()
    run(world)
    mode = (world.root / "closest_pairs.parquet").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_what_has_no_answer_is_refused(world):
    world.give_copies()
    for encoder, features in (("rad_dino", world.latent), ("reid", world.reid)):
        write_h5(world.flags.real, encoder, features[:1], world.images[:1], **world.head)
    with pytest.raises(InputError, match="fewer than two training images"):
        run(world)
    write_h5(world.flags.real, "rad_dino", world.latent[:2], ["i0", "nobody"])
    with pytest.raises(InputError, match="nobody"):
        run(world)
    assert not (world.root / "closest.json").exists()


def test_a_rare_name_of_patients_with_many_prompts_is_held_as_promised():
    """A patient's images name that patient together."""
    sizes = np.where(np.arange(100) < 16, 17, 1)
    patients = np.repeat(np.arange(100), sizes).astype(str)
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        named = (rng.random(100) < 0.1)[patients.astype(int)]
        pairs = pd.DataFrame(
            {
                "patient_id": patients,
                "latent": 1.0,
                "training_latent": 0.5,
                "latent_patient_id": np.where(named, patients, ""),
                "reid": 0.1,
                "reid_patient_id": "",
            }
        )
        values = closest_values(pairs, Settings(bootstrap=20, seed=seed))
        share = next(value for value in values if value.metric == "own_patient_latent")
        assert share.interval_kind == "Wilson 95%"
        held += share.interval[0] <= 0.1 <= share.interval[1]
    assert held / 100 > 0.92
