"""The embedded world's pseudo-labeller: a tiny network in CXAS's layout, trained on exact masks.

Five of its 159 classes are trained: the clavicles, the heart and the lungs. The others are never
drawn.
"""

import logging
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.pixels import normalise
from workflow_scripts.downstream.segmentation.cxas import Cxas, prepare
from workflow_scripts.world.training import jitter, reproducible, training

log = logging.getLogger(__name__)

CXAS: Final = "cxas/UNet_ResNet50_default.pth"
"""Path of the checkpoint below the folder of weights."""

CLASSES: Final = (31, 32, 121, 135, 136)
"""CXAS's numbers of left and right clavicle, heart, right and left lung."""

SIZE: Final = 192
"""Side of its input, pixels."""

_BITS: Final = (2, 1, 16, 4, 8)  # the bits of the CLASSES in the masks
_NEVER, _RARE = -12.0, -4.0  # logits
_STEPS: Final = 512
_BATCH: Final = 4


def write_cxas_checkpoint(
    images: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    out_dir: Path,
    seed: int,
    effort: float = 1.0,
) -> None:
    """Train and write the network; deterministic for a seed.

    Args:
        images: radiographs, uint8 (n, side, side).
        masks: their masks, uint8 (n, side, side): bit 1 the right clavicle, 2 the left, 4 the right
            lung, 8 the left, 16 the heart.
        out_dir: folder that gets `cxas/`.
        seed: seed of initialisation and training.
        effort: factor of the training steps.
    """
    start = time.monotonic()
    pictures = torch.stack([prepare(Image.fromarray(image), SIZE) for image in images])[:, :1]
    drawn = [np.stack([mask & bit > 0 for bit in _BITS]) for mask in masks]
    targets = _shrunk(torch.from_numpy(np.stack(drawn)), SIZE)
    with reproducible():
        torch.manual_seed(seed)
        network = Cxas((1, 1, 1, 1), width=4, filters=16)
        _never_draw_others(network)
        for batch in training([network], _STEPS, effort, len(images), 6e-3, _BATCH):
            seen = jitter(_coarsened(pictures[batch].float() / 255), 0.1, 0.0)
            _loss(network(normalise(seen), CLASSES), targets[batch]).backward()
    path = out_dir / CXAS
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in network.eval().state_dict().items()}
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, path)
    log.info("%s: %.0f s", path, time.monotonic() - start)


@torch.no_grad()
def _never_draw_others(network: Cxas) -> None:
    last = network.head.out.conv
    drawn = torch.zeros(network.classes, dtype=torch.bool)
    drawn[list(CLASSES)] = True
    last.weight[~drawn] = 0.0
    if last.bias is not None:
        last.bias.copy_(torch.where(drawn, _RARE, _NEVER))


def _shrunk(masks: Tensor, size: int) -> Tensor:
    """Downsize masks (n, c, h, w) to the covered share of each pixel, (n, c, size, size)."""
    return functional.adaptive_avg_pool2d(masks.float(), size)


def _coarsened(x: Tensor) -> Tensor:
    """Halve the resolution of every other image, to resemble small generated images."""
    half = functional.avg_pool2d(x[::2], 2)
    x = x.clone()
    x[::2] = functional.interpolate(half, scale_factor=2, mode="nearest")
    return x


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return cross-entropy plus one minus Dice, each a mean over images and classes."""
    shares = torch.sigmoid(logits)
    both = (shares * targets).sum((2, 3))
    dice = (2 * both + 1) / (shares.sum((2, 3)) + targets.sum((2, 3)) + 1)
    return functional.binary_cross_entropy_with_logits(logits, targets) + 1 - dice.mean()
