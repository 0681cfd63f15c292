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

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import Takes
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
    """Turn an image into the network's input, float32 (224, 224) in -1024..1024.

    Blur and resize are linear along each side: one sparse matrix does both. Within 0.01 of
    scikit-image's in that range, in a tenth of the time for a film of 2544 x 3056.
    """
    gray = np.asarray(image.convert("L"))
    height, width = gray.shape
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    square = gray[top : top + side, left : left + side].astype(np.float32)
    if side == SIDE:
        return np.asarray((square / 255 * 2 - 1) * 1024, np.float32)
    shrink = _shrinking(side)
    sums = np.asarray(shrink.sum(axis=1), np.float32).reshape(-1, 1)  # below 1 at the border
    small = shrink @ (shrink @ square).T
    return np.ascontiguousarray((small.T / 255 * 2 - sums * sums.T) * 1024, np.float32)


@functools.lru_cache(maxsize=256)
def _shrinking(side: int) -> sparse.csr_array:
    """Return what scikit-image's `resize` multiplies a side by, float32 (224, side).

    A Gaussian as `scipy.ndimage` cuts it (at 4 sigma), then the bilinear mean of two; 0 outside.
    """
    factor = side / SIDE
    centres = (np.arange(SIDE) + 0.5) * factor - 0.5
    below = np.floor(centres).astype(int)
    share = centres - below
    sigma = max(0.0, (factor - 1) / 2)
    reach = int(4 * sigma + 0.5)
    taps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (taps / sigma) ** 2) if sigma > 0 else np.ones(1)
    weights /= weights.sum()
    rows, columns, values = [], [], []
    for start, part in ((below, 1 - share), (below + 1, share)):
        # A sample of the blurred side; outside it lies 0, however near its blur would reach.
        inside = ((start >= 0) & (start < side)).astype(float)
        column = start[:, None] + taps
        rows.append(np.broadcast_to(np.arange(SIDE)[:, None], column.shape).ravel())
        columns.append(column.ravel())
        values.append(((part * inside)[:, None] * weights).ravel())
    row, column, value = map(np.concatenate, (rows, columns, values))
    kept = (column >= 0) & (column < side)
    placed = (value[kept].astype(np.float32), (row[kept], column[kept]))
    return sparse.csr_array(placed, shape=(SIDE, side))


class DenseNetEncoder:
    """The encoder; see the module."""

    name = "densenet_121"
    reads = "image"
    takes = Takes(
        compile=("network",),
        channels_last=True,
        why="it has no attention, and no blocks that are alike",
    )
    dimension = 1024

    def __init__(
        self, network: DenseNet121, squash: tuple[int, Resampling] | None, device: torch.device
    ):
        self.network, self.squash, self.device = network.eval().to(device), squash, device
        self.computes = network
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
