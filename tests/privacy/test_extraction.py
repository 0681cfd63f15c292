"""Extraction: copies, also mirrored and moved ones, are told from new images, whole and by patches,
at the stated false alarms."""

import copy
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from PIL.Image import Resampling
from scipy.ndimage import gaussian_filter

from tests.scoring import scripts
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, decode_image
from workflow_scripts.features.encoders.rad_dino import RadDino
from workflow_scripts.features.encoders.transform import ImageTransform
from workflow_scripts.features.extract import Collection
from workflow_scripts.fidelity.arrays import CPU
from workflow_scripts.fidelity.resample import wilson_interval
from workflow_scripts.privacy.extraction import look as looking
from workflow_scripts.privacy.extraction import score as scoring
from workflow_scripts.privacy.extraction.alarms import LENSES, Scores, limits_of
from workflow_scripts.privacy.extraction.look import (
    Seen,
    in_tiles,
    look,
    pixel_tiles,
    token_scale,
)
from workflow_scripts.privacy.extraction.repeats import repeated, repeats_of, widths_by_chance
from workflow_scripts.privacy.extraction.score import (
    Radiographs,
    alarms_by_view,
    closest_in_views,
    closest_of,
    image_table,
    labelled_files,
    model_values,
)
from workflow_scripts.privacy.extraction.settings import ExtractionSettings
from workflow_scripts.privacy.extraction.tiles import Tiles, nearest
from workflow_scripts.privacy.extraction.views import (
    MIRRORED,
    MOVED,
    View,
    mirrored_collection,
    viewed_pixels,
    views_of,
)

FALSE_ALARMS = 0.05


def radiographs(count: int, seed: int, blur: float = 4) -> np.ndarray:
    """Draw smooth gray images of one build that differ in every tile, uint8 (n, 64, 64)."""
    rng = np.random.default_rng(seed)
    own = gaussian_filter(rng.normal(0, 1, (count, 64, 64)), (0, blur, blur))
    build = 128 + 60 * np.sin(np.linspace(0, np.pi, 64))[None, :, None]
    return np.clip(build + 250 * blur / 4 * own, 0, 255).astype(np.uint8)


def seen_of(images: np.ndarray, stem: str) -> Seen:
    """What is seen in images; their tokens are coarse pixels, as those of a network that blurs."""
    tiles = np.stack([in_tiles(image) for image in images])
    tokens = tiles.reshape(len(tiles), 16, 8, 32).mean(axis=3).astype(np.float16)
    return Seen([f"{stem}{i}" for i in range(len(images))], tiles, tokens, stem)


class Attack:
    """200 training radiographs, and limits that are set on those of 120 other patients."""

    def __init__(self, folder, views="as_it_lies", seed=2, blur=4) -> None:
        self.folder = folder
        self.training = radiographs(200, 1, blur)
        self.patients = np.array([f"p{i // 2}" for i in range(200)])  # two films each
        others = radiographs(240, seed, blur)
        held_out = seen_of(others, f"h{seed}-")
        theirs = np.array([f"q{i // 2}" for i in range(240)])
        seen = seen_of(self.training, "t")
        self.scale = token_scale(seen)
        self.on = Radiographs(
            seen, self.patients, held_out, theirs, self.scale, None, None, views_of(views)
        )
        limits = [
            limits_of(scores, theirs, FALSE_ALARMS)
            for scores in (self.in_views(others, held_out), self.scores(held_out))
        ]
        self.on = Radiographs(
            seen, self.patients, held_out, theirs, self.scale, *limits, views_of(views)
        )

    def against(self, training: np.ndarray) -> "Attack":
        """The same limits, and other training radiographs."""
        other = copy.copy(self)
        other.on = dataclasses.replace(self.on, training=seen_of(training, "other"))
        return other

    def scores(self, seen: Seen):
        return closest_of(
            seen, self.on.training, self.scale, 20, CPU, self.folder / "closest", "test"
        )

    def in_views(self, images: np.ndarray, seen: Seen):
        """The scores in all views; the tokens are those of the mirror images."""
        mirrored = seen_of(images[:, :, ::-1], f"mirrored {seen.sha256}")
        return closest_in_views(
            seen, self.scores(seen), np.arange(len(images)), mirrored, self.on.training,
            self.scale, self.on.views, 20, CPU, self.folder / "views", "test",
        )  # fmt: skip

    def table(self, images: np.ndarray, patients) -> pd.DataFrame:
        """What the attack says of images, one of each caption."""
        seen = seen_of(images, f"{hashlib.sha256(images.tobytes()).hexdigest()[:8]}-")
        asked = pd.DataFrame({"image_id": seen.ids, "patient_id": patients})
        every = np.arange(len(images))
        in_views = self.in_views(images, seen)
        return image_table(seen, self.scores(seen), in_views, asked, every, self.on)


