"""Extraction: copies are told from new images, whole and by patches, at the stated false alarms."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling
from scipy.ndimage import gaussian_filter

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem
from workflow_scripts.features.encoders.rad_dino import RadDino
from workflow_scripts.features.encoders.transform import ImageTransform
from workflow_scripts.features.extract import Collection
from workflow_scripts.privacy.extraction import look as looking
from workflow_scripts.privacy.extraction.alarms import LENSES, Scores, limits_of, scores_of
from workflow_scripts.privacy.extraction.look import (
    Seen,
    in_tiles,
    look,
    pixel_tiles,
    token_scale,
    token_tiles,
)
from workflow_scripts.privacy.extraction.repeats import repeated, repeats_of, widths_by_chance
from workflow_scripts.privacy.extraction.score import (
    Radiographs,
    image_table,
    labelled_files,
    model_values,
)
from workflow_scripts.privacy.extraction.settings import ExtractionSettings
from workflow_scripts.privacy.extraction.tiles import Tiles, nearest
from workflow_scripts.privacy.settings import Settings

FALSE_ALARMS = 0.05


def radiographs(count: int, seed: int) -> np.ndarray:
    """Draw smooth gray images of one build that differ in every tile, uint8 (n, 64, 64)."""
    rng = np.random.default_rng(seed)
    own = gaussian_filter(rng.normal(0, 1, (count, 64, 64)), (0, 4, 4))
    build = 128 + 60 * np.sin(np.linspace(0, np.pi, 64))[None, :, None]
    return np.clip(build + 250 * own, 0, 255).astype(np.uint8)


def seen_of(images: np.ndarray, stem: str) -> Seen:
    """What is seen in images; their tokens are coarse pixels, as those of a network that blurs."""
    tiles = np.stack([in_tiles(image) for image in images])
    tokens = tiles.reshape(len(tiles), 16, 8, 32).mean(axis=3).astype(np.float16)
    return Seen([f"{stem}{i}" for i in range(len(images))], tiles, tokens, stem)


class Attack:
    """200 training radiographs, and limits that are set on those of 120 other patients."""

    def __init__(self) -> None:
        self.training = radiographs(200, 1)
        self.patients = np.array([f"p{i // 2}" for i in range(200)])  # two films each
        held_out = seen_of(radiographs(240, 2), "h")
        theirs = np.array([f"q{i // 2}" for i in range(240)])
        seen = seen_of(self.training, "t")
        self.scale = token_scale(seen)
        self.on = Radiographs(seen, self.patients, held_out, theirs, self.scale, None)
        limits = limits_of(self.scores(held_out), theirs, FALSE_ALARMS)
        self.on = Radiographs(seen, self.patients, held_out, theirs, self.scale, limits)

    def scores(self, seen: Seen):
        pixels = nearest(pixel_tiles(seen), pixel_tiles(self.on.training), 20)
        tokens = nearest(
            token_tiles(seen, self.scale), token_tiles(self.on.training, self.scale), 20
        )
        return scores_of(pixels, tokens)

    def table(self, images: np.ndarray, patients) -> pd.DataFrame:
        """What the attack says of images, one of each caption."""
        seen = seen_of(images, "g")
        asked = pd.DataFrame({"image_id": seen.ids, "patient_id": patients})
        every = np.arange(len(images))
        return image_table(seen, self.scores(seen), self.on.limits, asked, every, self.on)


@pytest.fixture(scope="module")
def attack() -> Attack:
    return Attack()


def values_of(table: pd.DataFrame) -> dict:
    found = model_values(
        table, None, table["patient_id"].to_numpy(str), 200, Settings(0.85, 100, 1),
        ExtractionSettings(FALSE_ALARMS), "",
    )  # fmt: skip
    return {value.metric: value for value in found}


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
    for column in ["alarm", *(f"{lens}_alarm" for lens in LENSES)]:
        # The limit is the sixth smallest of 120 patients': the share varies by it, too.
        assert new[column].mean() <= FALSE_ALARMS + 3 * np.sqrt(FALSE_ALARMS * (1 / 400 + 1 / 120))


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
    marked = Attack()
    marker = radiographs(1, 6)[0, :16, :16]
    training = attack.training.copy()
    training[:100, :16, :16] = marker
    seen = seen_of(training, "t")
    marked.on = Radiographs(
        seen, attack.patients, attack.on.held_out, attack.on.held_out_patients, attack.scale,
        attack.on.limits,
    )  # fmt: skip
    new = radiographs(30, 7)
    new[:, :16, :16] = marker
    table = marked.table(new, ["n"] * 30)
    assert (table["pixel_patch"] > 0.2).all()  # a copy is at a tenth of the others
    assert table["pixel_patch_alarm"].mean() <= 2 * FALSE_ALARMS


def test_an_empty_corner_is_no_copy_of_the_one_that_is_as_empty(attack):
    """Two patches that show nothing are as alike as two that are one."""
    rng = np.random.default_rng(13)
    dark = Attack()
    training = attack.training.copy()
    training[:, :16, :16] = rng.integers(0, 3, (200, 16, 16))
    training[7, :16, :16] = 0
    dark.on = Radiographs(
        seen_of(training, "t"), attack.patients, attack.on.held_out, attack.on.held_out_patients,
        attack.scale, attack.on.limits,
    )  # fmt: skip
    new = radiographs(30, 14)
    new[:, :16, :16] = 0
    table = dark.table(new, ["n"] * 30)
    assert table["pixel_patch_alarm"].mean() <= 2 * FALSE_ALARMS


def test_a_limit_counts_patients_by_hand():
    # q0 has 200 films, all of them riskier than those of the 39 others: one patient of 40. At 5%
    # two patients may lie below: q0 and the riskiest of the others.
    patients = np.array(["q0"] * 200 + [f"q{i}" for i in range(1, 40)])
    values = np.r_[np.linspace(0.1, 0.2, 200), np.linspace(0.5, 0.9, 39)]
    scores = Scores(np.tile(values[:, None], (1, 4)), *[np.zeros((239, 4), int)] * 2)
    limits = limits_of(scores, patients, 0.05)
    assert limits.lenses == pytest.approx([values[201]] * 4)
    assert limits.alarms(scores).sum(axis=0).tolist() == [201] * 5


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
        table, None, table["patient_id"].to_numpy(str), 200, Settings(), ExtractionSettings(),
        "2 held-out patients, fewer than 1 / 0.01",
    )  # fmt: skip
    kept = {value.metric for value in found if value.value is not None}
    assert kept == {"extracted_by_chance"}
    assert {value.reason for value in found if value.metric == "extracted_share"} == {
        "2 held-out patients, fewer than 1 / 0.01"
    }


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


def test_labelled_files_are_refused_without_a_model():
    with pytest.raises(InputError, match="MODEL=FILE"):
        labelled_files(["=x.parquet"], "--images")
    assert [p.name for p in labelled_files(["a=x", "a=y"], "--images")["a"]] == ["x", "y"]
