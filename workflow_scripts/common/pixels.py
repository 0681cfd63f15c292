"""Normalisation and augmentation of gray square images (`squares`) for training."""

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_MEAN: Final = (0.485, 0.456, 0.406)  # of ImageNet
_STD: Final = (0.229, 0.224, 0.225)


def to_unit(pixels: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Map uint8 (n, h, w) to float32 (n, 1, h, w) in [0, 1] on a device."""
    return torch.as_tensor(pixels).to(device).unsqueeze(1).float() / 255


def normalise(images: Tensor) -> Tensor:
    """Map luminance (n, 1, h, w) or RGB (n, 3, h, w) in [0, 1] to what ImageNet weights expect."""
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