@pytest.fixture(scope="module")
def attack(tmp_path_factory) -> Attack:
    return Attack(tmp_path_factory.mktemp("attack"))


@pytest.fixture(scope="module")
def attack_in_views(tmp_path_factory) -> Attack:
    return Attack(tmp_path_factory.mktemp("views"), "mirrored_and_moved")


def values_of(table: pd.DataFrame, views="as_it_lies") -> dict:
    found = model_values(
        table, None, table["patient_id"].to_numpy(str), 200,
        ExtractionSettings(FALSE_ALARMS, views=views), "",
    )  # fmt: skip
    return {value.metric: value for value in found}


def at_most(share: float, n: int) -> float:
    """The largest plausible share of n new images that raise a false alarm."""
    # The limit is the sixth smallest of 120 patients': the share varies by it, too.
    return share + 3 * np.sqrt(share * (1 / n + 1 / 120))


def test_copies_are_all_extracted_and_name_their_patients(attack):
    values = values_of(attack.table(attack.training[::5], attack.patients[::5]))
    assert values["extracted_share"].value == 1
    # Each lens sees them by itself.
    assert {lens: values[f"{lens}_extracted"].value for lens in LENSES} == dict.fromkeys(LENSES, 1)
    assert values["extracted_count"].value == 40
    assert values["own_patient_named"].value == 1
    assert values["patients_named"].value == len(set(attack.patients[::5]))
    assert values["extracted_by_chance"].value == 40 * FALSE_ALARMS


def test_a_copy_of_another_patient_is_extracted_and_is_not_the_prompts(attack):
    values = values_of(attack.table(attack.training[:20], ["someone"] * 20))
    assert values["extracted_share"].value == 1
    assert values["own_patient_named"].value == 0
    assert values["patients_named"].value == 10


def test_new_radiographs_raise_the_stated_share_of_false_alarms(attack):
    new = attack.table(radiographs(400, 3), [f"r{i}" for i in range(400)])
    for column in ["alarm", "alarm_as_it_lies", *(f"{lens}_alarm" for lens in LENSES)]:
        assert new[column].mean() <= at_most(FALSE_ALARMS, 400)


def test_noise_and_empty_images_raise_no_alarm(attack):
    noise = np.random.default_rng(4).integers(0, 256, (40, 64, 64), dtype=np.uint8)
    assert not attack.table(noise, ["n"] * 40)["alarm"].any()
    assert not attack.table(np.full((5, 64, 64), 128, np.uint8), ["n"] * 5)["alarm"].any()


def test_a_copied_patch_is_found_by_the_lens_of_patches_alone(attack):
    new = radiographs(40, 5)
    new[:, 16:32, 32:48] = attack.training[:40, 16:32, 32:48]
    table = attack.table(new, attack.patients[:40])
    assert table["pixel_patch_alarm"].all()
    assert (table["pixel_patch_tile"] == 4 * 1 + 2).all()
    assert (table["pixel_patch_patient_id"] == attack.patients[:40]).all()
    assert table["pixel_whole_alarm"].mean() <= 2 * FALSE_ALARMS
    assert values_of(table)["own_patient_named"].value >= 0.95
    assert table["alarm"].all()


