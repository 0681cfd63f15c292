"""A judge's readings of an image: probabilities, evidence by region, and features.

The judge is a ResNet whose logit is a linear function of the mean of its last feature map. So the
logit is exactly the mean of a map over all positions, the class activation map (Zhou et al., 2016),
plus the bias. The evidence of a finding in a region is the mean of this map over the region, in
logits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from workflow_scripts.common.pixels import normalise, to_unit
from workflow_scripts.faithfulness.organs import LEAST_SHARE

REGIONS: Final = ("left", "right", "upper", "lower")
"""Left and right are the patient's; the patient's left is on the image's right."""

LUNGS: Final = (
    "left_lung",
    "right_lung",
    *(f"{side}_{zone}_zone" for side in ("left", "right") for zone in ("upper", "lower")),
)
"""The organs from which REGIONS are made, by their names in `organs`."""


@dataclass(frozen=True)
class Readings:
    """A judge's readings of n images.

    Attributes:
        probabilities: (n, findings), in [0, 1].
        evidence: (n, findings), in logits, by the names of REGIONS.
        features: (n, channels), the means of the last feature map.
    """

    probabilities: np.ndarray
    evidence: Mapping[str, np.ndarray]
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.probabilities)

    def rows(self, chosen: np.ndarray) -> "Readings":
        """Return the readings of some images, chosen by indices or a mask."""
        evidence = {name: values[chosen] for name, values in self.evidence.items()}
        return Readings(self.probabilities[chosen], evidence, self.features[chosen])


def halves(n: int, size: int = 2) -> dict[str, np.ndarray]:
    """Return the halves of images as REGIONS, bool (n, size, size), if no organs are known."""
    place = np.arange(size) < size // 2
    left = np.broadcast_to(~place[None, None, :], (n, size, size))
    upper = np.broadcast_to(place[None, :, None], (n, size, size))
    return {"left": left, "right": ~left, "upper": upper, "lower": ~upper}


def lung_regions(organs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return REGIONS from the lungs: each lung, and the upper and the lower zones of both.

    If an image lacks a lung, or a lung is a speck (LEAST_SHARE), its halves are used for all four
    regions, because one lung alone does not define sides.

    Args:
        organs: the masks of LUNGS, bool (n, size, size) each, see `organs.organ_masks`.
    """
    left, right = organs["left_lung"], organs["right_lung"]
    n, size, _ = left.shape
    regions = {
        "left": left,
        "right": right,
        "upper": organs["left_upper_zone"] | organs["right_upper_zone"],
        "lower": organs["left_lower_zone"] | organs["right_lower_zone"],
    }
    both = np.minimum(left.mean((1, 2)), right.mean((1, 2))) > LEAST_SHARE
    fallback = halves(n, size)
    return {name: np.where(both[:, None, None], regions[name], fallback[name]) for name in REGIONS}


@torch.no_grad()
def read_images(
    networks: Sequence[Any],
    pixels: np.ndarray,
    regions: Mapping[str, np.ndarray],
    batch_size: int,
    device: torch.device,
) -> Readings:
    """Return the readings of several networks: their mean, and the features of all.

    Args:
        networks: `ResNet`s with one output per finding.
        pixels: uint8 (n, size, size).
        regions: bool (n, h, w), of any size, by the names of REGIONS. An empty region counts as the
            whole image.
        batch_size: number of images computed at a time.
        device: the device that computes.
    """
    readings: list[np.ndarray] = []
    features: list[np.ndarray] = []
    for network in networks:
        network.to(device).eval()
        parts, means = [], []
        for start in range(0, len(pixels), batch_size):
            part = slice(start, start + batch_size)
            maps = network.features(normalise(to_unit(pixels[part], device)))
            shares = torch.einsum("nchw,kc->nkhw", maps, network.fc.weight)
            columns = [torch.sigmoid(shares.mean((2, 3)) + network.fc.bias)]
            for name in REGIONS:
                mask = torch.from_numpy(np.ascontiguousarray(regions[name][part])).to(device)
                columns.append(_means(shares, mask.float()))
            parts.append(torch.stack(columns).cpu().numpy())
            means.append(maps.mean((2, 3)).cpu().numpy())
        readings.append(np.concatenate(parts, axis=1))
        features.append(np.concatenate(means))
    mean = np.stack(readings).mean(axis=0, dtype=np.float64)
    evidence = {name: mean[k + 1] for k, name in enumerate(REGIONS)}
    return Readings(mean[0], evidence, np.concatenate(features, axis=1))


def _means(shares: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the means (n, k) of maps (n, k, h, w) over masks (n, H, W), weighted by area."""
    weights = functional.interpolate(mask[:, None], size=shares.shape[2:], mode="area")
    empty = weights.sum((2, 3), keepdim=True) == 0
    weights = torch.where(empty, torch.ones_like(weights), weights)
    return (shares * weights).sum((2, 3)) / weights.sum((2, 3))
