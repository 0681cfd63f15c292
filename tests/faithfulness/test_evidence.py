"""What a judge sees, and where."""

import numpy as np
import pytest
import torch

from workflow_scripts.common.pixels import normalise, to_unit
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.faithfulness.evidence import (
    LUNGS,
    REGIONS,
    halves,
    lung_regions,
    read_images,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1), width=2, outputs=14).eval()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8)


def test_probabilities_are_the_networks_and_halves_add_up_to_the_logit(judge, pixels):
    seen = read_images([judge], pixels, halves(5), 2, CPU)
    with torch.no_grad():
        logits = judge(normalise(to_unit(pixels, CPU))).numpy()
    assert seen.probabilities == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    bias = judge.fc.bias.detach().numpy()
    for pair in (("left", "right"), ("upper", "lower")):
        both = (seen.evidence[pair[0]] + seen.evidence[pair[1]]) / 2
        assert both + bias == pytest.approx(logits, abs=1e-4)


def test_several_judges_count_alike(judge, pixels):
    torch.manual_seed(1)
    other = ResNet((1, 1, 1, 1), width=2, outputs=14).eval()
    one, two, both = (
        read_images(networks, pixels, halves(5), 8, CPU)
        for networks in ([judge], [other], [judge, other])
    )
    assert both.probabilities == pytest.approx((one.probabilities + two.probabilities) / 2)
    assert both.features.shape == (5, 2 * one.features.shape[1])


def test_the_patients_left_is_the_images_right():
    regions = halves(1, 4)
    assert regions["left"][0, 0].tolist() == [False, False, True, True]
    assert regions["upper"][0, :, 0].tolist() == [True, True, False, False]


def test_regions_are_lungs_and_zones_and_halves_where_a_lung_is_missing():
    organs = {name: np.zeros((2, 6, 6), bool) for name in LUNGS}
    organs["left_lung"][0, 1:4, 4:] = organs["right_lung"][0, 1:4, :2] = True
    organs["left_upper_zone"][0, 1, 4:] = organs["right_upper_zone"][0, 1, :2] = True
    organs["left_lower_zone"][0, 3, 4:] = organs["right_lower_zone"][0, 3, :2] = True
    organs["left_lung"][1, 1:4, 4:] = True  # the second image has no right lung
    regions = lung_regions(organs)
    assert regions["left"][0].sum() == 6
    assert regions["upper"][0].sum() == regions["lower"][0].sum() == 4
    assert not (regions["upper"][0] & regions["lower"][0]).any()
    plain = halves(1, 6)
    assert all((regions[name][1] == plain[name][0]).all() for name in REGIONS)


def test_a_speck_is_no_lung():
    organs = {name: np.zeros((1, 100, 100), bool) for name in LUNGS}
    organs["left_lung"][0, 10:90, 60:90] = organs["left_upper_zone"][0, 10:36, 60:90] = True
    organs["right_lung"][0, 5, 5:9] = True  # 4 pixels of 10,000; LEAST_SHARE is 5
    regions = lung_regions(organs)
    assert all((regions[name][0] == halves(1, 100)[name][0]).all() for name in REGIONS)


def test_evidence_is_the_maps_mean_over_a_region(judge, pixels):
    corner = {name: np.zeros((5, 64, 64), bool) for name in REGIONS}
    for mask in corner.values():
        mask[:, :32, 32:] = True
    seen = read_images([judge], pixels, corner, 5, CPU)
    with torch.no_grad():
        maps = judge.features(normalise(to_unit(pixels, CPU)))
        expected = torch.einsum("nc,kc->nk", maps[:, :, 0, 1], judge.fc.weight).numpy()
    assert seen.evidence["left"] == pytest.approx(expected, abs=1e-5)