def test_a_copy_under_fine_texture_is_seen_in_tokens_alone(attack):
    board = np.where(np.indices((64, 64)).sum(axis=0) % 2, 60, -60)
    noisy = np.clip(attack.training[:40].astype(int) + board, 0, 255).astype(np.uint8)
    table = attack.table(noisy, attack.patients[:40])
    for lens, seen in zip(LENSES, (False, True, False, True), strict=True):
        share = table[f"{lens}_alarm"].mean()
        assert share > 0.9 if seen else share <= 2 * FALSE_ALARMS
    named = values_of(table)
    assert named["own_patient_named"].value >= 0.95
    assert named["extracted_share"].value > 0.9


def test_a_marker_that_many_radiographs_bear_is_no_copy(attack):
    marker = radiographs(1, 6)[0, :16, :16]
    training = attack.training.copy()
    training[:100, :16, :16] = marker
    marked = attack.against(training)
    new = radiographs(30, 7)
    new[:, :16, :16] = marker
    table = marked.table(new, ["n"] * 30)
    assert (table["pixel_patch"] > 0.2).all()  # a copy is at a tenth of the others
    assert table["pixel_patch_alarm"].mean() <= 2 * FALSE_ALARMS


def test_an_empty_corner_is_no_copy_of_the_one_that_is_as_empty(attack):
    """Two patches that show nothing are as alike as two that are one."""
    rng = np.random.default_rng(13)
    training = attack.training.copy()
    training[:, :16, :16] = rng.integers(0, 3, (200, 16, 16))
    training[7, :16, :16] = 0
    dark = attack.against(training)
    new = radiographs(30, 14)
    new[:, :16, :16] = 0
    table = dark.table(new, ["n"] * 30)
    assert table["pixel_patch_alarm"].mean() <= 2 * FALSE_ALARMS


def test_a_limit_counts_patients_by_hand():
    # q0 has 200 films, all of them riskier than those of the 39 others: one patient of 40. At 5%
    # one patient may lie below, q0: a new patient is one of 41, and 2 of 41 are less than 5%.
    patients = np.array(["q0"] * 200 + [f"q{i}" for i in range(1, 40)])
    values = np.r_[np.linspace(0.1, 0.2, 200), np.linspace(0.5, 0.9, 39)]
    scores = Scores(np.tile(values[:, None], (1, 4)), *[np.zeros((239, 4), int)] * 3)
    limits = limits_of(scores, patients, 0.05)
    assert limits.lenses == pytest.approx([values[200]] * 4)
    assert limits.alarms(scores).sum(axis=0).tolist() == [200] * 5


def test_patients_count_once_and_too_few_of_them_set_no_limit(attack):
    scores = attack.scores(attack.on.held_out)
    one_with_many = np.array(["q0"] * 200 + [f"q{i}" for i in range(1, 41)])
    limits = limits_of(scores, one_with_many, FALSE_ALARMS)
    alarms = limits.alarms(scores)[:, -1]
    of_patients = pd.Series(alarms.astype(float)).groupby(one_with_many).mean()
    assert 0 < of_patients.mean() <= FALSE_ALARMS
    assert limits_of(scores, np.array(["q0"] * 120 + ["q1"] * 120), FALSE_ALARMS) is None


def test_without_limits_the_values_are_absent_with_the_reason(attack):
    table = attack.table(attack.training[:4], attack.patients[:4])
    found = model_values(
        table, None, table["patient_id"].to_numpy(str), 200, ExtractionSettings(),
        "2 held-out patients, fewer than 1 / 0.01",
    )  # fmt: skip
    kept = {value.metric for value in found if value.value is not None}
    assert kept == {"extracted_by_chance"}
    assert {value.reason for value in found if value.metric == "extracted_share"} == {
        "2 held-out patients, fewer than 1 / 0.01"
    }


def moved_by(images: np.ndarray, right: int, down: int) -> np.ndarray:
    """Move images, and repeat what lies at the edge."""
    far = max(abs(right), abs(down))
    wide = np.pad(images, ((0, 0), (far, far), (far, far)), mode="edge")
    return wide[:, far - down : far - down + 64, far - right : far - right + 64]


def cropped(images: np.ndarray, pixels: int) -> np.ndarray:
    """Cut pixels from each edge, and enlarge the rest to the whole side."""
    return np.stack(
        [np.asarray(Image.fromarray(i).crop((pixels, pixels, 64 - pixels, 64 - pixels))
                    .resize((64, 64), Resampling.BILINEAR)) for i in images]
    )  # fmt: skip


