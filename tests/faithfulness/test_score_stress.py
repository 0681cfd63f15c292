"""The scripts of the stress set on small networks: prompts, looking, scoring."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.downstream.conftest import SIZE, make_world
from tests.downstream.segmentation.conftest import random_cxas
from workflow_scripts.cohort import stress_prompts
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, png_bytes, write_shard
from workflow_scripts.common.manifest import read_prompts
from workflow_scripts.common.records import read_record
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.downstream.classification.network import write_network
from workflow_scripts.faithfulness import look_stress, score_stress
from workflow_scripts.faithfulness.organs import Labeller
from workflow_scripts.faithfulness.stress_measures import METRICS, SCORE_COLUMNS


def words(flags):
    return [word for key, value in flags.items() for word in (f"--{key}", str(value))]


def write_judge(path: Path, seed: int, **changes: object) -> None:
    """Write a classifier that nobody trained."""
    torch.manual_seed(seed)
    settings = {"size": SIZE, "batch_size": 16, "per_device_batch_size": None}
    run = {"setting": "real_only", "protocol": "sound", "seed": seed, "settings": settings}
    write_network(path, ResNet((1, 1, 1, 1), width=2, outputs=14), run | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort, judge and organs' networks, stress prompts and images of them, looked at."""
    world = make_world(tmp_path_factory.mktemp("stress"), n_patients=60)
    here = world.folder
    paths = {"attributes": here / "stress.parquet", "out": here / "prompts.parquet"}
    stress_prompts.main(words({"groups": 7, "csv": here / "prompts.csv", **paths}))
    write_judge(here / "judge.safetensors", 1)
    torch.save({"model": random_cxas((1, 1, 1, 1), 159).state_dict()}, here / "cxas.pth")
    rng = np.random.default_rng(0)
    write_shard(
        (
            ImageItem(i, f"{i}.png", png_bytes(Image.fromarray(pixels)), "caption", None)
            for i in read_prompts(here / "prompts.parquet")["prompt_id"]
            for pixels in [rng.integers(0, 256, (SIZE, SIZE), np.uint8)]
        ),
        here / "images.parquet",
    )
    look(here, "real", manifest=here / "manifest.parquet")
    look(here, "mine", prompts=here / "prompts.parquet", shards=here / "images.parquet")
    return here


def look(here, name, **changes):
    flags = {"collection": name, "protocol": "sound", "judges": here / "judge.safetensors"}
    flags |= {"cxas": here / "cxas.pth", "cxas-size": 32, "batch-size": 8}
    look_stress.main(words(flags | {"output": here / f"seen_{name}.parquet"} | changes))


