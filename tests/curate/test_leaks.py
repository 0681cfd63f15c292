"""Planted leaks: of sizes that the search was not tuned on, and seen by it all the same.

The radiographs here share most of what they show, as frontal films do: two patients' are alike to
0.86. So a leak is found only by a search that looks for what was done to it.
"""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.curate import likeness as search
from workflow_scripts.curate.kinds import KINDS, OVERFITTED
from workflow_scripts.curate.leaks import leak
from workflow_scripts.curate.lenses import LENSES, both_ways
from workflow_scripts.curate.overfitted import drawn_overfitted
from workflow_scripts.curate.plant import candidates

SIZE, LEAKS, FILMS = 128, 10, 30


def smooth(seed: int, spots: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (spots, spots), np.uint8)
    return Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def film(seed: int) -> Image.Image:
    """Draw what all films share and what a patient's own has, both smooth as radiographs are."""
    return Image.blend(smooth(10**6, 6), smooth(seed, 20), 0.3)


def searched(kind: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Search for leaks of a kind among strangers' films, each also mirrored, as curation does.

    Returns:
        Values of the leaks and of the strangers, and which film each leak is nearest to.
    """
    films = np.stack([search.views_of_film(film(k)) for k in range(FILMS)], axis=1)
    rng = np.random.default_rng(3)
    images = [leak(kind, film(k), film(k + 1), rng=rng) for k in range(LEAKS)]
    images += [film(100 + k) for k in range(FILMS)]
    ways = [*images, *(ImageOps.mirror(image) for image in images)]
    seen = search.likeness(
        (partial(search.views_of_image, way) for way in ways), films, torch.device("cpu")
    )
    rows = pd.DataFrame({
        **dict.fromkeys(LENSES, 0.0), "group": "pool", "id": [*range(len(images))] * 2,
        "mirrored": [False] * len(images) + [True] * len(images), "pixel": seen.pixel,
        "mixture": seen.mixture, "nearest_image_id": seen.nearest, "nearest_patient_id": "",
        "latent_image_id": "",
    })  # fmt: skip
    joined = both_ways(rows).set_index("id").loc[range(len(images))]
    values = joined["mixture" if kind == "blend" else "pixel"].to_numpy()
    return values[:LEAKS], values[LEAKS:], joined["nearest_image_id"].tolist()[:LEAKS]


def test_sizes_are_drawn():
    rng = np.random.default_rng(0)
    for kind in ("crop", "rotation"):
        one, two = (np.asarray(leak(kind, film(0), rng=rng)) for _ in range(2))
        assert (one != two).any()


def test_a_blend_needs_two():
    with pytest.raises(ValueError, match="second"):
        leak("blend", film(0), rng=np.random.default_rng(0))


def is_found(kind: str) -> bool:
    """Return whether all leaks of a kind are nearer to their films than any stranger to any."""
    leaks, strangers, nearest = searched(kind)
    apart = bool(leaks.min() > strangers.max() > 0.2)
    if kind == "blend":  # two films explain their mixture, which neither of them does
        return apart and bool(leaks.min() > 0.999)
    return apart and nearest == list(range(LEAKS))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_nearer_to_its_radiograph_than_strangers_are(kind):
    assert is_found(kind)


def unscaled(image: Image.Image) -> np.ndarray:
    small = image.resize((search.SIDE, search.SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / 255 / search.SIDE


def closest(images: torch.Tensor, films: torch.Tensor) -> torch.Tensor:
    return (images @ films.T).amax(dim=1)


@pytest.mark.parametrize(
    ("kind", "feature", "without"),
    [
        ("rotation", "TURNS", (0.0,)),
        ("crop", "INNER", (1.0,)),
        ("blend", "_mixture", closest),
        ("brighter", "normalised", unscaled),
    ],
)
def test_it_is_the_search_that_finds_them(kind, feature, without, monkeypatch):
    """Without what it does for a kind, the search takes a stranger's film for as near."""
    monkeypatch.setattr(search, feature, without)
    assert not is_found(kind)


def test_a_mirrored_copy_is_found_by_its_mirror_image_alone(monkeypatch):
    monkeypatch.setattr(ImageOps, "mirror", lambda image: image)
    with monkeypatch.context() as patched:
        patched.setattr("workflow_scripts.curate.leaks._CHANGES", {"flip": mirrored})
        assert not is_found("flip")


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@pytest.fixture
def by_heart(tmp_path):
    """Images of an overfitted model: two of each of three patients, in a folder with its table."""
    folder = tmp_path / "by_heart"
    folder.mkdir()
    lines = ["file_name,image_id"]
    for k in range(6):
        film(k // 2).save(folder / f"{k}.png")
        lines.append(f"{k}.png,film{k // 2}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def cohort(tmp_path, split="train"):
    rows = []
    for k in range(6):
        path = tmp_path / f"film{k}.png"
        film(k).save(path)
        own = split if k < 3 else ("train" if k < 4 else "test")
        rows.append((f"film{k}", f"patient{k}", str(path), own))
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "path", "split"])


def test_an_image_of_each_patient_of_an_overfitted_model_is_planted(by_heart, tmp_path):
    shard = tmp_path / "part-00000-of-00001.parquet"
    write_shard([ImageItem("a", "a.png", png_bytes(film(50)), "")], shard)
    manifest = cohort(tmp_path)
    planted = [
        (name, source)
        for name, _, source in candidates(manifest, [shard], 12, 10, 0, by_heart)
        if name.startswith(f"planted/{OVERFITTED}/")
    ]
    assert [name for name, _ in planted] == [f"planted/{OVERFITTED}/{k:05d}" for k in range(3)]
    assert sorted(source for _, source in planted) == ["film0", "film1", "film2"]
    # The other kinds are drawn as without it.
    drawn = {}
    for folder in (None, by_heart):
        drawn[folder] = {
            name: image.tobytes()
            for name, image, _ in candidates(manifest, [shard], 12, 10, 0, folder)
            if OVERFITTED not in name
        }
    assert drawn[None] == drawn[by_heart]


def test_images_of_an_overfitted_model_are_of_training_radiographs_that_are_there(
    by_heart, tmp_path
):
    with pytest.raises(InputError, match=r"6 of 6 images .* no radiograph of the training split"):
        drawn_overfitted(by_heart, cohort(tmp_path, "test"), 5, 0)
    (by_heart / "3.png").unlink()
    with pytest.raises(InputError, match=r"first '3\.png'"):
        drawn_overfitted(by_heart, cohort(tmp_path), 5, 0)
    (by_heart / "metadata.csv").write_text("file_name,image_id\n")
    with pytest.raises(InputError, match="no row"):
        drawn_overfitted(by_heart, cohort(tmp_path), 5, 0)
    (by_heart / "metadata.csv").write_text("file_name,prompt_id\n3.png,x\n")
    with pytest.raises(InputError, match="image_id"):
        drawn_overfitted(by_heart, cohort(tmp_path), 5, 0)