def test_mirrored_copies_are_extracted_by_every_lens_and_not_as_they_lie(attack, attack_in_views):
    mirrored, theirs = attack.training[:60, :, ::-1], attack.patients[:60]
    before = attack.table(mirrored, theirs)
    assert before["alarm"].mean() <= at_most(FALSE_ALARMS, 60)
    assert values_of(before)["extracted_mirrored"].value is None
    table = attack_in_views.table(mirrored, theirs)
    values = values_of(table, "mirrored_and_moved")
    assert {lens: values[f"{lens}_extracted"].value for lens in LENSES} == dict.fromkeys(LENSES, 1)
    assert values["own_patient_named"].value == values["extracted_share"].value == 1
    assert values["extracted_mirrored"].value == 1
    assert values["extracted_moved"].value == 0
    assert alarms_by_view(table, attack_in_views.on.views) == {"mirrored": 60}
    for lens in LENSES:
        assert (table[f"{lens}_image_id"] == [f"t{i}" for i in range(60)]).all()
        assert (table[f"{lens}_view"] == "mirrored").all()
    # All images are compared as they lie, so that all count alike.
    assert values["images_alarmed"].value == before["alarm"].mean()


def test_moved_and_cropped_copies_are_extracted_and_not_as_they_lie(tmp_path):
    # With as fine a texture that a copy that moves by two pixels is as another image.
    as_they_lie, in_views = (
        Attack(tmp_path / name, name, blur=1) for name in ("as_it_lies", "mirrored_and_moved")
    )
    copies, theirs = in_views.training[:40], in_views.patients[:40]
    pixels = ["pixel_whole_alarm", "pixel_patch_alarm"]  # tokens are not computed of moved images
    for changed, view, lenses in (
        (moved_by(copies, 3, 1), "left", pixels),
        (moved_by(copies, -2, 2), "right, up", pixels),
        (moved_by(copies, 2, 2)[:, :, ::-1], "mirrored, left, up", pixels),
        (cropped(copies, 3), "smaller", pixels[:1]),  # patches near the centre stay in place
    ):
        before, after = (attack.table(changed, theirs) for attack in (as_they_lie, in_views))
        assert (before[lenses].mean() <= 0.25).all()
        assert (after[lenses].mean() > 0.9).all()
        assert after["pixel_whole_view"].mode()[0] == view
        values = values_of(after, "mirrored_and_moved")
        assert values["extracted_share"].value > 0.9
        assert values["own_patient_named"].value > 0.95


def test_alarms_count_for_the_view_that_raised_them(tmp_path):
    attack = Attack(tmp_path, "mirrored_and_moved", blur=1)
    copies = attack.training[:40]
    moved = moved_by(copies, 2, 2)
    moved[20:] = moved[20:, :, ::-1]
    table = attack.table(moved, attack.patients[:40])
    values = values_of(table, "mirrored_and_moved")
    assert values["extracted_moved"].value == values["extracted_share"].value > 0.9
    assert values["extracted_mirrored"].value == pytest.approx(0.5, abs=0.05)
    by_view = alarms_by_view(table, attack.on.views)
    assert by_view["left, up"] + by_view["mirrored, left, up"] >= 36
    assert sum(by_view.values()) == values["extracted_count"].value


def test_copies_as_they_lie_are_all_extracted_as_they_lie(attack_in_views):
    table = attack_in_views.table(attack_in_views.training[::5], attack_in_views.patients[::5])
    values = values_of(table, "mirrored_and_moved")
    assert values["extracted_share"].value == values["own_patient_named"].value == 1
    assert values["extracted_mirrored"].value == values["extracted_moved"].value == 0
    assert alarms_by_view(table, attack_in_views.on.views) == {"as it lies": 40}


