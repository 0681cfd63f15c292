"""What a judge sees, and where: probabilities, evidence by region, and a description of an image.

The judge is a ResNet whose logit is a linear function of the mean of its last feature map. So each
place of that map has a share of the logit of its own, exactly: the class activation map (Zhou et
al., 2016). The evidence of a finding in a region is the mean of its map over the region, in logits:
the logit, less the bias, is the mean over all places.
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
"""Left and right are the patient's: the patient's left is the image's right."""

LUNGS: Final = (
    "left_lung",
    "right_lung",
    *(f"{side}_{zone}_zone" for side in ("left", "right") for zone in ("upper", "lower")),
)
"""The organs that REGIONS are made of, as `organs` names them."""


@dataclass(frozen=True)
class Readings:
    """What a judge says of images.

    Attributes:
        probabilities: (n, findings), in [0, 1].
        evidence: by REGIONS, (n, findings), logits.
        features: (n, channels), the means of the last feature map.
    """

    probabilities: np.ndarray
    evidence: Mapping[str, np.ndarray]
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.probabilities)

    def rows(self, chosen: np.ndarray) -> "Readings":
        """Return the readings of some images: indices or a mask."""
        own = {name: values[chosen] for name, values in self.evidence.items()}
        return Readings(self.probabilities[chosen], own, self.features[chosen])


def halves(n: int, size: int = 2) -> dict[str, np.ndarray]:
    """Return the halves of images as REGIONS, bool (n, size, size), where nothing says more."""
    place = np.arange(size) < size // 2
    left = np.broadcast_to(~place[None, None, :], (n, size, size))
    upper = np.broadcast_to(place[None, :, None], (n, size, size))
    return {"left": left, "right": ~left, "upper": upper, "lower": ~upper}


def lung_regions(organs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return REGIONS from the lungs: each lung, the upper zones of both, the lower zones of both.

    Where a lung is missing in an image, or but a speck (LEAST_SHARE), that image's halves stand for
    all four: one lung alone says nothing of sides.

    Args:
        organs: LUNGS, bool (n, size, size) each, see `organs.organ_masks`.
    """
    left, right = organs["left_lung"], organs["right_lung"]
    n, size, _ = left.shape
    own = {
        "left": left,
        "right": right,
        "upper": organs["left_upper_zone"] | organs["right_upper_zone"],
        "lower": organs["left_lower_zone"] | organs["right_lower_zone"],
    }
    seen = np.minimum(left.mean((1, 2)), right.mean((1, 2))) > LEAST_SHARE
    whole = seen[:, None, None]
    fallback = halves(n, size)
    return {name: np.where(whole, own[name], fallback[name]) for name in REGIONS}


@torch.no_grad()
def read_images(
    networks: Sequence[Any],
    pixels: np.ndarray,
    regions: Mapping[str, np.ndarray],
    batch_size: int,
    device: torch.device,
) -> Readings:
    """Return what judges of one architecture say of images, the mean over judges.

    Args:
        networks: `ResNet`s with one output per finding.
        pixels: uint8 (n, size, size).
        regions: by REGIONS, bool (n, h, w), of any size; an empty one counts as the whole image.
        batch_size: images at a time.
        device: where they are computed.
    """
    total: list[np.ndarray] = []
    features: list[np.ndarray] = []
    for network in networks:
        network.to(device).eval()
        parts, described = [], []
        for start in range(0, len(pixels), batch_size):
            part = slice(start, start + batch_size)
            maps = network.features(normalise(to_unit(pixels[part], device)))
            shares = torch.einsum("nchw,kc->nkhw", maps, network.fc.weight)
            columns = [torch.sigmoid(shares.mean((2, 3)) + network.fc.bias)]
            for name in REGIONS:
                mask = torch.from_numpy(np.ascontiguousarray(regions[name][part])).to(device)
                columns.append(_means(shares, mask.float()))
            parts.append(torch.stack(columns).cpu().numpy())
            described.append(maps.mean((2, 3)).cpu().numpy())
        total.append(np.concatenate(parts, axis=1))
        features.append(np.concatenate(described))
    mean = np.stack(total).mean(axis=0, dtype=np.float64)
    evidence = {name: mean[k + 1] for k, name in enumerate(REGIONS)}
    return Readings(mean[0], evidence, np.concatenate(features, axis=1))


def _means(shares: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the means (n, k) of maps (n, k, h, w) over masks (n, H, W), by the areas covered."""
    weights = functional.interpolate(mask[:, None], size=shares.shape[2:], mode="area")
    empty = weights.sum((2, 3), keepdim=True) == 0
    weights = torch.where(empty, torch.ones_like(weights), weights)
    return (shares * weights).sum((2, 3)) / weights.sum((2, 3))
