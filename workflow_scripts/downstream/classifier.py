"""The multi-label classifier: a ResNet with one logit per finding, its losses and predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.checkpoints import (
    check_weight_file,
    load_exactly,
    load_state,
    safetensors_shapes,
)
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.resnet import ResNet, resnet_for
from workflow_scripts.downstream.loop import random_stream

_MEAN: Final = (0.485, 0.456, 0.406)  # of ImageNet, on which the weights were trained
_STD: Final = (0.229, 0.224, 0.225)
_ANGLES, _FLIPS = 2, 3  # streams of random numbers beside the loop's own


def check(weights: str | Path) -> str:
    """Check initial weights without computing: whole, and a ResNet in torchvision's layout.

    Returns:
        What the file holds, for a table: `ResNet-50, 320 tensors`.

    Raises:
        InputError: as `network_from`.
    """
    path = Path(weights)
    check_weight_file(path)
    if path.suffix == ".safetensors":
        shapes = safetensors_shapes(path)
    else:
        shapes = {key: tuple(value.shape) for key, value in load_state(path).items()}
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        network = _fitted(state, path)
    depths = [len(getattr(network, f"layer{i}")) for i in range(1, 5)]
    return f"ResNet-{3 * sum(depths) + 2}, {len(shapes)} tensors"


def network_from(weights: str | Path, seed: int) -> ResNet:
    """Build the classifier, with all but the last layer from a file and that one drawn anew.

    Args:
        weights: a ResNet with bottleneck blocks in timm's or torchvision's layout (the same
            keys); its `fc` may be there or not.
        seed: of the last layer.

    Raises:
        InputError: missing, unexpected or misshapen tensors, all named.
    """
    network = _fitted(load_state(weights), weights)
    torch.manual_seed(seed)
    network.fc.reset_parameters()
    return network


def _fitted(file_state: Mapping[str, Tensor], path: str | Path) -> ResNet:
    state: dict[str, Any] = {k: v for k, v in file_state.items() if not k.startswith("fc.")}
    try:
        network = resnet_for(state, outputs=len(FINDINGS))
    except KeyError as error:
        raise InputError(
            f"no ResNet with bottleneck blocks: {error.args[0]} is missing",
            path,
            "use timm's or torchvision's resnet50; see the README, section on weights",
        ) from None
    own = network.state_dict()
    counters = [key for key in own if key.endswith(".num_batches_tracked")]
    if not any(key in state for key in counters):  # files older than torch 0.4.1 have none
        state |= {key: own[key] for key in counters}
    load_exactly(network, state | {k: v for k, v in own.items() if k.startswith("fc.")}, path)
    return network


class ClassificationTask:
    """Losses of the classifier over images in memory; see `loop.Task`.

    Args:
        pixels: uint8 (n, size, size).
        labels: float32 (n, 14).
        training: rows to train on.
        validation: rows to validate on.
        batch_size: images at a time in validation.
        rotation_degrees: training images are turned by up to this much, either way.
        flip: training images are mirrored at random (`as_published`: it moves the heart to the
            right side).
        seed: of the augmentation, which depends on (seed, epoch, image) alone.
        device: where the network is.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        training: np.ndarray,
        validation: np.ndarray,
        *,
        batch_size: int,
        rotation_degrees: float,
        flip: bool,
        seed: int,
        device: torch.device,
    ):
        self.pixels, self.labels = pixels, labels
        self.training, self.validation = training, validation
        self.batch_size, self.rotation_degrees, self.flip = batch_size, rotation_degrees, flip
        self.seed, self.device = seed, device
        self.n_train = len(training)

    def loss(self, network: nn.Module, rows: np.ndarray, epoch: int) -> Tensor:
        """Return the mean binary cross-entropy of augmented training images."""
        images = to_unit(self.pixels[self.training[rows]], self.device)
        if self.flip:
            mirrored = random_stream(self.seed, epoch, _FLIPS).random(self.n_train)[rows] < 0.5
            images = mirror(images, torch.from_numpy(mirrored).to(self.device))
        if self.rotation_degrees > 0:
            limit = self.rotation_degrees
            angles = random_stream(self.seed, epoch, _ANGLES).uniform(-limit, limit, self.n_train)
            images = rotate(images, torch.from_numpy(angles[rows]).float().to(self.device))
        labels = torch.from_numpy(self.labels[self.training[rows]]).to(self.device)
        return functional.binary_cross_entropy_with_logits(network(normalise(images)), labels)

    def validation_loss(self, network: nn.Module) -> float:
        """Return the mean binary cross-entropy over the validation images, as they are."""
        total = 0.0
        for start in range(0, len(self.validation), self.batch_size):
            rows = self.validation[start : start + self.batch_size]
            logits = network(normalise(to_unit(self.pixels[rows], self.device)))
            labels = torch.from_numpy(self.labels[rows]).to(self.device)
            total += float(
                functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
            )
        return total / (len(self.validation) * self.labels.shape[1])


@torch.no_grad()
def predict(
    network: nn.Module, pixels: np.ndarray, batch_size: int, device: torch.device
) -> np.ndarray:
    """Return probabilities, float32 (n, 14), of images uint8 (n, size, size)."""
    network.eval()
    batches = [
        torch.sigmoid(network(normalise(to_unit(pixels[i : i + batch_size], device)))).cpu()
        for i in range(0, len(pixels), batch_size)
    ]
    return torch.cat(batches).numpy()


def to_unit(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Map uint8 (n, h, w) to float32 (n, 1, h, w) in [0, 1] on a device."""
    return torch.from_numpy(pixels).to(device).unsqueeze(1).float() / 255


def normalise(images: Tensor) -> Tensor:
    """Map luminance (n, 1, h, w) in [0, 1] to the three channels that ImageNet weights expect."""
    mean = torch.tensor(_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(_STD, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn images (n, c, h, h) counter-clockwise by `degrees` (n,), bilinear, black outside."""
    radians = torch.deg2rad(degrees)
    cosine, sine, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    # affine_grid maps places in the result to places in the source, y pointing down.
    matrix = torch.stack(
        [torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def mirror(images: Tensor, which: Tensor) -> Tensor:
    """Swap left and right of the images (n, c, h, w) where `which` (n,) is true."""
    return torch.where(which.view(-1, 1, 1, 1), images.flip(-1), images)
