"""Organs by name: zones are the lung, masks survive packing, the labeller's error by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional

from tests.downstream.segmentation.conftest import random_cxas
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.images import ImageItem, png_bytes
from workflow_scripts.downstream.segmentation.cxas import draw_masks, prepare
from workflow_scripts.faithfulness.classes import CLASSES, NAMES, RIBS
from workflow_scripts.faithfulness.look import look_at
from workflow_scripts.faithfulness.organs import (
    LEAST_SHARE,
    ORGANS,
    ZONES,
    Labeller,
    draw_and_find,
    load_labeller,
    organ_masks,
)
from workflow_scripts.faithfulness.presence import largest_piece, present
from workflow_scripts.faithfulness.score_labeller import exact_organs, labeller_values
from workflow_scripts.faithfulness.seen import (
    COMPARED,
    KEPT_SIDE,
    pack_organs,
    unpack_organs,
    unpack_structures,
)
from workflow_scripts.preflight.check import check_organs
from workflow_scripts.world.pictures import organ_bytes

SIZE = 64


@pytest.fixture(scope="module")
def labeller():
    network = random_cxas((1, 1, 1, 1), 159)
    return Labeller(network, SIZE, 3, torch.device("cpu"))


def pictures(n):
    rng = np.random.default_rng(2)
    return [Image.fromarray(rng.integers(0, 255, (80, 90)).astype(np.uint8)) for _ in range(n)]


def test_the_classes_are_those_of_cxas():
    # CXAS's id2label_dict, by hand.
    published = {"heart": 121, "right_lung": 135, "left_lung": 136}
    assert published | {"left_clavicle": 31, "right_clavicle": 32} == CLASSES


def test_a_shards_organs_are_what_the_labeller_draws_and_zones_make_up_the_lungs(labeller):
    items = [ImageItem(f"i{k}", f"i{k}.png", png_bytes(x)) for k, x in enumerate(pictures(7))]
    found: dict[str, list[np.ndarray]] = {}
    ids = []
    for names, masks in organ_masks(iter(items), labeller, threads=2):
        ids += names
        assert set(masks) == set(ORGANS)
        for name, drawn in masks.items():
            assert drawn.shape == (len(names), SIZE, SIZE)
            found.setdefault(name, []).extend(drawn)
    assert ids == [item.id for item in items]
    prepared = torch.stack([prepare(item.open(), SIZE) for item in items])
    for name, number in CLASSES.items():
        assert (np.stack(found[name]) == draw_masks(labeller.network, prepared, [number])).all()
    assert np.stack(found["right_lung"]).any()
    for side in ("right", "left"):
        zones = np.stack([found[f"{side}_{zone}_zone"] for zone in ZONES])
        assert (zones.sum(axis=0) == np.stack(found[f"{side}_lung"])).all()
    with pytest.raises(KeyError, match="spleen"):
        next(organ_masks(iter(items), labeller, ["spleen"]))


def test_a_zone_is_a_third_of_the_lungs_height_from_above(labeller):
    network = labeller.network
    prepared = torch.stack([prepare(image, SIZE) for image in pictures(2)])
    masks, _ = draw_and_find(labeller, prepared, ["left_lung", "left_upper_zone"])
    for lung, zone in zip(masks["left_lung"], masks["left_upper_zone"], strict=True):
        rows = np.flatnonzero(largest_piece(lung).any(axis=1))
        if len(rows):
            end = rows[0] + (rows[-1] + 1 - rows[0]) // 3
            assert (zone == lung & (np.arange(SIZE) < end)[:, None]).all()
    assert network.classes > max(RIBS)


def test_a_class_that_is_drawn_is_found_and_no_other():
    prepared = torch.stack([prepare(image, SIZE) for image in pictures(2)])
    network = random_cxas((1, 1, 1, 1), 159)
    drawn = [0, 31, RIBS[0], RIBS[5], 158]
    last = network.head.out.conv
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-3.0)
        last.bias[drawn] = 3.0
    _, present = draw_and_find(Labeller(network, SIZE, 2, torch.device("cpu")), prepared)
    assert [np.flatnonzero(image).tolist() for image in present] == [drawn, drawn]
    found = look_at(
        [(ImageItem("i", ""), image, [], None) for image in prepared],
        [],
        Labeller(network, SIZE, 2, torch.device("cpu")),
    )
    assert found["ribs"] == [2, 2]
    assert (unpack_structures(found["structures"])[:, :159] == present).all()


class Brightness(torch.nn.Module):
    """A labeller that draws class k where an image's gray value is 1 + k; its map is a quarter."""

    classes = 159

    def backbone(self, x):
        return x

    def head(self, x, classes):
        gray = (x[:, 0] * 0.229 + 0.485) * 255
        numbers = torch.arange(self.classes) if classes is None else torch.tensor(classes)
        apart = (gray[:, None] - 1 - numbers[:, None, None]).abs()
        return functional.avg_pool2d(0.5 - (apart > 0.5).float(), 4)