def lungs_of(labeller, prepared, names):
    """Draw bright places as lungs, each in its half of the image."""
    bright = prepared[:, 0].numpy() > 128
    half = np.arange(bright.shape[2]) < bright.shape[2] // 2
    upper = (np.arange(bright.shape[1]) < bright.shape[1] // 2)[:, None]
    organs = {}
    for side, columns in (("left", ~half), ("right", half)):
        lung = bright & columns
        organs |= {f"{side}_lung": lung, f"{side}_upper_zone": lung & upper}
        organs[f"{side}_lower_zone"] = lung & ~upper
    return {name: organs[name] for name in names}


@pytest.fixture
def seen_in(folder, monkeypatch):
    """What is seen in one film, whose lungs `lungs_of` draws."""
    monkeypatch.setattr(look_stress, "draw_organs", lungs_of)
    cpu = torch.device("cpu")
    # Of 128 pixels the last map has 4 x 4 places.
    settings = {"size": 128, "batch_size": 16, "per_device_batch_size": None}
    write_judge(folder / "fine.safetensors", 3, settings=settings)
    judge = look_stress.Classifier([folder / "fine.safetensors"], "sound", cpu)

    def look_at(pixels):
        item = ImageItem("i", "i.png", png_bytes(Image.fromarray(pixels)))
        return look_stress._look_at([item], judge, Labeller(None, 64, 8, cpu))

    return look_at


def test_lungs_and_judge_see_the_same_frame_of_a_long_film(seen_in):
    film = np.random.default_rng(3).integers(0, 256, (96, 64), np.uint8)
    own, square = seen_in(film), seen_in(film[16:80])
    for name, values in square.items():
        assert own[name][0] == pytest.approx(values[0], abs=1e-6), name


def test_a_mirrored_films_sides_are_those_of_the_film_turned(seen_in):
    film = np.random.default_rng(4).integers(0, 256, (64, 64), np.uint8)
    film[:, 32:] //= 3  # fewer bright places on the right of the image
    film[::4, 32:] = 200
    own, turned = seen_in(film), seen_in(np.ascontiguousarray(film[:, ::-1]))
    for region in ("left", "right", "upper", "lower"):
        mirrored = own[f"mirrored_evidence_{region}"][0]
        assert mirrored == pytest.approx(turned[f"evidence_{region}"][0], abs=1e-4), region
    assert own["evidence_left"][0] != pytest.approx(own["evidence_right"][0], abs=1e-4)


def score(here, **changes):
    flags = {"model": "mine", "protocol": "sound", "stress": here / "stress.parquet"}
    flags |= {"manifest": here / "manifest.parquet", "seen": here / "seen_mine.parquet"}
    flags |= {"real": here / "seen_real.parquet", "bootstrap": 50, "seed": 1}
    flags |= {"scores": here / "scores.parquet", "output": here / "record.json"}
    score_stress.main(words(flags | changes))
    return read_record(here / "record.json")


def test_every_metric_is_in_the_record_and_every_prompt_has_a_score(folder):
    record = score(folder)
    assert (record.stage, record.family) == ("faithfulness", "stress")
    for metric in METRICS:
        value = record.get(metric.key)
        assert (value.value is None) == (value.reason is not None)
    assert "the rarer side that captions say" in record.get("stress_side_share").reason
    scores = pq.read_table(folder / "scores.parquet").to_pandas()
    assert list(scores.columns) == list(SCORE_COLUMNS)
    csv = pd.read_csv(folder / "prompts.csv")
    assert scores["prompt_id"].tolist() == csv["prompt_id"].tolist()
    assert scores["caption"].tolist() == csv["caption"].tolist()


def test_images_in_another_order_score_the_same(folder):
    before = score(folder).values
    seen = pq.read_table(folder / "seen_mine.parquet")
    turned = seen.take(np.arange(seen.num_rows)[::-1])
    pq.write_table(turned, folder / "turned.parquet")
    assert score(folder, seen=folder / "turned.parquet").values == before


def test_images_and_radiographs_of_different_judges_are_refused(folder):
    write_judge(folder / "other.safetensors", 2)
    look(
        folder,
        "mine",
        prompts=folder / "prompts.parquet",
        shards=folder / "images.parquet",
        judges=folder / "other.safetensors",
        output=folder / "seen_other.parquet",
    )
    with pytest.raises(InputError, match="looked at with different networks or settings"):
        score(folder, seen=folder / "seen_other.parquet")


def test_prompts_that_were_not_looked_at_are_refused(folder):
    seen = pq.read_table(folder / "seen_mine.parquet")
    pq.write_table(seen.slice(1), folder / "fewer.parquet")
    with pytest.raises(InputError, match="1 prompts of the stress set were not looked at"):
        score(folder, seen=folder / "fewer.parquet")


def test_a_file_that_is_no_stress_set_is_refused(folder):
    with pytest.raises(InputError, match="not a stress set of this version"):
        score(folder, stress=folder / "prompts.parquet")
    with pytest.raises(InputError, match="cannot read the stress set"):
        score(folder, stress=folder / "nothing.parquet")


def test_a_prompt_without_a_radiograph_is_from_a_template(folder):
    from workflow_scripts.common.manifest import write_prompts

    prompts = read_prompts(folder / "prompts.parquet")
    assert prompts["image_id"].isna().all()
    with pytest.raises(InputError, match="those from 'template' alone have none"):
        write_prompts(prompts.assign(caption_source="llava_rad"), folder / "wrong.parquet")
