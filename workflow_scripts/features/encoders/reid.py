"""The re-identification network: a Siamese ResNet-50 (Packhaeuser et al., 2022).

`weights` is ResNet-50_epoch11_data_handling_RPN.pth: a state dict of 322 tensors, with `model.*` (a
ResNet-50 whose `fc` has 128 outputs) and `fc_end` (128 to 1). The cached feature is one branch,
sigmoid(model(image)), 128 wide. Two images score sigmoid(fc_end(|a - b|)), the probability that
they show one patient. `fc_end` is stored with the features, so scoring needs no weights.

Under `sound`, preprocessing is that of the network's training: squashed to 256 x 256, bilinear,
1/255, ImageNet's mean and standard deviation. The official release evaluates the network at
224 x 224 without mean and standard deviation, on images squashed to 512 x 512 (`as_published`). A
`preprocessor_config.json` beside the weights may give another size, for a smaller network; under
`as_published` 7/8 of that is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Resampling
from torch import Tensor, nn

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.resnet import ResNet, resnet_for
from workflow_scripts.common.speed import Takes
from workflow_scripts.features.encoders.layout import check_shapes, need, strip_prefix
from workflow_scripts.features.encoders.transform import (
    SIDECAR,
    ImageTransform,
    published_squash,
    read_transform,
    to_device,
)

PUBLISHED: Final = ImageTransform(
    size=(256, 256),
    crop=None,
    resample=Resampling.BILINEAR,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


class SiameseNetwork(nn.Module):
    """The network, in the key layout of the published code.

    Args:
        model: a ResNet whose `fc` gives the branch's features; published 128.
    """

    def __init__(self, model: ResNet):
        super().__init__()
        self.model = model
        self.fc_end = nn.Linear(model.fc.out_features, 1)

    def branch(self, x: Tensor) -> Tensor:
        """Map images (n, 3, h, w) to features in (0, 1), (n, 128)."""
        return torch.sigmoid(self.model(x))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the logit, (n,), that x[i] and y[i] show one patient."""
        # Both in one pass, so that batch normalisation treats them alike.
        a, b = self.branch(torch.cat([x, y])).chunk(2)
        return self.fc_end((a - b).abs())[:, 0]


def siamese_for(state: Mapping[str, Tensor], path: Path) -> SiameseNetwork:
    """Build the network with the widths of `state`.

    Raises:
        InputError: a key that gives a width is missing.
    """
    try:
        return SiameseNetwork(resnet_for(strip_prefix(state, "model.")))
    except KeyError as error:
        need(state, f"model.{error.args[0]}", path)
        raise


def files(weights: Path) -> list[Path]:
    """Return the files that the features depend on, besides the sizes in the preprocessing."""
    return [weights]


def check(weights: Path) -> None:
    """Check every tensor's name and shape, and the sidecar file beside the weights, if any.

    Raises:
        InputError: see `Encoder`'s package.
    """
    state = load_state(weights)
    with torch.device("meta"):
        network = siamese_for(state, weights)
    check_shapes(
        {key: tuple(value.shape) for key, value in state.items()},
        {key: tuple(value.shape) for key, value in network.state_dict().items()},
        weights,
    )
    _transform(weights, Deviations(), "privacy")


class ReId:
    """The encoder; see the module."""

    name = "reid"
    reads = "image"
    takes = Takes(
        compile=("network",),
        channels_last=True,
        why="it has no attention, and no blocks that are alike",
    )

    def __init__(self, network: SiameseNetwork, transform: ImageTransform, device: torch.device):
        self.network = network.eval().to(device)
        self.computes = network.model
        self.transform = transform
        self.device = device
        self.dimension = int(network.fc_end.in_features)
        self.preprocessing = transform.describe()
        self.extras: dict[str, NDArray[np.float32]] = {
            "fc_end_weight": network.fc_end.weight.detach().float().cpu().numpy(),
            "fc_end_bias": network.fc_end.bias.detach().float().cpu().numpy(),
        }

    def prepare(self, source: Any) -> Tensor:
        """Map an image to float32 (3, h, w)."""
        return self.transform(source)

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> NDArray[np.float32]:
        """Map n images to branch features in (0, 1), (n, 128)."""
        return self.network.branch(to_device(batch, self.device)).float().cpu().numpy()


def load(weights: Path, device: torch.device, switches: Deviations, purpose: str) -> ReId:
    """Load the network from its state dict.

    Raises:
        InputError: see `check`.
    """
    state = load_state(weights)
    network = siamese_for(state, weights)
    load_exactly(network, state, weights)
    return ReId(network, _transform(weights, switches, purpose), device)


def _transform(weights: Path, switches: Deviations, purpose: str) -> ImageTransform:
    sidecar = weights.parent / SIDECAR
    transform = read_transform(sidecar, PUBLISHED) if sidecar.exists() else PUBLISHED
    if switches.reid_without_normalisation:
        height, width = (
            (transform.size, transform.size) if isinstance(transform.size, int) else transform.size
        )
        transform = replace(
            transform,
            size=(height * 7 // 8, width * 7 // 8),
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )
    if purpose == "privacy":
        transform = replace(transform, squash=published_squash(purpose, switches))
    return transform
