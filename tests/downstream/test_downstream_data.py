"""Decoding, labels and the two kinds of splits."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.squares import square
from workflow_scripts.common.validation import split_at_random, split_by_patient
from workflow_scripts.downstream.data import (
    concatenate,
    labels_of,
    real_collection,
    synthetic_collection,
)


def test_only_one_is_positive():
    frame = pd.DataFrame({name: pd.array([1, 0, -1, None], dtype="Int8") for name in FINDINGS})
    labels = labels_of(frame)
    assert labels.dtype == np.float32
    assert labels.tolist() == [[1.0] * 14, [0.0] * 14, [0.0] * 14, [0.0] * 14]


def test_sound_keeps_the_aspect_and_squash_keeps_the_whole():
    # Only the left fifth is white: the central square of a 2:1 image is all black.
    wide = np.zeros((40, 80), np.uint8)
    wide[:, :16] = 255
    image = Image.fromarray(wide)
    assert square(image, 20, squash=False).max() == 0
    squashed = square(image, 20, squash=True)
    assert squashed[:, :3].min() == 255
    assert squashed[:, 5:].max() == 0


def test_grayscale_survives_decoding_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB")
    np.testing.assert_array_equal(square(image, 16, squash=False), pixels)


def test_threads_do_not_change_order_or_pixels(world):
    rows = world.manifest.iloc[:50]
    one, four = (real_collection(rows, 32, False, threads) for threads in (1, 4))
    np.testing.assert_array_equal(one.pixels, four.pixels)
    for k in (0, 17, 49):
        np.testing.assert_array_equal(one.pixels[k], np.asarray(world.images[one.ids[k]]))


def test_generated_images_take_labels_and_patient_of_the_prompt(world):
    images = {p: (Image.new("RGB", (32, 32)), None) for p in world.prompts["prompt_id"]}
    got = synthetic_collection(
        [world.shard("plain", images)], world.prompts, world.manifest, 32, False, 1
    )
    np.testing.assert_array_equal(got.labels, labels_of(world.prompts))
    patients = world.manifest.set_index("image_id")["patient_id"]
    assert got.patients.tolist() == patients.loc[world.prompts["image_id"]].tolist()


def test_controls_take_labels_and_patient_of_the_radiograph_shown(world):
    shown = world.prompts["image_id"].tolist()[::-1]
    images = {
        p: (world.images[i], i) for p, i in zip(world.prompts["prompt_id"], shown, strict=True)
    }
    shard = world.shard("reversed", images)
    got = synthetic_collection([shard], world.prompts, world.manifest, 32, False, 1)
    rows = world.manifest.set_index("image_id").loc[shown]
    np.testing.assert_array_equal(got.labels, labels_of(rows))
    assert got.patients.tolist() == rows["patient_id"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: ids[1:], "without an image"),
        (lambda ids: [*ids, "augment-ffffffffffffffff-r00"], "unknown prompts"),
        (lambda ids: [*ids, ids[0]], "has one already"),
    ],
)
def test_incomplete_or_foreign_images_are_refused(world, tmp_path, change, message):
    from workflow_scripts.common.images import ImageItem, png_bytes, write_shard

    data = png_bytes(Image.new("L", (8, 8)))
    path = tmp_path / "part.parquet"
    ids = change(world.prompts["prompt_id"].tolist())
    write_shard((ImageItem(i, "x.png", data, "caption") for i in ids), path)
    with pytest.raises(InputError, match=message):
        synthetic_collection([path], world.prompts, world.manifest, 8, False, 1)


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=80).filter(lambda x: len(set(x)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_no_patient_is_on_both_sides(owners, share, seed):
    patients = np.array([f"p{owner}" for owner in owners], dtype=object)
    training, validation = split_by_patient(patients, share, seed)
    assert sorted([*training, *validation]) == list(range(len(patients)))
    assert len(training) > 0
    assert len(validation) > 0
    assert not set(patients[training]) & set(patients[validation])


def test_the_share_is_met_to_within_a_patient():
    patients = np.repeat([f"p{k}" for k in range(200)], 3).astype(object)
    _, validation = split_by_patient(patients, 0.05, 42)
    assert 30 <= len(validation) <= 33


def test_twins_fall_on_one_side_and_settings_share_validation_patients(world):
    rows = world.manifest[world.manifest["split"] == "train"]
    real = real_collection(rows, 8, False, 1)
    synthetic = synthetic_collection([world.copies()], world.prompts, world.manifest, 8, False, 1)
    both = concatenate([real, synthetic])
    training, validation = split_by_patient(both.patients, 0.1, 42)
    side = np.zeros(len(both), int)
    side[validation] = 1
    np.testing.assert_array_equal(side[: len(real)], side[len(real) :])
    _, real_validation = split_by_patient(real.patients, 0.1, 42)
    assert set(real.patients[real_validation]) == set(both.patients[validation])
    assert len(training) + len(validation) == len(both)


def test_random_split_ignores_patients():
    training, validation = split_at_random(100, 0.05, 42)
    assert len(validation) == 5
    assert sorted([*training, *validation]) == list(range(100))


def test_one_patient_cannot_be_split():
    with pytest.raises(InputError, match="two patients"):
        split_by_patient(np.array(["a", "a"], dtype=object), 0.5, 0)
