"""Rough films of a cohort: each line is a folder, and the warnings or refusals it gets.

A drawn film consists of dark air beside the body, lungs and a bright mediastinum.
"""

import csv
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.cohort.test_image_folder import ROWS, build, write
from workflow_scripts.cohort import look
from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.cohort.look import downsized, look_at_films, looks_inverted, percentiles
from workflow_scripts.cohort.similar import steps_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import decode_image


def film(body=140, lungs=70, middle=200, seed=0, size=(80, 96), noise=3):
    """Draw a frontal film, uint8 (h, w), from the gray levels of body, lungs and mediastinum."""
    height, width = size
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    levels = np.full(size, float(body))
    levels[(np.abs(x - 0.5) > 0.42) & (y < 0.8)] = 5
    for centre in (0.27, 0.73):
        levels[((x - centre) / 0.13) ** 2 + ((y - 0.45) / 0.28) ** 2 < 1] = lungs
    levels[np.abs(x - 0.5) < 0.07] = middle
    drawn = levels + np.random.default_rng(seed).normal(0, noise, size)
    return drawn.clip(0, 255).round().astype(np.uint8)


# name: the film, and whether it looks inverted
FILMS = {
    "upright": (film(), False),
    "its negative": (255 - film(), True),
    "one white lung": (np.where(np.arange(96) < 48, film(lungs=220), film()), False),
    "both lungs white": (film(lungs=210, middle=200), False),
    "low contrast": (film(120, 110, 130), False),
    "a negative of low contrast": (film(120, 145, 115), True),
    "flipped": (film()[:, ::-1], False),
    "a flipped negative": (255 - film()[:, ::-1], True),
    "small": (film(size=(16, 16)), False),
    "a small negative": (255 - film(size=(16, 16)), True),
    "wide": (film(size=(60, 140)), False),
    "noise": (np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8), False),
}

