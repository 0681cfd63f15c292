"""The multi-label classifier: a ResNet with one logit per finding, its losses and predictions."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.pixels import mirror, normalise, rotate, to_unit
from workflow_scripts.common.resnet import resnet_for
from workflow_scripts.common.seeded_order import random_stream

_ANGLES, _FLIPS = 2, 3  # random streams; the training loop uses 0 and 1

_RUN: Final = "run"


class ClassificationTask:
    """Losses of the classifier over images in memory; see `training.Task`.

    Args:
        pixels: uint8 (n, size, size); they are kept on the device (2 GB for 40,000 at 224 pixels),
            so that no step waits for them.
        labels: float32 (n, 14).
        training: rows to train on.
        validation: rows to validate on.
        batch_size: images at a time in validation.
        rotation_degrees: training images are rotated by up to this much, either way.
        flip: training images are mirrored at random (`as_published`: it moves the heart to the
            right side).
        seed: seed of the augmentation, which depends on (seed, epoch, image) alone.
        device: the network's device.
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
        self.pixels = torch.from_numpy(pixels).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.training, self.validation = training, validation
        self.batch_size, self.rotation_degrees, self.flip = batch_size, rotation_degrees, flip
        self.seed, self.device = seed, device
        self.n_train = len(training)

    def weight(self, rows: np.ndarray) -> int:
        """Return the number of rows: the loss is a mean over them."""
        return len(rows)

    def loss(self, network: nn.Module, rows: np.ndarray, epoch: int) -> Tensor:
        """Return the mean binary cross-entropy of augmented training images."""
        chosen = torch.from_numpy(self.training[rows]).to(self.device)
        images = to_unit(self.pixels[chosen], self.device)
        if self.flip:
            mirrored = random_stream(self.seed, epoch, _FLIPS).random(self.n_train)[rows] < 0.5
            images = mirror(images, torch.from_numpy(mirrored).to(self.device))
        if self.rotation_degrees > 0:
            limit = self.rotation_degrees
            angles = random_stream(self.seed, epoch, _ANGLES).uniform(-limit, limit, self.n_train)
            images = rotate(images, torch.from_numpy(angles[rows]).float().to(self.device))
        return functional.binary_cross_entropy_with_logits(
            network(normalise(images)), self.labels[chosen]
        )

    def validation_loss(self, network: nn.Module) -> float:
        """Return the mean binary cross-entropy over the validation images, without augmentation."""
        total = 0.0
        for start in range(0, len(self.validation), self.batch_size):
            chosen = torch.from_numpy(self.validation[start : start + self.batch_size])
            chosen = chosen.to(self.device)
            logits = network(normalise(to_unit(self.pixels[chosen], self.device)))
            total += float(
                functional.binary_cross_entropy_with_logits(
                    logits, self.labels[chosen], reduction="sum"
                )
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


@dataclass(frozen=True)
class TrainedClassifier:
    """A network that `train` left.

    Attributes:
        network: gives 14 logits.
        run: what made it (JSON types): `setting`, `protocol`, `seed`, `settings`, ...
    """

    network: nn.Module
    run: dict[str, Any]


def write_network(path: Path, network: nn.Module, run: dict[str, Any]) -> None:
    """Write a trained network and what made it as one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    state = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
    with whole_file(path) as temporary:
        save_file(state, temporary, metadata={_RUN: json.dumps(run, sort_keys=True)})


def read_network(path: Path) -> TrainedClassifier:
    """Read what `write_network` wrote.

    Raises:
        InputError: missing, damaged, or no classifier of the 14 findings.
    """
    from safetensors import safe_open

    state = load_state(path)
    try:
        with safe_open(path, "pt") as file:
            run = json.loads((file.metadata() or {})[_RUN])
        network = resnet_for(state)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"not a classifier that this workflow trained ({error})",
            path,
            "delete it and rerun downstream_train_judge",
        ) from None
    if network.fc.out_features != len(FINDINGS):
        raise InputError(
            f"the network has {network.fc.out_features} outputs, not {len(FINDINGS)}", path
        )
    load_exactly(network, state, path)
    return TrainedClassifier(network.eval(), run)
