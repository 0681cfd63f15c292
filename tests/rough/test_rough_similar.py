"""Copies of training images in the test split. A row is a kind of copy.

Radiographs of different patients are drawn by the embedded world, at 256 pixels.
"""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.cohort.look import look_at_films
from workflow_scripts.cohort.similar import ALIKE, check_similar, most_alike, steps_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.world.anatomy import draw_patient, draw_study
from workflow_scripts.world.radiograph import render


@pytest.fixture(scope="module")
def films():
    """The radiographs of 24 patients by name."""
    return {
        f"f{seed}": Image.fromarray(
            render(draw_patient(seed), draw_study(seed, "AP" if seed % 2 else "PA")).image
        )
        for seed in range(24)
    }


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def scaled(image, side, way=Image.Resampling.BILINEAR):
    return image.resize((side, side), way)


def levels(change):
    return lambda image: image.point([int(min(255, max(0, change(v)))) for v in range(256)])


# name: the change of a training image before it was added to the test images
COPIES = {
    "as it is": lambda image: image,
    "JPEG of quality 90": lambda image: jpeg(image, 90),
    "JPEG of quality 30": lambda image: jpeg(image, 30),
    "JPEG twice": lambda image: jpeg(jpeg(image, 60), 75),
    "half the size": lambda image: scaled(image, 128),
    "twice the size": lambda image: scaled(image, 512, Image.Resampling.BICUBIC),
    "224 pixels": lambda image: scaled(image, 224, Image.Resampling.LANCZOS),
    "squashed": lambda image: image.resize((256, 200)),
    "brighter": levels(lambda v: v * 1.2),
    "brighter by a step": levels(lambda v: v + 25),
    "darker": levels(lambda v: v * 0.7),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "gamma 0.7": levels(lambda v: 255 * (v / 255) ** 0.7),
    "gamma 1.4": levels(lambda v: 255 * (v / 255) ** 1.4),
    "noise": lambda image: Image.fromarray(
        (np.asarray(image) + np.random.default_rng(0).normal(0, 4, (256, 256)))
        .clip(0, 255).astype(np.uint8)
    ),
    "in colour": lambda image: image.convert("RGB"),
    "with a mark burned in": lambda image: marked(image),
    "in 16 bits": lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 257),
    "small, brighter and JPEG": lambda image: jpeg(
        levels(lambda v: v * 1.1)(scaled(image, 160)), 50
    ),
}  # fmt: skip
# name: an image that is no copy, or a copy that is not detected
OTHERS = {
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "its negative": levels(lambda v: 255 - v),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "cropped by a tenth": lambda image: image.crop((26, 26, 230, 230)),
    "noise alone": lambda image: Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (256, 256), np.uint8)
    ),
}


def marked(image):
    image = image.copy()
    image.paste(255, (8, 8, 30, 22))
    return image


def put(folder, films, test):
    """Write a manifest of training images and, in the test split, of the images `test` by id."""
    rows = []
    for split, images in (("train", films), ("test", test)):
        for name, image in images.items():
            path = folder / f"{name}.png"
            image.save(path, image.format or "PNG")
            rows.append([name, f"p-{name}", f"s-{name}", str(path), split])
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "study_id", "path", "split"])


def checked(manifest, tmp_path, above=0.0):
    attrition, table = Attrition(), tmp_path / "similar.csv"
    seen = look_at_films(manifest, Attrition(), tmp_path, every=True)
    try:
        check_similar(manifest, seen, ALIKE, above, attrition, table)
        fault = None
    except InputError as error:
        fault = error
    return attrition.rows[0], pd.read_csv(table), table, fault


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_in_another_split_is_found(name, films, tmp_path):
    train = dict(list(films.items())[:12])
    copy = COPIES[name](films["f5"])
    others = {f"t{i}": films[f"f{i}"] for i in range(12, 18)}
    row, listed, table, fault = checked(put(tmp_path, train, {**others, "copy": copy}), tmp_path)
    assert row[4].startswith("1 of 7 test images are like one in another split")
    assert listed[["image_id", "other_image_id", "other_patient_id"]].values.tolist() == [
        ["copy", "f5", "p-f5"]
    ]
    assert listed.loc[0, "likeness"] >= ALIKE
    assert table.stat().st_mode & 0o077 == 0
    assert "copy (p-copy, test) and f5 (p-f5, train)" in fault.what
    assert "copy" not in row[4], "the table may be shown to others"
    _, _, _, fault = checked(put(tmp_path, train, {**others, "copy": copy}), tmp_path, 0.2)
    assert fault is None