DARK = "the films are dark: 99.9% of their pixels are at most"
INVERTED = "look inverted"
# name: the pixels of seven films (fewer: the last one stands for the rest), words of the log or
# the refusal; () says nothing
FOLDERS = {
    "sound": ([film()], ()),
    "in 16 bits": ([film().astype(np.uint16) * 257], ()),
    "12 bits read as 16 on their way": ([film() // 16], (DARK, "99.9%: 1")),
    "half the range": ([film() // 2], (DARK,)),
    "one dark film among seven": ([film() // 16, film()], ()),
    "one bright film among dark ones": ([film(), film() // 16], ()),
    "all inverted": ([255 - film()], (INVERTED, "7 of 7 films")),
    "two inverted": (
        [255 - film(), film(), 255 - film(), film()], ("2 of 7 films", "negative: 1, 3")
    ),
}  # fmt: skip
BROKEN = {
    "one cut": (b"\x89PNG\r\n", ("1 of 7 films", "img/3.png: cannot decode an image")),
    "12 bits in 16": (film().astype(np.uint16) * 16, ("no value above", "12-bit values times 16")),
    "floating-point": (film() / np.float32(255), ("img/3.png: floating-point pixels",)),
    "int32": (film().astype(np.int32) * 16, ("img/3.png: pixels of 32 bits",)),
    "all black": (film() * 0, ("img/3.png: all pixels of an image have one value",)),
    "all white": (film() * 0 + 255, ("img/3.png: all pixels of an image have one value",)),
}


def put(path, pixels):
    if isinstance(pixels, bytes):
        path.write_bytes(pixels)
    else:
        kind = "PNG" if pixels.dtype in (np.uint8, np.uint16) else "TIFF"
        Image.fromarray(pixels).save(path, kind)


def folder_of(tmp_path, films):
    write(tmp_path, ROWS)
    for i, row in enumerate(ROWS):
        pixels = films[min(i, len(films) - 1)]
        if not isinstance(pixels, bytes) and pixels.min() < pixels.max():
            pixels = pixels.copy()
            pixels[0, 0] = i * (257 if pixels.dtype == np.uint16 else 1)  # no two are the same
        put(tmp_path / row[0], pixels)


@pytest.mark.parametrize("name", FILMS)
def test_an_inverted_film_is_told(name):
    pixels, wanted = FILMS[name]
    assert looks_inverted(downsized(Image.fromarray(pixels))) is wanted


@pytest.mark.parametrize("name", FOLDERS)
def test_what_films_look_like_is_said_where_the_cohort_is_made(name, tmp_path, caplog):
    films, words = FOLDERS[name]
    folder_of(tmp_path, films)
    with caplog.at_level("WARNING"):
        build(tmp_path)
    said = "\n".join(record.message for record in caplog.records)
    for word in words:
        assert word in said
    assert (DARK in said) == (DARK in words)
    shown = [films[min(i, len(films) - 1)] for i in range(7)]
    shown = [Image.fromarray((f // 257 if f.max() > 255 else f).astype("u1")) for f in shown]
    count = sum(looks_inverted(downsized(image)) for image in shown)
    with (tmp_path / "attrition.csv").open() as stream:
        row = {row["step"]: row for row in csv.DictReader(stream)}["looked_at"]
    assert (row["unit"], row["removed"], row["kept"]) == ("images", "0", "7")
    assert row["reason"].startswith(f"of 7 films decoded {count} look inverted")
    assert ".png" not in row["reason"], "the table may be shown to others"


@pytest.mark.parametrize("name", BROKEN)
def test_a_film_that_cannot_be_used_ends_the_cohort(name, tmp_path):
    pixels, words = BROKEN[name]
    folder_of(tmp_path, [film(), film(), pixels, film()])
    with pytest.raises(InputError) as caught:
        build(tmp_path)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "manifest.parquet").exists()


def test_films_are_not_looked_at_where_files_are_not_checked(tmp_path):
    folder_of(tmp_path, [b"no image"])
    assert len(build(tmp_path, "--no-check-files")) == 7


def many(tmp_path, count, unread=()):
    """Write a manifest of `count` images that share a file; those of `unread` have none."""
    Image.fromarray(film()).save(tmp_path / "film.png")
    frame = pd.DataFrame({"image_id": [f"i{i}" for i in range(count)], "path": ""})
    frame["path"] = str(tmp_path / "film.png")
    frame.loc[list(unread), "path"] = "nowhere"
    return frame


def test_of_many_films_some_are_drawn_and_what_they_say_of_all_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(look, "MOST", 5)
    drawn = np.sort(np.random.default_rng(look.DRAW_SEED).choice(41, 5, replace=False))
    others = sorted(set(range(41)) - set(drawn))
    attrition = Attrition()
    frame = many(tmp_path, 41, others)
    assert look_at_films(frame, attrition, tmp_path) is None
    assert attrition.rows[0][3] == 41
    reason = attrition.rows[0][4]
    assert reason.startswith("of 5 films decoded 0 look inverted")
    assert "with 95% confidence at most 45.07% of all do" in reason  # 1 - 0.05 ** (1 / 5)
    with pytest.raises(InputError, match=r"36 of 41 films that were looked at cannot be used"):
        look_at_films(frame, Attrition(), tmp_path, every=True)


@pytest.mark.parametrize(("found", "of"), [(0, 500), (3, 500), (10, 20), (499, 500)])
def test_the_bound_of_a_share_is_where_so_few_would_be_a_twentieth(found, of):
    """By definition: at that share, drawing `found` or fewer has a probability of 5%."""
    share = look.highest_share(found, of)
    at_most = sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(found + 1))
    assert at_most == pytest.approx(0.05, rel=1e-6)
    assert look.highest_share(0, 500) < 0.006
    assert look.highest_share(of, of) == 1


def test_where_every_film_is_looked_at_each_inverted_one_is_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(look, "MOST", 2)
    folder_of(tmp_path, [film(), 255 - film(), film(), film(), 255 - film(), film()])
    with caplog.at_level("WARNING"):
        build(tmp_path, "--alike", "1", "--refuse-above", "1")
    said = "\n".join(record.message for record in caplog.records)
    assert "2 of 7 films look inverted" in said
    assert "negative: 2, 5" in said
    with (tmp_path / "attrition.csv").open() as stream:
        row = {row["step"]: row for row in csv.DictReader(stream)}["looked_at"]
    assert "of 7 films decoded 2 look inverted" in row["reason"]
    assert "confidence" not in row["reason"]


@pytest.mark.parametrize("name", BROKEN)
def test_where_every_film_is_looked_at_any_broken_one_ends_the_cohort(name, tmp_path, monkeypatch):
    monkeypatch.setattr(look, "MOST", 1)
    pixels, words = BROKEN[name]
    folder_of(tmp_path, [film(), film(), pixels, film()])
    with pytest.raises(InputError) as caught:
        build(tmp_path, "--alike", "0.9")
    for word in words:
        assert word in str(caught.value)


def test_a_jpeg_that_is_decoded_in_small_shows_the_same_in_small(tmp_path):
    pixels = film(size=(1024, 1200), noise=12)
    Image.fromarray(pixels).save(tmp_path / "film.jpg", quality=92)
    whole = look._look(str(tmp_path / "film.jpg"))
    part = look._look(str(tmp_path / "film.jpg"), 4 * look.SIDE)
    one, other = steps_of(np.stack([whole.small, part.small]))
    assert one @ other > 0.98
    assert np.median(np.abs(whole.small.astype(int) - part.small.astype(int))) <= 1
    assert decode_image(tmp_path / "film.jpg", "film", at_least=256).size == (300, 256)
    assert looks_inverted(downsized(Image.fromarray(255 - pixels)))


@given(st.lists(st.integers(0, 255), min_size=1, max_size=300))
def test_percentiles_are_levels_that_occur_in_order(levels):
    """By definition: the lowest level that at least this share of the pixels does not exceed."""
    shares = np.bincount(levels, minlength=256) / len(levels)
    shares_found = percentiles(shares)
    assert shares_found == sorted(shares_found)
    for percentile, level in zip(look.PERCENTILES, shares_found, strict=True):
        assert level in levels
        assert np.mean(np.array(levels) <= level) >= percentile / 100 - 1e-6
        assert np.mean(np.array(levels) < level) < percentile / 100