def in_tiles(classes, side=SIZE, tile=16):
    """Return an image with a square of each class; all else is black."""
    gray = np.zeros((side, side), np.uint8)
    for place, number in enumerate(classes):
        row, column = divmod(place * tile, side)
        gray[row * tile : (row + 1) * tile, column : column + tile] = 1 + number
    return Image.fromarray(gray)


def test_a_structure_that_is_blacked_out_is_lost_and_no_other():
    labeller = Labeller(Brightness(), SIZE, 20, torch.device("cpu"))
    there = [*CLASSES.values(), 7, RIBS[0], RIBS[-1], 158]
    whole = in_tiles(there)
    without = []
    for number in there:
        gray = np.array(whole)
        gray[gray == 1 + number] = 0
        without.append(Image.fromarray(gray))
    prepared = torch.stack([prepare(image, SIZE) for image in (whole, *without)])
    masks, present = draw_and_find(labeller, prepared)
    assert np.flatnonzero(present[0]).tolist() == sorted(there)
    for number, image in zip(there, present[1:], strict=True):
        assert np.flatnonzero(present[0] != image).tolist() == [number]
    # Directly, on the masks at full size:
    for name, number in CLASSES.items():
        assert (masks[name].mean((1, 2)) > LEAST_SHARE).tolist() == present[:, number].tolist()


def test_the_organs_are_found_as_at_full_size():
    side, rng = 256, np.random.default_rng(2)
    coarse = [Image.fromarray(rng.integers(0, 255, (8, 8)).astype(np.uint8)) for _ in range(6)]
    images = [image.resize((side, side), Image.Resampling.BICUBIC) for image in coarse]
    prepared = torch.stack([prepare(image, side) for image in images])
    network = random_cxas((1, 1, 1, 1), 159)
    found = 0
    for shift in (-3.0, -1.0, -0.5, 0.0):
        with torch.no_grad():
            network.head.out.conv.bias.fill_(shift)
        masks, there = draw_and_find(Labeller(network, side, 6, torch.device("cpu")), prepared)
        for name, number in CLASSES.items():
            share = np.array([largest_piece(mask).mean() for mask in masks[name]])
            assert (there[:, number] == (share > LEAST_SHARE)).all()
            found += there[:, number].sum()
    assert 30 < found < 90


