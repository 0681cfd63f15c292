"""The images that get masks, and masks equal to the network's output for their image."""

from pathlib import Path

import numpy as np
import pytest
import torch

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_prompts, write_manifest
from workflow_scripts.common.pixels import normalise
from workflow_scripts.downstream.segmentation import label
from workflow_scripts.downstream.segmentation.cxas import draw_masks, load_cxas, prepare
from workflow_scripts.downstream.segmentation.masks import open_mask, read_masks

from .conftest import random_cxas


@pytest.fixture(scope="module")
def weights(world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that segments half of an image."""
    path = tmp_path_factory.mktemp("weights") / "UNet_ResNet50_default.pth"
    network = random_cxas((1, 1, 1, 1), classes=6)
    picture = prepare(world.images[world.test_ids[3]].convert("RGB"), 64)[None]
    with torch.no_grad():
        logits = network(normalise(picture.float() / 255))
        network.head.out.conv.bias -= logits.flatten(2).median(2).values[0]
    torch.save({"model": network.state_dict()}, path)
    return path


def run(world, weights: Path, model: str, shards=(), **changes: object):
    path = world.folder / "labelled" / f"{model}.parquet"
    flags = {
        "model": model,
        "manifest": world.folder / "manifest.parquet",
        "prompts": world.folder / "augment.parquet",
        "weights": weights,
        "size": 64,
        "batch_size": 7,
        "images": 20,
        "draw_seed": 4,
        "output": path,
    } | changes
    words = ["--classes", "2", "3"]
    for key, value in flags.items():
        words += ["--" + key.replace("_", "-"), str(value)]
    if shards:
        words += ["--shards", *map(str, shards)]
    label.main(words)
    return read_masks(path)


def test_the_same_prompts_are_drawn_for_radiographs_and_models(world, weights):
    real = run(world, weights, "real")
    copies = world.model("copies", lambda image: image)
    model = run(world, weights, "copies", copies["shards"])
    image_of = dict(zip(world.prompts["prompt_id"], world.prompts["image_id"], strict=True))
    assert len(model.by_id) == model.run["draw"]["images"] == 20
    assert list(real.by_id)[:20] == [image_of[prompt] for prompt in model.by_id]
    assert list(real.by_id)[20:] == world.test_ids
    assert real.run["draw"] == model.run["draw"]
    for prompt, mask in model.by_id.items():  # a copy has its radiograph's mask
        assert mask.png == real.by_id[image_of[prompt]].png
        assert mask.image_size == (32, 32)
    other = run(world, weights, "real", draw_seed=5)
    assert list(other.by_id)[:20] != list(real.by_id)[:20]


def test_a_mask_is_what_the_network_draws(world, weights):
    masks = run(world, weights, "real")
    network = load_cxas(weights)
    name = world.test_ids[3]
    prepared = prepare(world.images[name].convert("RGB"), 64)[None]
    expected = draw_masks(network, prepared, [2, 3])[0]
    assert 0 < expected.mean() < 1
    assert (np.asarray(open_mask(masks.by_id[name].png, name)) == 255 * expected).all()
    drawn = [np.asarray(open_mask(mask.png, mask.id)) for mask in masks.by_id.values()]
    assert masks.run["n_empty"] == sum(not mask.any() for mask in drawn)
    assert masks.run["labeller"]["classes"] == [2, 3]


def test_fewer_prompts_than_asked_for_are_all_drawn(world, weights):
    masks = run(world, weights, "real", images=5000)
    assert masks.run["draw"]["images"] == len(world.prompts)
    assert masks.run["draw"]["asked_for"] == 5000
    assert len(masks.by_id) == len(world.prompts) + len(world.test_ids)


def test_faulty_input_is_refused(world, weights, tmp_path, capsys):
    with pytest.raises(InputError, match="of a network with 6"):
        label.main(
            "--model real --manifest m --prompts p --size 64 --batch-size 1 --images 2 "
            f"--draw-seed 1 --classes 6 --weights {weights} --output {tmp_path / 'x'}".split()
        )
    leaking = world.manifest.assign(split="test")
    write_manifest(leaking, tmp_path / "manifest.parquet")
    with pytest.raises(InputError, match="of the test split"):
        run(world, weights, "real", manifest=tmp_path / "manifest.parquet")
    without = world.manifest.assign(split="train")
    write_manifest(without, tmp_path / "manifest.parquet")
    with pytest.raises(InputError, match="no image in the test split"):
        run(world, weights, "real", manifest=tmp_path / "manifest.parquet")
    with pytest.raises(SystemExit):
        run(world, weights, "copies")
    assert "give --shards with the key of a model" in capsys.readouterr().err


def test_drawing_keeps_the_order_of_the_prompts(world):
    prompts = read_prompts(world.folder / "augment.parquet")
    drawn = label.drawn_prompts(prompts, 10, 1)
    assert drawn["prompt_id"].is_monotonic_increasing
    assert len(set(drawn["prompt_id"])) == 10