def test_a_copy_in_the_validation_split_is_listed_and_refuses_nothing(films, tmp_path):
    """A copied test image is listed beside its copy in each split."""
    train = dict(list(films.items())[:12])
    copy = COPIES["small, brighter and JPEG"]
    manifest = put(tmp_path, train, {"t": films["f13"], "c": copy(films["f4"])})
    more = put(tmp_path, {}, {"v": copy(films["f5"]), "w": copy(films["f4"]), "x": films["f15"]})
    manifest = pd.concat([manifest, more.assign(split="validate")], ignore_index=True)
    row, listed, _, fault = checked(manifest, tmp_path)
    assert row[4].startswith("1 of 2 test images are like one in another split")
    assert row[4].endswith("; 2 of 3 validation images are as like one in training")
    assert {tuple(pair) for pair in listed[["image_id", "split", "other_image_id"]].values} == {
        ("c", "test", "f4"),
        ("c", "test", "w"),
        ("v", "validate", "f5"),
        ("w", "validate", "f4"),
    }
    assert "1 of 2 test images" in fault.what
    assert "validate) and" not in fault.what
    alone = manifest[manifest["image_id"] != "c"].reset_index(drop=True)
    row, listed, _, fault = checked(alone, tmp_path)
    assert (len(listed), fault) == (2, None)
    assert row[4].startswith("0 of 1 test images")


@pytest.mark.parametrize("name", OTHERS)
def test_what_shows_something_else_is_no_copy(name, films, tmp_path):
    train = dict(list(films.items())[:12])
    row, listed, _, fault = checked(
        put(tmp_path, train, {"other": OTHERS[name](films["f5"])}), tmp_path
    )
    assert (len(listed), fault) == (0, None)
    assert row[4].startswith("0 of 1 test images are like one")
    assert "of the others none is above" in row[4]


def test_no_two_patients_are_taken_for_one(films):
    small = [np.asarray(film.resize((64, 64), Image.Resampling.BOX)) for film in films.values()]
    steps = steps_of(np.array(small))
    likeness = steps @ steps.T - 2 * np.eye(len(steps))
    assert likeness.max() < ALIKE - 0.1


def test_the_likeness_is_the_correlation_of_the_steps_between_pixels():
    """Compare with NumPy's correlation of the differences, one pair at a time."""
    films = np.random.default_rng(3).integers(0, 256, (7, 9, 9), np.uint8)
    rows = [[f"i{i}", "p", "s", "x", "test" if i < 3 else "train"] for i in range(7)]
    names = ["image_id", "patient_id", "study_id", "path", "split"]
    pairs = most_alike(pd.DataFrame(rows, columns=names), films)

    def of(i):
        wide = films[i].astype(float)
        return np.concatenate([np.diff(wide, axis=1).ravel(), np.diff(wide, axis=0).ravel()])

    for i in range(3):
        by_hand = [np.corrcoef(of(i), of(j))[0, 1] for j in range(3, 7)]
        assert pairs.loc[i, "other_image_id"] == f"i{3 + int(np.argmax(by_hand))}"
        assert pairs.loc[i, "likeness"] == pytest.approx(max(by_hand), abs=1e-4)


@pytest.mark.parametrize("split", ["train", "test", "validate"])
def test_of_one_split_alone_nothing_is_compared(split):
    names = ["image_id", "patient_id", "study_id", "path", "split"]
    frame = pd.DataFrame([["a", "p", "s", "x", split], ["b", "q", "t", "y", split]], columns=names)
    films = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    assert most_alike(frame, films).empty
    attrition = Attrition()
    check_similar(frame, films, ALIKE, 0, attrition)
    assert attrition.rows[0][4].startswith("0 of ")


def test_films_of_one_level_are_like_nothing():
    assert not steps_of(np.full((2, 8, 8), 7, np.uint8)).any()
