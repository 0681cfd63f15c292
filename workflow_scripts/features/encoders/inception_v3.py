"""InceptionV3 as in the definition of FID (Heusel et al., 2017): TensorFlow's network of 2015.

`weights` is pt_inception-2015-12-05-6726825d.pth of pytorch-fid, or torch-fidelity's file of the
same network, weights-inception-2015-12-05-6726825d.pth. It has 566 tensors and 1008 classes; the
batch counters of the normalisations may be absent. The feature is the mean of the last block over
all positions, 2048 wide.

The 2015 graph differs from torchvision's InceptionV3: average pooling does not count the padding,
and the last block uses max pooling. Preprocessing is the graph's own: RGB, 299 x 299 by TensorFlow
1's bilinear resize (pixel i of the output lies at i * in / out of the input; no antialiasing; the
aspect is lost), (x - 128) / 128.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Resampling
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.speed import Takes
from workflow_scripts.features.encoders.layout import check_shapes
from workflow_scripts.features.encoders.transform import published_squash, to_device

SIDE: Final = 299
CLASSES: Final = 1008

_Kernel = int | tuple[int, int]
_Spec = tuple[int, _Kernel, int]
"""Output channels, kernel (height, width), stride. Strided kernels have no padding."""

_A: Final[dict[str, _Spec]] = {
    "branch1x1": (64, 1, 1),
    "branch5x5_1": (48, 1, 1),
    "branch5x5_2": (64, 5, 1),
}
_DOUBLE: Final[dict[str, _Spec]] = {"branch3x3dbl_1": (64, 1, 1), "branch3x3dbl_2": (96, 3, 1)}


class _Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: _Kernel, stride: int, padded: bool):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """A block: parallel paths of convolutions, and a pooling path.

    Args:
        inputs: input channels.
        layers: each convolution by its published name.
        paths: names of the convolutions of each path, in order; a pair at the end is parallel.
        pool: `average` (without the padding), `maximum`, or `strided` (max pooling that halves the
            sides).
    """

    def __init__(
        self,
        inputs: int,
        layers: dict[str, _Spec],
        paths: Sequence[Sequence[str | tuple[str, str]]],
        pool: str,
    ):
        super().__init__()
        self.paths, self.pool = paths, pool
        for path in paths:
            channels = inputs
            for step in path:
                names = (step,) if isinstance(step, str) else step
                for name in names:
                    outputs, kernel, stride = layers[name]
                    self.add_module(name, _Conv(channels, outputs, kernel, stride, stride == 1))
                channels = layers[names[-1]][0]
        if "branch_pool" in layers:
            self.add_module("branch_pool", _Conv(inputs, layers["branch_pool"][0], 1, 1, True))

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for path in self.paths:
            y = x
            for step in path:
                if isinstance(step, str):
                    y = getattr(self, step)(y)
                else:
                    y = torch.cat([getattr(self, name)(y) for name in step], dim=1)
            outputs.append(y)
        if self.pool == "strided":
            pooled = functional.max_pool2d(x, 3, 2)
        elif self.pool == "maximum":
            pooled = functional.max_pool2d(x, 3, 1, 1)
        else:
            pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        branch = getattr(self, "branch_pool", None)
        return torch.cat([*outputs, pooled if branch is None else branch(pooled)], dim=1)


def _block_a(inputs: int, pooled: int) -> _Block:
    layers: dict[str, _Spec] = {
        **_A,
        **_DOUBLE,
        "branch3x3dbl_3": (96, 3, 1),
        "branch_pool": (pooled, 1, 1),
    }
    paths = (
        ("branch1x1",),
        ("branch5x5_1", "branch5x5_2"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    )
    return _Block(inputs, layers, paths, "average")


def _block_b(inputs: int) -> _Block:
    layers: dict[str, _Spec] = {"branch3x3": (384, 3, 2), **_DOUBLE, "branch3x3dbl_3": (96, 3, 2)}
    paths = (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"))
    return _Block(inputs, layers, paths, "strided")


def _block_c(inputs: int, inner: int) -> _Block:
    wide, high = (1, 7), (7, 1)
    layers: dict[str, _Spec] = {
        "branch1x1": (192, 1, 1),
        "branch7x7_1": (inner, 1, 1),
        "branch7x7_2": (inner, wide, 1),
        "branch7x7_3": (192, high, 1),
        "branch7x7dbl_1": (inner, 1, 1),
        "branch7x7dbl_2": (inner, high, 1),
        "branch7x7dbl_3": (inner, wide, 1),
        "branch7x7dbl_4": (inner, high, 1),
        "branch7x7dbl_5": (192, wide, 1),
        "branch_pool": (192, 1, 1),
    }
    paths = (
        ("branch1x1",),
        tuple(f"branch7x7_{i}" for i in (1, 2, 3)),
        tuple(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)),
    )
    return _Block(inputs, layers, paths, "average")


def _block_d(inputs: int) -> _Block:
    layers: dict[str, _Spec] = {
        "branch3x3_1": (192, 1, 1),
        "branch3x3_2": (320, 3, 2),
        "branch7x7x3_1": (192, 1, 1),
        "branch7x7x3_2": (192, (1, 7), 1),
        "branch7x7x3_3": (192, (7, 1), 1),
        "branch7x7x3_4": (192, 3, 2),
    }
    paths = (
        ("branch3x3_1", "branch3x3_2"),
        tuple(f"branch7x7x3_{i}" for i in (1, 2, 3, 4)),
    )
    return _Block(inputs, layers, paths, "strided")


def _block_e(inputs: int, pool: str) -> _Block:
    layers: dict[str, _Spec] = {
        "branch1x1": (320, 1, 1),
        "branch3x3_1": (384, 1, 1),
        "branch3x3_2a": (384, (1, 3), 1),
        "branch3x3_2b": (384, (3, 1), 1),
        "branch3x3dbl_1": (448, 1, 1),
        "branch3x3dbl_2": (384, 3, 1),
        "branch3x3dbl_3a": (384, (1, 3), 1),
        "branch3x3dbl_3b": (384, (3, 1), 1),
        "branch_pool": (192, 1, 1),
    }
    paths = (
        ("branch1x1",),
        ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
        ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
    )
    return _Block(inputs, layers, paths, pool)


class InceptionV3(nn.Module):
    """The network in the published key layout."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, 2, False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, 1, False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, 1, True)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1, 1, False)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, 1, False)
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(768, 128)
        self.Mixed_6c = _block_c(768, 160)
        self.Mixed_6d = _block_c(768, 160)
        self.Mixed_6e = _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, "average")
        self.Mixed_7c = _block_e(2048, "maximum")
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, 3, 299, 299) in [-1, 1] to features (n, 2048)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = functional.max_pool2d(x, 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(self, f"Mixed_{name}")(x)
        return x.mean(dim=(2, 3))


def resize_bilinear(pixels: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Resize (h, w, c) to (side, side, c) like TensorFlow 1's `resize_bilinear` by default."""
    result = pixels.astype(np.float32)
    for axis in (0, 1):
        size = result.shape[axis]
        position = np.arange(side, dtype=np.float32) * np.float32(size / side)
        low = np.floor(position).astype(np.int64)
        high = np.minimum(low + 1, size - 1)
        weight = position - low.astype(np.float32)
        weight = weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        before, after = np.take(result, low, axis), np.take(result, high, axis)
        result = before + (after - before) * weight
    return result


def files(weights: Path) -> list[Path]:
    """Return the files that the features depend on."""
    return [weights]


def check(weights: Path) -> None:
    """Check every tensor's name and shape.

    Raises:
        InputError: see `Encoder`'s package.
    """
    _state(weights)


def _state(weights: Path) -> dict[str, Tensor]:
    with torch.device("meta"):
        wanted = InceptionV3().state_dict()
    state = load_state(weights)
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    check_shapes(
        {key: tuple(value.shape) for key, value in state.items()},
        {key: tuple(value.shape) for key, value in wanted.items()},
        weights,
        counters,
    )
    return {key: torch.zeros((), dtype=torch.int64) for key in counters} | state


class InceptionEncoder:
    """The encoder; see the module."""

    name = "inception_v3"
    reads = "image"
    takes = Takes(
        compile=("network",),
        channels_last=True,
        why="it has no attention, and no blocks that are alike",
    )
    dimension = 2048

    def __init__(
        self, network: InceptionV3, squash: tuple[int, Resampling] | None, device: torch.device
    ):
        self.network, self.squash, self.device = network.eval().to(device), squash, device
        self.computes = network
        squashed = "" if squash is None else f"squash {squash[0]}x{squash[0]} bilinear; "
        self.preprocessing = f"{squashed}RGB; TensorFlow 1 bilinear {SIDE}x{SIDE}; (x - 128) / 128"
        self.extras: dict[str, NDArray[np.float32]] = {}

    def prepare(self, source: Any) -> Tensor:
        """Map an image to float32 (3, 299, 299)."""
        image = source if source.mode == "L" else source.convert("RGB")
        if self.squash is not None:
            side, resample = self.squash
            image = image.resize((side, side), resample)
        pixels = np.atleast_3d(np.asarray(image))
        channels = ((resize_bilinear(pixels, SIDE) - 128) / 128).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(channels)).expand(3, -1, -1)

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> NDArray[np.float32]:
        """Map n images to features (n, 2048), >= 0."""
        return self.network(to_device(batch, self.device)).float().cpu().numpy()


def load(
    weights: Path, device: torch.device, switches: Deviations, purpose: str
) -> InceptionEncoder:
    """Load the network from its state dict.

    Raises:
        InputError: see `check`.
    """
    state = _state(weights)
    network = InceptionV3()
    load_exactly(network, state, weights)
    return InceptionEncoder(network, published_squash(purpose, switches), device)
