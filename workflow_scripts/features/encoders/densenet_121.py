"""DenseNet-121 trained on chest radiographs (Cohen et al., 2022), for the paper's encoder ablation.

`weights` holds the tensors of torchxrayvision's densenet121-res224-mimic_ch (trained on CheXpert
labels of MIMIC-CXR): 727 tensors, one input channel, 18 outputs. The published file is a pickled
model object, which is never unpickled here: `python -m
workflow_scripts.features.convert_torchxrayvision` converts it to safetensors. The feature is
torchxrayvision's `features2`: the last normalisation, ReLU and the mean over all positions, 1024
wide.

Preprocessing follows torchxrayvision's `normalize`, `XRayCenterCrop` and `XRayResizer`: gray values
0..255 are mapped to -1024..1024; the central square of the shorter side is resized to 224 x 224 by
scikit-image's `resize` (when shrinking, a Gaussian blur of sigma (factor - 1) / 2; then bilinear,
with 0 outside the image).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.errors import InputError
from workflow_scripts.features.encoders.layout import check_shapes
from workflow_scripts.features.encoders.transform import published_squash, to_device

SIDE: Final = 224
LAYERS: Final = (6, 12, 24, 16)
GROWTH: Final = 32
OUTPUTS: Final = 18
OPTIONAL: Final = ("op_threshs",)
"""Thresholds of the classifier, which some of the published objects have."""


class _Layer(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), _conv(channels, 4 * GROWTH, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * GROWTH), _conv(4 * GROWTH, GROWTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(narrow)))], dim=1)


class _Transition(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), _conv(channels, channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(functional.relu(self.norm(x))), 2)


class DenseNet121(nn.Module):
    """The network in the published key layout (Huang et al., 2017), with one input channel."""

    def __init__(self) -> None:
        super().__init__()
        channels = 2 * GROWTH
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(1, channels, 7, 2, 3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(channels))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        for block, layers in enumerate(LAYERS, 1):
            dense = nn.Sequential()
            for layer in range(1, layers + 1):
                dense.add_module(f"denselayer{layer}", _Layer(channels))
                channels += GROWTH
            self.features.add_module(f"denseblock{block}", dense)
            if block < len(LAYERS):
                self.features.add_module(f"transition{block}", _Transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Map gray images (n, 1, 224, 224) in [-1024, 1024] to features (n, 1024)."""
        return functional.relu(self.features(x)).mean(dim=(2, 3))


def _conv(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)


def files(weights: Path) -> list[Path]:
    """Return the files that the features depend on."""
    return [weights]


def check(weights: Path) -> None:
    """Check every tensor's name and shape.

    Raises:
        InputError: see `Encoder`'s package; or the file is a pickled model object (the message says
            how to convert it).
    """
    _state(weights)


def _state(weights: Path) -> dict[str, Tensor]:
    try:
        state = load_state(weights)
    except InputError as error:
        if not error.what.startswith("not a plain state dict"):
            raise
        raise InputError(
            "a pickled model object, as torchxrayvision publishes it, not its tensors",
            weights,
            "run `python -m workflow_scripts.features.convert_torchxrayvision` on it, and name "
            "its output in the config",
        ) from None
    with torch.device("meta"):
        network = DenseNet121()
    check_shapes(
        {key: tuple(value.shape) for key, value in state.items()},
        {key: tuple(value.shape) for key, value in network.state_dict().items()},
        weights,
        OPTIONAL,
    )
    return {key: value for key, value in state.items() if key not in OPTIONAL}


def prepare_gray(image: Image.Image) -> NDArray[np.float32]:
    """Turn an image into the network's input, float32 (224, 224) in [-1024, 1024]."""
    gray = (np.asarray(image.convert("L"), np.float32) / 255 * 2 - 1) * 1024
    height, width = gray.shape
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    square = gray[top : top + side, left : left + side]
    if side == SIDE:
        return np.asarray(square, np.float32)
    sigma = max(0.0, (side / SIDE - 1) / 2)
    if sigma > 0:
        square = ndimage.gaussian_filter(square, sigma, mode="grid-constant")
    zoom = (SIDE / side, SIDE / side)
    small = ndimage.zoom(square, zoom, order=1, mode="grid-constant", grid_mode=True)
    return np.asarray(small, np.float32)


class DenseNetEncoder:
    """The encoder; see the module."""

    name = "densenet_121"
    reads = "image"
    dimension = 1024

    def __init__(
        self, network: DenseNet121, squash: tuple[int, Resampling] | None, device: torch.device
    ):
        self.network, self.squash, self.device = network.eval().to(device), squash, device
        squashed = "" if squash is None else f"squash {squash[0]}x{squash[0]} bilinear; "
        self.preprocessing = (
            f"{squashed}gray; -1024..1024; centre square; scikit-image resize {SIDE} antialiased"
        )
        self.extras: dict[str, NDArray[np.float32]] = {}

    def prepare(self, source: Any) -> Tensor:
        """Map an image to float32 (1, 224, 224)."""
        if self.squash is not None:
            side, resample = self.squash
            source = source if source.mode == "L" else source.convert("RGB")
            source = source.resize((side, side), resample)
        return torch.from_numpy(np.ascontiguousarray(prepare_gray(source)))[None]

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> NDArray[np.float32]:
        """Map n images to features (n, 1024), >= 0."""
        return self.network(to_device(batch, self.device)).float().cpu().numpy()


def load(
    weights: Path, device: torch.device, switches: Deviations, purpose: str
) -> DenseNetEncoder:
    """Load the network from its tensors.

    Raises:
        InputError: see `check`.
    """
    state = _state(weights)
    network = DenseNet121()
    load_exactly(network, state, weights)
    return DenseNetEncoder(network, published_squash(purpose, switches), device)
