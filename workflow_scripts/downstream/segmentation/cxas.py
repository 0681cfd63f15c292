"""CXAS's anatomy segmentation network (UNet_ResNet50_default), which draws the pseudo-masks.

Seibold et al., 2023. A ResNet-50 encodes the image, and a U-Net head segments 159 structures, which
may overlap. The network is built here because CXAS's own loader silently accepts files that do not
fit. Here every tensor of the file must be needed and fit. Depth and widths are read from the
shapes, so the tiny network of the embedded world takes the same path. Preprocessing is CXAS's: RGB,
nearest neighbour to a square (the aspect is lost), ImageNet's mean and standard deviation.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.pixels import normalise
from workflow_scripts.common.resnet import ResNet, resnet_for

SIZE: Final = 512
"""Side of the published network's input, pixels."""

_PREFIXES: Final = ("module.", "model.", "net.")
"""Key prefixes of a network that was trained on several GPUs, or as part of another module."""
_KEYS: Final = ("model", "state_dict", "model_state_dict", "network", "net")
"""Keys under which checkpoints hold a state dict."""
_BACKBONE: Final = "backbone.backbone."
_STEM: Final = {"layer0.0.": "conv1.", "layer0.1.": "bn1."}  # CXAS's names: torchvision's
_REMEDY: Final = (
    "use CXAS's UNet_ResNet50_default.pth or its mirror (docs/how-to/mimic-and-weights.md)"
)
_CONVERTER: Final = "workflow_scripts.downstream.segmentation.convert_cxas"


class _Backbone(nn.Module):
    """A ResNet without its classifier; stem and stages are numbered as CXAS numbers them."""

    def __init__(self, resnet: ResNet):
        super().__init__()
        stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        stages = [(f"layer{i}", resnet.get_submodule(f"layer{i}")) for i in range(1, 5)]
        self.backbone = nn.Sequential(OrderedDict([("layer0", stem), *stages]))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images (n, 3, h, w) to five maps: stem and stages 1 to 4."""
        maps = []
        for stage in self.backbone:
            x = stage(x)
            maps.append(x)
        return maps


class _Convolutions(nn.Module):
    """3 x 3 convolutions from each number of channels to the next, each with norm and ReLU.

    Args:
        name: the sequence's name in the file's keys.
        channels: numbers of channels, before the first and after each convolution.
    """

    def __init__(self, name: str, *channels: int):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.add_module(name, nn.Sequential(*layers))
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, first, h, w) to (n, last, h, w)."""
        return self.get_submodule(self.name)(x)


