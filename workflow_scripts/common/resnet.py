"""ResNet with bottleneck blocks in torchvision's key layout, sized by the weights it loads.

The re-identification network, BioViL-T's image encoder and the classifier's initial weights are all
ResNet-50 checkpoints in this layout. Depth and width are read from the tensors' shapes, so a tiny
test network and the published one take the same path. He et al., 2016, with the stride in the
3 x 3 convolution (the "v1.5" of torchvision and timm).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workflow_scripts.common.checkpoints import (
    check_weight_file,
    load_exactly,
    load_state,
    safetensors_shapes,
)
from workflow_scripts.common.errors import InputError

_EXPANSION = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions with a shortcut; the output has 4 x `width` channels."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        out = width * _EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, 4 * width, h / stride, w / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    """The network; `forward` gives logits, `features` the last feature map.

    Args:
        depths: blocks per stage, four numbers; ResNet-50 has (3, 4, 6, 3).
        width: channels of the stem; stage i is `width * 2**i` wide; ResNet-50 has 64.
        outputs: width of the final linear layer `fc`.
    """

    def __init__(self, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64, outputs: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = width
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Bottleneck(channels, width * 2**i, stride))
                channels = width * 2**i * _EXPANSION
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.channels = channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """Map images (n, 3, h, w) to the last feature map (n, channels, h / 32, w / 32)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, 3, h, w) to logits (n, outputs)."""
        return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))


def resnet_for(state: Mapping[str, Tensor], outputs: int | None = None) -> ResNet:
    """Build the (randomly initialised) network that fits the shapes of `state`.

    Args:
        state: weights in torchvision's layout, without a prefix.
        outputs: width of `fc`; None takes it from `state`.

    Raises:
        KeyError: `state` is not a ResNet with bottleneck blocks.
    """
    depths = []
    for i in range(1, 5):
        found = {int(m[1]) for key in state if (m := re.match(rf"layer{i}\.(\d+)\.conv3\.", key))}
        if not found:
            raise KeyError(f"layer{i}.0.conv3.weight")
        depths.append(max(found) + 1)
    width = state["conv1.weight"].shape[0]
    return ResNet(depths, width, state["fc.weight"].shape[0] if outputs is None else outputs)


def check_pretrained(weights: str | Path) -> str:
    """Check that initial weights are whole and a ResNet in torchvision's layout.

    Returns:
        A description of the file for a table: `ResNet-50, 320 tensors`.

    Raises:
        InputError: as `pretrained_resnet`.
    """
    path = Path(weights)
    check_weight_file(path)
    if path.suffix == ".safetensors":
        shapes = safetensors_shapes(path)
    else:
        shapes = {key: tuple(value.shape) for key, value in load_state(path).items()}
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        network = _fitted(state, path, 1)
    depths = [len(getattr(network, f"layer{i}")) for i in range(1, 5)]
    return f"ResNet-{3 * sum(depths) + 2}, {len(shapes)} tensors"


def pretrained_resnet(weights: str | Path, outputs: int, seed: int) -> ResNet:
    """Build a network from a file's weights, with a randomly initialised last layer.

    Args:
        weights: a ResNet with bottleneck blocks in timm's or torchvision's layout (the same
            keys), with or without `fc`.
        outputs: width of the last layer.
        seed: seed of the last layer's initial weights.

    Raises:
        InputError: missing, unexpected or misshapen tensors, all named.
    """
    network = _fitted(load_state(weights), weights, outputs)
    torch.manual_seed(seed)
    network.fc.reset_parameters()
    return network


def _fitted(file_state: Mapping[str, Tensor], path: str | Path, outputs: int) -> ResNet:
    state: dict[str, Any] = {k: v for k, v in file_state.items() if not k.startswith("fc.")}
    try:
        network = resnet_for(state, outputs)
    except KeyError as error:
        raise InputError(
            f"no ResNet with bottleneck blocks: {error.args[0]} is missing",
            path,
            "use timm's or torchvision's resnet50; see docs/how-to/mimic-and-weights.md",
        ) from None
    own = network.state_dict()
    counters = [key for key in own if key.endswith(".num_batches_tracked")]
    if not any(key in state for key in counters):  # files older than torch 0.4.1 have none
        state |= {key: own[key] for key in counters}
    load_exactly(network, state | {k: v for k, v in own.items() if k.startswith("fc.")}, path)
    return network