def test_new_radiographs_raise_the_stated_share_in_all_views_mirrored_or_not(attack_in_views):
    new = radiographs(400, 3)
    table = attack_in_views.table(new, [f"r{i}" for i in range(400)])
    mirrored = attack_in_views.table(new[:, :, ::-1], [f"r{i}" for i in range(400)])
    for found in (table, mirrored):
        for column in ["alarm", "alarm_as_it_lies", *(f"{lens}_alarm" for lens in LENSES)]:
            assert found[column].mean() <= at_most(FALSE_ALARMS, 400)
    # An image and its mirror image are compared in the same views.
    for lens in LENSES:
        assert mirrored[lens].to_numpy() == pytest.approx(table[lens].to_numpy(), rel=0.01)


def test_limits_of_images_as_they_lie_would_raise_more_alarms_in_all_views(attack_in_views):
    """The least score of many views is lower, for new radiographs, too."""
    new, names = radiographs(400, 3), [f"r{i}" for i in range(400)]
    easy = copy.copy(attack_in_views)
    easy.on = dataclasses.replace(easy.on, limits=easy.on.limits_as_they_lie)
    assert easy.table(new, names)["alarm"].mean() > at_most(FALSE_ALARMS, 400)


@pytest.mark.full
def test_false_alarms_in_all_views_are_those_stated_on_average(tmp_path):
    """Over six sets of held-out radiographs: of 240, half a patient each, 10 may lie below a limit.

    So the limit is the 11th smallest, and a new image lies below it with a probability of 11 / 241.
    """
    shares = []
    for seed in range(20, 26):
        attack = Attack(tmp_path / str(seed), "mirrored_and_moved", seed)
        new = attack.table(radiographs(200, 100 + seed), ["n"] * 200)
        shares.append(new["alarm"].mean())
    spread = np.sqrt(FALSE_ALARMS * (1 / 200 + 1 / 240) / len(shares))
    assert abs(np.mean(shares) - 11 / 241) <= 3 * spread


def test_only_picked_images_are_compared_in_all_views(attack_in_views):
    on = attack_in_views.on
    images = np.concatenate([on_copies := attack_in_views.training[:10, :, ::-1], on_copies])
    seen = seen_of(images, "g")
    asked = pd.DataFrame({"image_id": seen.ids, "patient_id": ["p"] * 20})
    scores, rows = attack_in_views.scores(seen), np.arange(0, 20, 3)
    mirrored = seen_of(images[rows, :, ::-1], "m")
    in_views = closest_in_views(
        seen, scores, rows, mirrored, on.training, on.scale, on.views, 20, CPU,
        attack_in_views.folder / "some", "test",
    )  # fmt: skip
    table = image_table(seen, scores, in_views, asked, rows, on)
    assert table["picked"].sum() == len(rows)
    assert (table["alarm"] == table["picked"]).mean() > 0.9
    assert (table["pixel_whole_view"] == np.where(table["picked"], "mirrored", "as it lies")).all()
    assert not table["alarm_as_it_lies"].all()
    assert (table["pixel_whole"].to_numpy()[rows] < scores.values[rows, 0]).all()


def test_views_are_those_of_pillow():
    images = radiographs(5, 12)
    tiles = np.stack([in_tiles(image) for image in images])

    def seen_in(view: View) -> np.ndarray:
        rows = viewed_pixels(tiles, view).reshape(5, 4, 4, 16, 16).swapaxes(2, 3)
        return rows.reshape(5, 64, 64)

    assert (seen_in(View()) == images).all()
    mirror = np.stack([np.asarray(ImageOps.mirror(Image.fromarray(i))) for i in images])
    assert (seen_in(MIRRORED) == mirror).all()
    assert (seen_in(View(right=3)) == moved_by(images, 3, 0)).all()
    assert (seen_in(View(mirrored=True, right=-2, down=2)) == moved_by(mirror, -2, 2)).all()
    # Pillow enlarges what is left of a cropped image; the border is not compared.
    inside = (slice(None), slice(3, -3), slice(3, -3))
    larger = np.stack(
        [np.asarray(Image.fromarray(i).transform(
            (64, 64), Image.Transform.AFFINE, (64 / 68, 0, 64 / 34, 0, 64 / 68, 64 / 34),
            Resampling.BILINEAR)) for i in images]
    )  # fmt: skip
    assert np.abs(seen_in(View(larger=2))[inside].astype(int) - larger[inside]).max() <= 1
    # Smaller after a crop by as much: the inside returns.
    again = np.stack([in_tiles(image) for image in cropped(images, 2)])
    back = viewed_pixels(again, View(larger=-2)).reshape(5, 4, 4, 16, 16).swapaxes(2, 3)
    away = np.abs(back.reshape(5, 64, 64)[:, 6:-6, 6:-6].astype(int) - images[:, 6:-6, 6:-6])
    assert away.mean() < 2 < np.abs(cropped(images, 2).astype(int) - images).mean()