class _Up(nn.Module):
    """Upsample a map to the size of a finer one, concatenate the two, convolve twice.

    Args:
        channels: channels of the joined maps; the first convolution halves them.
        out: channels of the result.
    """

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv = _Convolutions("double_conv", channels, channels // 2, out)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Map (n, c, h, w) and (n, d, 2 h, 2 w) to (n, out, 2 h, 2 w)."""
        return self.conv(torch.cat([fine, _enlarged(coarse, fine)], dim=1))


class _FirstUp(nn.Module):
    """Like `_Up`, after a convolution that halves the channels of the deepest map."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv1 = _Convolutions("conv", channels, channels // 2)
        self.conv2 = _Convolutions("double_conv", channels, channels // 2, out)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """See `_Up`."""
        return self.conv2(torch.cat([fine, _enlarged(self.conv1(coarse), fine)], dim=1))


class _Last(nn.Module):
    """The 1 x 1 convolution that gives the logits."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor, classes: Sequence[int] | None) -> Tensor:
        """Map (n, channels, h, w) to (n, classes, h, w), for the given classes or for all."""
        if classes is None:
            return self.conv(x)
        rows = list(classes)
        bias = None if self.conv.bias is None else self.conv.bias[rows]
        return functional.conv2d(x, self.conv.weight[rows], bias)


class _Head(nn.Module):
    """The U-Net head: from the backbone's five maps to logits at the finest map's size."""

    def __init__(self, width: int, filters: int, classes: int):
        super().__init__()
        self.up1 = _FirstUp(32 * width, 8 * width)
        self.up2 = _Up(16 * width, 4 * width)
        self.up3 = _Up(8 * width, width)
        self.up4 = _Up(2 * width, filters)
        self.out = _Last(filters, classes)

    def forward(self, maps: Sequence[Tensor], classes: Sequence[int] | None) -> Tensor:
        """Map (n, c_i, h_i, w_i), the finest first, to (n, classes, h_0, w_0)."""
        y = self.up1(maps[4], maps[3])
        y = self.up2(y, maps[2])
        y = self.up3(y, maps[1])
        return self.out(self.up4(y, maps[0]), classes)


class Cxas(nn.Module):
    """The network; `forward` gives logits of chosen classes.

    Args:
        depths: blocks per stage of the backbone; the published network has (3, 4, 6, 3).
        width: channels of its stem; published 64.
        filters: channels of the finest map of the head; published 128.
        classes: number of classes; published 159, of which 31 and 32 are the left and the right
            clavicle.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        filters: int = 128,
        classes: int = 159,
    ):
        super().__init__()
        self.backbone = _Backbone(ResNet(depths, width, 1))
        self.head = _Head(width, filters, classes)
        self.classes = classes

    def forward(self, x: Tensor, classes: Sequence[int] | None = None) -> Tensor:
        """Map images (n, 3, h, w) to logits (n, classes, h, w); all classes if None is given.

        Here the last layer comes before the upsampling to the images' size; in CXAS it comes after.
        A 1 x 1 convolution and an interpolation commute, and this order upsamples fewer classes.
        """
        return _enlarged(self.head(self.backbone(x), classes), x)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def load_cxas(weights: str | Path) -> Cxas:
    """Build the network that a published file holds, in evaluation mode.

    Raises:
        InputError: the file is missing or damaged, holds another network, or has missing,
            unexpected or misshapen tensors, all named.
    """
    network, state = network_and_state(_load_state(weights), weights)
    load_exactly(network, state, weights)
    return network.eval()


def network_and_state(
    loaded: Mapping[str, Any], path: str | Path, tensors_alone: bool = True
) -> tuple[Cxas, dict[str, Tensor]]:
    """Return the network with a checkpoint's shapes, and the tensors by the network's own keys.

    Args:
        loaded: the content of the file.
        path: the file, for the error.
        tensors_alone: whether to refuse a state dict that holds anything but tensors; if False,
            everything else is left out.

    Raises:
        InputError: the checkpoint does not hold the network.
    """
    state = _network_state(loaded, path, tensors_alone)
    return _network_for(state, path), state


def _load_state(weights: str | Path) -> dict[str, Any]:
    try:
        return load_state(weights)
    except InputError as error:
        if not error.what.startswith("not a plain state dict"):
            raise
        raise InputError(
            f"the file holds more than tensors: {error.what}",
            weights,
            f"run `python -m {_CONVERTER}` on it, and name its output in the config",
        ) from None


def check_cxas(weights: str | Path, classes: Sequence[int]) -> str:
    """Check that a weight file is whole and that every tensor is needed and has the right shape.

    Returns:
        A description of the file for a table.

    Raises:
        InputError: see `load_cxas`; or the network does not have one of the classes.
    """
    state = _network_state(_load_state(weights), weights)
    with torch.device("meta"):
        network = _network_for(state, weights)
        load_exactly(network, {key: torch.empty(t.shape) for key, t in state.items()}, weights)
    check_classes(network, classes, weights)
    return f"CXAS with {network.classes} classes, {len(state)} tensors"


def check_classes(network: Cxas, classes: Sequence[int], where: str | Path) -> None:
    """Check that a network has the given classes.

    Raises:
        InputError: none is given, or the network does not have one of them.
    """
    if not classes or not all(0 <= number < network.classes for number in classes):
        raise InputError(
            f"{list(classes)} are not classes of a network with {network.classes} classes",
            where,
            "name classes of the network in downstream.segmentation.labeller.classes",
        )


def prepare(image: Image.Image, size: int) -> Tensor:
    """Return an image as the network's input before normalisation: uint8 RGB (3, size, size).

    The image is resized by torch's nearest neighbour: row i is row floor(i * height / size).
    """
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return functional.interpolate(pixels[None], (size, size), mode="nearest")[0]


@torch.no_grad()
def draw_masks(network: Cxas, prepared: Tensor, classes: Sequence[int]) -> np.ndarray:
    """Return the union of the masks of some classes, bool (n, size, size).

    A pixel belongs to a class if its probability is above a half.

    Args:
        network: the network, in evaluation mode.
        prepared: uint8 (n, 3, size, size), on the network's device; see `prepare`.
        classes: the classes whose union is the foreground.
    """
    logits = network(normalise(prepared.float() / 255), classes)
    return (torch.sigmoid(logits) > 0.5).any(dim=1).cpu().numpy()


def _network_state(
    loaded: Mapping[str, Any], path: str | Path, tensors_alone: bool = True
) -> dict[str, Tensor]:
    """Return the tensors by the network's own keys."""
    state: Any = next(
        (loaded[key] for key in _KEYS if isinstance(loaded.get(key), Mapping)), loaded
    )
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors or (tensors_alone and len(tensors) < len(state)):
        raise InputError(
            f"no state dict, neither the file nor one of its keys {', '.join(_KEYS)}", path, _REMEDY
        )
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    # In some files the backbone's keys lack one level of CXAS's module.
    if not any(key.startswith(_BACKBONE) for key in tensors):
        higher = _BACKBONE.partition(".")[0] + "."
        tensors = {
            _BACKBONE + key.removeprefix(higher) if key.startswith(higher) else key: value
            for key, value in tensors.items()
        }
    return tensors


def _network_for(state: Mapping[str, Tensor], path: str | Path) -> Cxas:
    """Build the network with the shapes of a state dict."""
    backbone = {}
    for key, value in state.items():
        if key.startswith(_BACKBONE):
            name = key.removeprefix(_BACKBONE)
            for cxas_name, torchvision_name in _STEM.items():
                name = name.replace(cxas_name, torchvision_name)
            backbone[name] = value
    try:
        with torch.device("meta"):
            resnet = resnet_for(backbone, outputs=1)
        classes, filters = state["head.out.conv.weight"].shape[:2]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"not a CXAS network: {error.args[0]} is missing or misshapen", path, _REMEDY
        ) from None
    depths = [len(resnet.get_submodule(f"layer{i}")) for i in range(1, 5)]  # type: ignore[arg-type]
    return Cxas(depths, resnet.conv1.out_channels, filters, classes)
