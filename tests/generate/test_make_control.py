"""Controls: each shows what it says it shows."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import read_shards
from workflow_scripts.common.manifest import COHORT_PROMPT_SETS, FINDINGS
from workflow_scripts.generate.controls import ControlSettings
from workflow_scripts.generate.export_images import export_images
from workflow_scripts.generate.make_control import (
    assign_held_out,
    draw_matched,
    make_control,
    positive_masks,
    recoded,
    warped,
)


def _make(cohort, kind, prompt_set="test", shards=1, seed=5):
    outputs = []
    for shard in range(shards):
        output = cohort.folder / f"{kind}-{prompt_set}-{shard}-of-{shards}.parquet"
        make_control(
            ControlSettings(kind, seed, blur=0.1, size=32),
            cohort.path,
            cohort.folder / f"{prompt_set}.parquet",
            prompt_set,
            output,
            shard=shard,
            shards=shards,
        )
        outputs.append(output)
    return list(read_shards(outputs))


def _patients(cohort, image_ids):
    return set(cohort.manifest.set_index("image_id").loc[list(image_ids), "patient_id"])


def _reference(cohort, prompt_set):
    manifest = cohort.manifest
    split = "train" if prompt_set == "privacy" else "test"
    patients = set(manifest.loc[manifest["split"] == split, "patient_id"])
    if prompt_set == "augment":
        patients |= _patients(cohort, cohort.sets["augment"]["image_id"])
    return patients


@pytest.mark.parametrize("prompt_set", COHORT_PROMPT_SETS)
def test_held_out_images_share_no_patient_with_the_reference(cohort, prompt_set):
    items = _make(cohort, "held_out_real", prompt_set)
    prompts = cohort.sets[prompt_set]
    assert [item.id for item in items] == prompts["prompt_id"].tolist()
    shown = [item.source_image_id for item in items]
    assert not _patients(cohort, shown) & _reference(cohort, prompt_set)
    rows = cohort.manifest.set_index("image_id")
    for item in items:
        assert item.caption == rows.loc[item.source_image_id, "caption"]
        assert item.data == Path(rows.loc[item.source_image_id, "path"]).read_bytes()
    by_caption = {}
    for item, caption in zip(items, prompts["caption"], strict=True):
        by_caption.setdefault(caption, []).append(item.source_image_id)
    assert all(len(set(images)) == len(images) for images in by_caption.values())


def test_training_copies_are_the_prompts_own_images(cohort):
    items = _make(cohort, "training_copies", "privacy")
    paths = cohort.manifest.set_index("image_id")["path"]
    for item, image_id in zip(items, cohort.sets["privacy"]["image_id"], strict=True):
        assert item.source_image_id == image_id
        assert item.data == Path(paths[image_id]).read_bytes()


def test_blurred_shows_the_held_out_images_without_their_texture(cohort):
    sharp, blurred = _make(cohort, "held_out_real"), _make(cohort, "blurred_real")
    assert [i.source_image_id for i in sharp] == [i.source_image_id for i in blurred]
    assert [i.caption for i in sharp] == [i.caption for i in blurred]
    for before, after in zip(sharp, blurred, strict=True):
        assert after.open().size == (32, 32)
        texture = [np.asarray(i.open().convert("L"), float).std() for i in (before, after)]
        assert texture[1] < texture[0] / 4


def test_noise_is_uniform_and_each_image_its_own(cohort):
    items = _make(cohort, "noise", "privacy")
    pixels = np.stack([np.asarray(item.open().convert("L")) for item in items])
    assert len({item.data for item in items}) == len(items)
    assert abs(pixels.mean() - 127.5) < 4 * 73.9 / pixels.size**0.5
    assert {item.source_image_id for item in items} == {None}
    assert _make(cohort, "noise", "privacy", seed=6)[0].data != items[0].data


KINDS = ["held_out_real", "blurred_real", "warped_real", "training_copies", "noise"]


@pytest.mark.parametrize("kind", KINDS)
def test_sharding_changes_nothing(cohort, kind):
    def content(shards):
        items = _make(cohort, kind, shards=shards)
        return [(item.id, item.data, item.caption, item.source_image_id) for item in items]

    assert content(5) == content(1)


def test_masks_are_the_positive_findings_alone(builders):
    frame = builders.manifest(20)
    for i, mask in enumerate(positive_masks(frame)):
        positive = {name for name in FINDINGS if frame[name].eq(1).fillna(False).iloc[i]}
        assert {name for bit, name in enumerate(FINDINGS) if mask >> bit & 1} == positive


masks = st.lists(st.integers(0, 7), min_size=1, max_size=30)


@given(wanted=masks, pool=masks, seed=st.integers(0, 5))
def test_the_draw_uses_the_pool_evenly_and_exact_matches_first(wanted, pool, seed):
    wanted, pool = np.array(wanted, np.uint16), np.array(pool, np.uint16)
    drawn = draw_matched(wanted, [str(i) for i in range(len(wanted))], pool, seed)
    uses = np.bincount(drawn, minlength=len(pool))
    assert uses.max() - uses.min() <= 1
    if len(wanted) <= len(pool):
        for mask in set(wanted.tolist()):
            matched = ((pool[drawn] == mask) & (wanted == mask)).sum()
            assert matched == min((wanted == mask).sum(), (pool == mask).sum())


def test_a_prompt_without_an_exact_match_gets_the_nearest():
    wanted, pool = np.array([0b0111], np.uint16), np.array([0, 0b1111, 0b1001], np.uint16)
    assert draw_matched(wanted, ["a"], pool, 0).tolist() == [1]


def test_more_replicates_than_images_is_refused():
    with pytest.raises(InputError, match="more replicates than the pool"):
        draw_matched(np.zeros(3, np.uint16), ["a"] * 3, np.zeros(2, np.uint16), 0)


def test_an_empty_pool_is_refused(cohort):
    manifest = cohort.manifest[cohort.manifest["split"] == "test"]
    with pytest.raises(InputError, match="no captioned image of a patient outside"):
        assign_held_out(manifest, cohort.sets["test"], "test", 0)


def test_twenty_thousand_prompts_draw_from_a_full_pool(builders):
    manifest = builders.manifest(100_000)
    train = manifest[manifest["split"] == "train"]
    prompts = builders.prompts(train.iloc[::3], "augment")
    rows = assign_held_out(manifest, prompts, "augment", 3)
    masks = positive_masks(manifest.iloc[rows]) ^ positive_masks(prompts)
    assert len(np.unique(rows)) == len(rows) == 20_000
    assert np.bitwise_count(masks).mean() < 1.0


def test_export_writes_pngs_and_their_captions(cohort):
    _make(cohort, "held_out_real", shards=2)
    shards = sorted(cohort.folder.glob("held_out_real-test-*-of-2.parquet"))
    out = cohort.folder / "export"
    assert export_images(shards, out) == len(cohort.sets["test"])
    with (out / "metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["prompt_id"] for row in rows] == cohort.sets["test"]["prompt_id"].tolist()
    for row, item in zip(rows, read_shards(shards), strict=True):
        with Image.open(out / row["file_name"]) as image:
            assert image.format == "PNG"
            assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(item.open()))
        assert row["caption"] == item.caption


@pytest.mark.parametrize("kind", ["flipped_copies", "brightened_copies"])
def test_changed_copies_are_the_prompts_own_image_changed(cohort, kind):
    items = _make(cohort, kind, "privacy")
    copies = _make(cohort, "training_copies", "privacy")
    assert [item.source_image_id for item in items] == [item.source_image_id for item in copies]
    for item, copy in zip(items, copies, strict=True):
        own = copy.open().convert("L")
        scale = min(1, 32 / min(own.size))
        own = own.resize([round(side * scale) for side in own.size], Image.Resampling.BICUBIC)
        shown, own = (np.asarray(image.convert("L"), float) for image in (item.open(), own))
        expected = own[:, ::-1] if kind == "flipped_copies" else np.minimum(255, own * 1.1)
        np.testing.assert_allclose(shown, expected, atol=0.51)
        assert item.caption == copy.caption


def test_a_warp_bends_and_keeps_the_grain():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128]
    disc = ((y - 64) ** 2 + (x - 64) ** 2 < 40**2) * 100.0
    image = Image.fromarray((60 + disc + rng.normal(0, 6, disc.shape)).astype(np.uint8))
    bent = [
        np.asarray(warped(image.convert("RGB"), s, 1).convert("L"), float) for s in (0, 0.05, 0.1)
    ]
    own = np.asarray(image, float)
    assert (bent[0] == own).all()
    moved = [((b > 110) != (own > 110)).mean() for b in bent]
    assert 0 < moved[1] < moved[2]
    grain = [np.median(np.abs(b - ndimage.gaussian_filter(b, 1.5))) for b in (own, *bent)]
    # White noise is the hardest to keep: a seventh of it goes where pixels fall between others.
    assert 0.8 < grain[2] / grain[0] < 1
    assert (np.asarray(warped(image.convert("RGB"), 0.05, 2).convert("L"), float) != bent[1]).any()


def test_recoded_copies_lose_what_was_asked_and_no_more():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(40, 200, (64, 64)).astype(np.uint8))
    own = np.asarray(image, float)
    assert recoded(image, 100, 0.0) is image
    errors = [np.abs(np.asarray(recoded(image, q, 0.0), float) - own).mean() for q in (50, 75, 95)]
    assert errors[0] > errors[1] > errors[2] > 0
    cut = np.asarray(recoded(image, 100, 0.05), float)
    assert 0.04 < (cut == 0).mean() < 0.07
    assert 0.04 < (cut == 255).mean() < 0.07
    inside = (cut > 0) & (cut < 255)
    slope = np.polyfit(own[inside], cut[inside], 1)[0]
    low, high = np.quantile(own, [0.05, 0.95])
    assert slope == pytest.approx(255 / (high - low), rel=0.01)


def test_recoded_copies_are_of_the_prompts_own_images(cohort):
    items = _make(cohort, "recoded_copies", "privacy")
    copies = _make(cohort, "training_copies", "privacy")
    assert [item.source_image_id for item in items] == [item.source_image_id for item in copies]
    assert all(min(item.open().size) <= 32 for item in items)