def test_the_views_of_each_setting():
    assert [v.name for v in views_of("as_it_lies")] == ["as it lies"]
    assert [v.name for v in views_of("mirrored")] == ["as it lies", "mirrored"]
    views = views_of("mirrored_and_moved")
    assert len(views) == len({view.name for view in views}) == 22
    assert sum(view.mirrored for view in views) == 11
    assert {abs(view.right) for view in views} == {0, MOVED}
    # The views of a mirror image are those of the image.
    assert {View(not v.mirrored, v.right, v.down, v.larger) for v in views} == set(views)


def test_the_search_is_that_of_all_pairs(monkeypatch):
    monkeypatch.setattr("workflow_scripts.privacy.extraction.tiles._QUERIES", 5)
    monkeypatch.setattr("workflow_scripts.privacy.extraction.tiles._REFERENCES", 7)
    monkeypatch.setattr("workflow_scripts.privacy.extraction.tiles._EXACT", 2)
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(12, 4, 6)), rng.normal(size=(30, 4, 6))
    y[17] = x[3]
    mean, scale = rng.normal(size=(4, 6)), rng.uniform(0.5, 2, (4, 6))
    found = nearest(Tiles(x, mean, scale), Tiles(y, mean, scale), 9)
    far = np.sqrt((((x[:, None] - y[None]) / scale) ** 2).mean(axis=3))
    for values, rows, least, means in (
        (far.max(axis=2), found.whole_row, found.whole, found.whole_mean),
        *(
            (far[:, :, k], found.tile_row[:, k], found.tile[:, k], found.tile_mean[:, k])
            for k in range(4)
        ),
    ):
        assert (rows == values.argmin(axis=1)).all()
        assert least == pytest.approx(values.min(axis=1), abs=1e-12)
        assert means == pytest.approx(np.sort(values, axis=1)[:, :9].mean(axis=1), rel=1e-3)
    assert found.whole[3] == 0


def test_a_caption_that_returns_one_image_repeats_and_other_captions_do_not(attack):
    held_out = pixel_tiles(attack.on.held_out)
    chance = {5: widths_by_chance(held_out, attack.on.held_out_patients, 5, 3, 1)}
    images = radiographs(100, 9)
    jitter = np.random.default_rng(0).integers(-3, 4, (3, 64, 64))
    for caption in range(10):  # three of its five images are nearly one
        first = images[5 * caption].astype(int)
        images[5 * caption : 5 * caption + 3] = np.clip(first + jitter, 0, 255)
    groups = list(np.arange(100).reshape(20, 5))
    found = repeats_of(pixel_tiles(seen_of(images, "g")), groups, 3)
    flags = repeated(found, chance, 0.01)
    assert flags[:10].all()
    assert not flags[10:].any()
    # The picked image is one of the three.
    assert (found.middle[:10] - 5 * np.arange(10) < 3).all()


def test_a_model_that_returns_one_image_for_all_captions_repeats_none_of_them(attack):
    held_out = pixel_tiles(attack.on.held_out)
    chance = {5: widths_by_chance(held_out, attack.on.held_out_patients, 5, 3, 1)}
    jitter = np.random.default_rng(0).integers(-3, 4, (50, 64, 64))
    images = np.clip(radiographs(1, 10) + jitter, 0, 255).astype(np.uint8)
    found = repeats_of(pixel_tiles(seen_of(images, "g")), list(np.arange(50).reshape(10, 5)), 3)
    assert not repeated(found, chance, 0.01).any()


