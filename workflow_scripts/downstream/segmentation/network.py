"""The U-Net that learns the pseudo-masks: network, losses, predictions."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from workflow_scripts.common.pixels import rotate, to_unit
from workflow_scripts.common.seeded_order import random_stream


@contextmanager
def _without(*packages: str) -> Iterator[None]:
    """Hide optional packages from an import, which would otherwise load them."""
    hidden: dict[str, Any] = {name: None for name in packages if name not in sys.modules}
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


# MONAI imports all its networks and plots. Without these two packages it takes half the time.
with _without("transformers", "matplotlib"):
    from monai.losses import DiceCELoss, DiceLoss
    from monai.networks.nets import UNet

LOSSES: Final[dict[str, Callable[[], nn.Module]]] = {
    "dice_ce": lambda: DiceCELoss(sigmoid=True),
    "dice": lambda: DiceLoss(sigmoid=True),
    "ce": nn.BCEWithLogitsLoss,
}
"""The losses: soft Dice per image, binary cross-entropy per pixel, or their sum."""

_ANGLES, _LIGHT = 2, 3  # random streams; the training loop uses 0 and 1


def unet(channels: Sequence[int], residual_units: int, seed: int) -> nn.Module:
    """Build MONAI's U-Net: luminance in, one logit per pixel out.

    Args:
        channels: channels of each level, the finest first; each level halves the side.
        residual_units: convolutions of a level; 0 gives one without a shortcut.
        seed: seed of the initial weights.
    """
    torch.manual_seed(seed)
    return UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=list(channels),
        strides=[2] * (len(channels) - 1),
        num_res_units=residual_units,
    )


class SegmentationTask:
    """Losses of the U-Net over images in memory; see `training.Task`.

    Args:
        pixels: uint8 (n, size, size).
        masks: bool (n, size, size).
        training: rows to train on.
        validation: rows to validate on.
        loss: one of LOSSES; a mean over images.
        batch_size: images at a time in validation.
        rotation_degrees: training images and their masks are rotated by up to this much.
        contrast: contrast and brightness of training images change by up to this share.
        seed: seed of the augmentation, which depends on (seed, epoch, image) alone.
        device: the network's device.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        masks: np.ndarray,
        training: np.ndarray,
        validation: np.ndarray,
        *,
        loss: str,
        batch_size: int,
        rotation_degrees: float,
        contrast: float,
        seed: int,
        device: torch.device,
    ):
        self.pixels, self.masks = pixels, masks
        self.training, self.validation = training, validation
        self.measure: Callable[[Tensor, Tensor], Tensor] = LOSSES[loss]()
        self.batch_size = batch_size
        self.rotation_degrees, self.contrast = rotation_degrees, contrast
        self.seed, self.device = seed, device
        self.n_train = len(training)

    def weight(self, rows: np.ndarray) -> int:
        """Return the number of rows: the loss is a mean over them."""
        return len(rows)

    def loss(self, network: nn.Module, rows: np.ndarray, epoch: int) -> Tensor:
        """Return the mean loss of augmented training images."""
        images, masks = self._pairs(self.training[rows])
        if self.rotation_degrees > 0:
            limit = self.rotation_degrees
            angles = random_stream(self.seed, epoch, _ANGLES).uniform(-limit, limit, self.n_train)
            turned = rotate(torch.cat([images, masks], dim=1), self._on_device(angles[rows]))
            images, masks = turned[:, :1], (turned[:, 1:] >= 0.5).float()
        if self.contrast > 0:
            light = random_stream(self.seed, epoch, _LIGHT).uniform(
                -self.contrast, self.contrast, (self.n_train, 2)
            )
            gain, shift = self._on_device(light[rows])[:, :, None, None, None].unbind(1)
            images = (images * (1 + gain) + shift).clamp(0, 1)
        return self.measure(network(images), masks)

    def validation_loss(self, network: nn.Module) -> float:
        """Return the mean loss over the validation images, without augmentation."""
        total = 0.0
        for start in range(0, len(self.validation), self.batch_size):
            rows = self.validation[start : start + self.batch_size]
            images, masks = self._pairs(rows)
            total += float(self.measure(network(images), masks)) * len(rows)
        return total / len(self.validation)

    def _pairs(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        masks = torch.from_numpy(self.masks[rows]).to(self.device).unsqueeze(1).float()
        return to_unit(self.pixels[rows], self.device), masks

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).float().to(self.device)


@torch.no_grad()
def predict(
    network: nn.Module, pixels: np.ndarray, batch_size: int, device: torch.device
) -> np.ndarray:
    """Return masks, bool (n, size, size), of images uint8 (n, size, size).

    A pixel belongs to the mask if its probability is above a half.
    """
    network.eval()
    masks = np.empty(pixels.shape, bool)
    for start in range(0, len(pixels), batch_size):
        rows = slice(start, start + batch_size)
        logits: Any = network(to_unit(pixels[rows], device))
        masks[rows] = (logits[:, 0] > 0).cpu().numpy()
    return masks