@pytest.mark.parametrize("side", [16, 48, 128])
@pytest.mark.parametrize("smooth", [0.0, 0.7, 1.5])
def test_the_map_says_what_every_mask_at_full_size_would(side, smooth):
    """Of noise, specks, strips and blobs, near the limit and far from it."""
    rng = np.random.default_rng(side)
    logits = ndimage.gaussian_filter(rng.normal(size=(3, 40, side, side)), (0, 0, smooth, smooth))
    logits -= np.quantile(logits, np.linspace(0.4, 1, 40))[:, None, None]
    logits[:, :5] = -1
    logits[0, 1, side // 2, : side // 2] = logits[0, 2, : side // 2, side // 2] = 1
    logits[0, 3, ::2, ::2] = 1  # many specks
    logits[0, 4, 0, 0] = 40
    fine = torch.from_numpy(logits.astype(np.float32))
    whole = functional.interpolate(fine, scale_factor=4, mode="bilinear", align_corners=False) > 0
    pieces = [[largest_piece(mask).mean() for mask in image] for image in whole.numpy()]
    expected = np.array(pieces) > LEAST_SHARE
    found = present(fine, 4, LEAST_SHARE)
    assert (found == expected).all()
    assert found[0, 1]
    assert found[0, 2]
    assert not found[1, 0]
    assert found[0, 3] == (side == 16)
    assert 0.1 < found[:, 5:].mean() < 0.98


def test_a_piece_is_not_enlarged_by_the_end_of_another_ones_neighbourhood():
    logits = -np.ones((1, 2, 48, 48), np.float32)
    logits[0, 0, range(10, 15), range(10, 15)] = 0.01
    logits[0, 0, 9, 14] = 1.8  # 16 pixels at full size; it would be 20 if the map ended here
    fine = torch.from_numpy(logits)
    whole = functional.interpolate(fine, scale_factor=4, mode="bilinear", align_corners=False)[0, 0]
    assert largest_piece(whole.numpy() > 0).sum() == 16 < LEAST_SHARE * 192**2 < 20
    assert not present(fine, 4, LEAST_SHARE).any()
    assert not present(fine[:, 1:], 4, LEAST_SHARE).any()


def test_names_are_of_the_networks_classes():
    assert {NAMES[number] for number in RIBS} == {"rib"}
    assert NAMES[121] == "heart"
    assert len(NAMES) == 5 + 1 + 36


def test_a_network_without_these_organs_is_refused(tmp_path):
    torch.save({"model": random_cxas((1, 1, 1, 1), 40).state_dict()}, tmp_path / "few.pth")
    with pytest.raises(InputError, match="of a network with 40"):
        load_labeller(tmp_path / "few.pth", SIZE, 2, torch.device("cpu"))
    with pytest.raises(InputError, match="of a network with 40"):
        check_organs(tmp_path / "few.pth")


def test_the_largest_piece_is_kept():
    mask = np.zeros((20, 20), bool)
    mask[2:8, 2:8] = mask[15, 15] = mask[8, 8] = True
    kept = largest_piece(mask)
    assert kept.sum() == 36
    assert not kept[15, 15]


def test_packed_organs_come_back():
    rng = np.random.default_rng(0)
    masks = {name: rng.random((2, KEPT_SIDE, KEPT_SIDE)) < 0.4 for name in COMPARED}
    for k, packed in enumerate(pack_organs(masks)):
        assert (unpack_organs(packed) == np.stack([masks[name][k] for name in COMPARED])).all()


def test_the_labellers_error_by_hand(tmp_path):
    def organs(heart_end):
        masks = np.zeros((3, 96, 96), bool)
        masks[0, 20:80, 10:40] = masks[1, 20:80, 56:86] = True  # right and left lung
        masks[2, 50:80, 35:heart_end] = True
        return masks

    names = [f"i{k}" for k in range(24)]
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(organ_bytes(organs(65)))
    drawn = organs(70)
    packed = pack_organs(
        dict(zip(("right_lung", "left_lung", "heart"), drawn[:, None], strict=True))
    )
    rows = pd.DataFrame(
        {"id": names, "patient_id": names, "organs": packed * 24, "ratio": 35 / 76}, index=names
    )
    found = {value.metric: value.value for value in labeller_values(rows, tmp_path)}
    assert found["heart_dice_exact"] == pytest.approx(2 * 30 / (30 + 35))
    assert found["right_lung_dice_exact"] == found["left_lung_dice_exact"] == 1
    assert found["ratio_error_exact"] == pytest.approx(5 / 76)
    assert found["ratio_bias_exact"] == pytest.approx(5 / 76)
    with pytest.raises(InputError, match="no organs of any of the 24"):
        labeller_values(rows, tmp_path / "nowhere")


def test_exact_masks_of_a_long_film_are_its_central_square(tmp_path):
    masks = np.zeros((3, 60, 40), bool)
    masks[0, 15:25, 2:10] = masks[1, 15:25, 30:38] = masks[2, 20:30, 12:28] = True
    masks[2, :5] = True  # outside the square
    (tmp_path / "i.png").write_bytes(organ_bytes(masks))
    exact = exact_organs(tmp_path / "i.png")
    assert (exact["heart"] == masks[2, 10:50]).all()
    assert (exact["right_lung"] == masks[0, 10:50]).all()


def test_an_organ_that_neither_the_labeller_nor_the_truth_has_is_no_error(tmp_path):
    masks = np.zeros((3, 96, 96), bool)
    masks[0, 20:80, 10:40] = masks[1, 20:80, 56:86] = True  # no heart
    names = [f"i{k}" for k in range(24)]
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(organ_bytes(masks))
    packed = pack_organs(
        dict(zip(("right_lung", "left_lung", "heart"), masks[:, None], strict=True))
    )
    rows = pd.DataFrame(
        {"id": names, "patient_id": names, "organs": packed * 24, "ratio": np.nan}, index=names
    )
    found = {value.metric: value for value in labeller_values(rows, tmp_path)}
    assert found["right_lung_dice_exact"].value == 1
    assert found["heart_dice_exact"].value is None
    assert found["heart_dice_exact"].reason is not None