@pytest.fixture(scope="module")
def encoder() -> RadDino:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14
    )
    transform = ImageTransform(
        size=56, crop=(56, 56), resample=Resampling.BICUBIC, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    return RadDino(Dinov2Model(config), transform, torch.device("cpu"))


def collection_of(folder, count: int) -> Collection:
    items = []
    for number, image in enumerate(radiographs(count, 11)):
        path = folder / f"i{number}.png"
        if not path.exists():
            Image.fromarray(image).resize((80, 72)).save(path)
        items.append(ImageItem(f"i{number}", str(path)))
    stamps = [str((folder / f"i{n}.png").stat().st_mtime_ns) for n in range(count)]
    ids = [item.id for item in items]
    return Collection(ids, None, stamps, lambda start: iter(items[start:]), generated=False)


def test_a_stopped_look_continues_to_the_same_arrays(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(looking, "BLOCK", 4)
    images, kept = tmp_path / "images", tmp_path / "kept"
    images.mkdir()
    whole = look(collection_of(images, 10), encoder, "w", tmp_path / "other", "all")
    assert whole.pixels.shape == (10, 16, 256)
    assert whole.tokens.shape == (10, 16, 8)
    (images / "i9.png").rename(images / "away.png")
    collection = collection_of(images, 9)  # makes no i9
    broken = Collection(
        [*collection.ids, "i9"], None, [*collection.stamps, "?"],
        lambda start: iter([*collection.read(0), ImageItem("i9", str(images / "i9.png"))][start:]),
        generated=False,
    )  # fmt: skip
    with pytest.raises((InputError, OSError)):
        look(broken, encoder, "w", kept, "some")
    assert len(list(kept.glob("*.npz"))) == 2
    first = {path.name: path.stat().st_mtime_ns for path in kept.glob("*.npz")}
    (images / "away.png").rename(images / "i9.png")
    again = look(collection_of(images, 10), encoder, "w", kept, "all")
    assert (again.pixels == whole.pixels).all()
    assert (again.tokens == whole.tokens).all()
    assert again.sha256 == whole.sha256
    assert all((kept / name).stat().st_mtime_ns == time for name, time in first.items())


def test_mirror_images_of_some_are_looked_at_alone_and_kept(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(looking, "BLOCK", 2)
    images = tmp_path / "images"
    images.mkdir()
    collection = collection_of(images, 8)
    rows = np.array([1, 2, 4, 5, 7])
    opened = []

    def told(source, name):
        opened.append(Path(source).stem)
        return decode_image(source, name)

    whole = look(collection, encoder, "w", tmp_path / "whole", "all")
    monkeypatch.setattr("workflow_scripts.common.images.decode_image", told)
    mirrored = mirrored_collection(collection, rows)
    found = look(mirrored, encoder, "w", tmp_path / "mirrored", "some")
    assert found.ids == [f"i{row}" for row in rows]
    assert opened == found.ids
    # The tokens of a file that holds the mirror image.
    flipped = tmp_path / "flipped"
    flipped.mkdir()
    for row in range(8):
        ImageOps.mirror(Image.open(images / f"i{row}.png")).save(flipped / f"i{row}.png")
    alone = look(collection_of(flipped, 8), encoder, "w", tmp_path / "alone", "all")
    assert (found.pixels == alone.pixels[rows]).all()
    assert found.tokens == pytest.approx(alone.tokens[rows], abs=2e-3)
    assert np.abs(found.tokens - whole.tokens[rows]).max() > 0.05
    assert found.sha256 != whole.sha256
    # A killed job reads on from the first image that is not kept.
    for kept in sorted((tmp_path / "mirrored").glob("*.npz"))[1:]:
        kept.unlink()
    again = look(mirrored, encoder, "w", tmp_path / "mirrored", "some")
    assert (again.tokens == found.tokens).all()
    assert again.sha256 == found.sha256


def test_what_was_searched_is_kept_when_a_killed_job_looks_again(tmp_path, encoder, monkeypatch):
    images = tmp_path / "images"
    images.mkdir()
    collection = collection_of(images, 6)
    scale = (np.zeros((16, 8), np.float32), np.ones((16, 8), np.float32))

    def searched(views):
        seen = look(collection, encoder, "w", tmp_path / "seen", "all")
        rows = np.array([0, 3])
        mirrored = look(mirrored_collection(collection, rows), encoder, "w",
                        tmp_path / "seen/mirrored", "mirrored")  # fmt: skip
        found = closest_of(seen, seen, scale, 3, CPU, tmp_path / "seen/closest", "all")
        return closest_in_views(
            seen, found, rows, mirrored, seen, scale, views_of(views), 3, CPU,
            tmp_path / "seen/views", "all",
        )  # fmt: skip

    first = searched("mirrored")
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "nearest", None)  # may not be called
        again = searched("mirrored")
        assert all((getattr(first, name) == values).all() for name, values in vars(again).items())
        with pytest.raises(TypeError):
            searched("mirrored_and_moved")
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "seen").rglob("*.npz"))


@pytest.mark.parametrize("left", [0, 100])
def test_a_search_whose_file_was_cut_short_is_repeated(tmp_path, encoder, left):
    images = tmp_path / "images"
    images.mkdir()
    seen = look(collection_of(images, 6), encoder, "w", tmp_path / "seen", "all")
    scale = (np.zeros((16, 8), np.float32), np.ones((16, 8), np.float32))

    def searched():
        return closest_of(seen, seen, scale, 3, CPU, tmp_path / "closest", "all")

    first = searched()
    for path in (kept := list((tmp_path / "closest").glob("*.npz"))):
        path.write_bytes(path.read_bytes()[:left])
    again = searched()
    assert all((getattr(first, name) == values).all() for name, values in vars(again).items())
    assert kept
    assert all(path.stat().st_size > 100 for path in kept)


def test_a_share_has_as_many_units_as_its_patients_are_worth():
    """Captions of a patient that agree are one unit; those that do not depend on it are many."""
    patients = np.repeat([f"p{k}" for k in range(40)], 5)
    agreeing = np.repeat(np.arange(40) < 10, 5).astype(float)
    spread = np.tile([1.0, 0, 0, 0, 0], 40)
    low, high = scoring._share("extracted_share", agreeing, patients).interval
    assert (low, high) == pytest.approx(wilson_interval(0.25, 40), abs=0.01)
    low, high = scoring._share("extracted_share", spread, patients).interval
    assert (low, high) == pytest.approx(wilson_interval(0.2, 200))


def test_other_weights_and_damaged_blocks_are_looked_at_again(tmp_path, encoder):
    images, kept = tmp_path / "images", tmp_path / "kept"
    images.mkdir()
    whole = look(collection_of(images, 3), encoder, "w", kept, "all")
    (block,) = kept.glob("*.npz")
    block.write_bytes(block.read_bytes()[:100])
    assert (look(collection_of(images, 3), encoder, "w", kept, "all").tokens == whole.tokens).all()
    assert look(collection_of(images, 3), encoder, "v", kept, "all").sha256 != whole.sha256
    assert len(list(kept.glob("*.npz"))) == 1  # the block of the old weights went


def test_tokens_are_those_of_the_patches_in_their_place(encoder):
    left = torch.zeros(3, 56, 56)
    left[:, 28:42, 14:28] = 3.0
    with torch.inference_mode():
        states = encoder.network(pixel_values=left[None]).last_hidden_state[0, 1:]
    tokens = looking.pooled_tokens(encoder, [left])[0]
    # 4 x 4 patches in 4 x 4 tiles: each tile is its patch's token.
    assert tokens == pytest.approx(states.numpy(), abs=5e-3)


def test_a_job_that_starts_again_searches_nothing_twice(tmp_path, monkeypatch):
    script = scripts.SCRIPTS["privacy/extraction/tiny.json"]
    first = script.run(tmp_path, tmp_path, 1)
    # A killed job leaves no record, and what it has found.
    (tmp_path / "privacy/extraction/tiny.json").unlink()
    monkeypatch.setattr(scoring, "nearest", None)  # may not be called
    assert script.run(tmp_path, tmp_path, 1) == first


def test_labelled_files_are_refused_without_a_model():
    with pytest.raises(InputError, match="MODEL=FILE"):
        labelled_files(["=x.parquet"], "--images")
    assert [p.name for p in labelled_files(["a=x", "a=y"], "--images")["a"]] == ["x", "y"]
