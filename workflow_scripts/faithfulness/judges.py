"""Judges: networks that recognise findings, and were not trained on generated images.

- `classifier`: the ResNet-50 that the downstream stage trains on radiographs alone. With several
  training runs, the mean probability counts.
- `densenet_121`: the head of torchxrayvision's DenseNet-121, whose features the fidelity stage
  uses. It knows only the findings of its training. Its split of MIMIC-CXR differs from the
  benchmark's, so it may have been trained on test radiographs. Its ceiling may then be too high,
  and a share of the ceiling too low.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.squares import square
from workflow_scripts.downstream.classification.network import predict, read_network
from workflow_scripts.features.encoders import densenet_121
from workflow_scripts.features.encoders.transform import to_device

CLASSIFIER: Final = "classifier"
DENSENET: Final = "densenet_121"
JUDGES: Final = (CLASSIFIER, DENSENET)

DENSENET_OUTPUTS: Final = {
    "Atelectasis": 0,
    "Consolidation": 1,
    "Pneumothorax": 3,
    "Edema": 4,
    "Pleural Effusion": 7,
    "Pneumonia": 8,
    "Cardiomegaly": 10,
    "Lung Lesion": 14,
    "Fracture": 15,
    "Lung Opacity": 16,
    "Enlarged Cardiomediastinum": 17,
}
"""The trained outputs of the weights `mimic_ch`; the other seven of the 18 are untrained."""


class Judge(Protocol):
    """A network that judges images.

    Attributes:
        key: its name, one of JUDGES.
        knows: bool (14,), which of FINDINGS it was trained on.
        made_of: the digests of its files, by their role.
    """

    key: str
    knows: np.ndarray
    made_of: dict[str, Any]

    def prepare(self, image: Image.Image) -> Any:
        """Return the network's input for an image."""

    def judge(self, prepared: Sequence[Any]) -> np.ndarray:
        """Return probabilities, float32 (n, 14); nan for findings that it does not know."""


class Classifier:
    """The classifiers of `real_only`, see the module.

    Args:
        paths: the networks, one for each training run.
        protocol: the protocol under which they must have been trained.
        device: the device that computes.

    Raises:
        InputError: a file is no such network; it was trained on generated images, or under another
            protocol; or two runs have the same seed.
    """

    key = CLASSIFIER

    def __init__(self, paths: Sequence[Path], protocol: str, device: torch.device):
        remedy = "delete it and rerun downstream_train_judge"
        judges = [read_network(path) for path in paths]
        for judge, path in zip(judges, paths, strict=True):
            if judge.run["setting"] != "real_only":
                raise InputError(
                    f"a judge that was trained on {judge.run['setting']} images", path, remedy
                )
            if judge.run["protocol"] != protocol:
                raise InputError(
                    f"trained under {judge.run['protocol']}, asked under {protocol}", path, remedy
                )
        seeds = [judge.run["seed"] for judge in judges]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"two runs have one seed: {seeds}", paths[0], remedy)
        settings = judges[0].run["settings"]
        self.networks = [judge.network.to(device) for judge in judges]
        self.size: int = settings["size"]
        self.batch: int = settings["per_device_batch_size"] or settings["batch_size"]
        self.squash = deviations(protocol).classification_squash
        self.device = device
        self.knows = np.ones(len(FINDINGS), bool)
        self.made_of = {
            f"seed {s}": sha256_of(p) for s, p in sorted(zip(seeds, paths, strict=True))
        }

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return an image as in training, uint8 (size, size)."""
        return square(image, self.size, self.squash)

    def judge(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """See `Judge`."""
        pixels = np.stack(prepared)
        each = [predict(network, pixels, self.batch, self.device) for network in self.networks]
        return np.asarray(np.mean(each, axis=0), np.float32)


class DenseNetHead:
    """The head of torchxrayvision's DenseNet-121, see the module.

    Args:
        weights: see `features.encoders.densenet_121`.
        protocol: decides how images are resized.
        device: the device that computes.
    """

    key = DENSENET

    def __init__(self, weights: Path, protocol: str, device: torch.device):
        self.encoder = densenet_121.load(weights, device, deviations(protocol), "fidelity")
        self.device = device
        self.knows = np.array([name in DENSENET_OUTPUTS for name in FINDINGS], bool)
        self.made_of = {"weights": sha256_of(weights)}

    def prepare(self, image: Image.Image) -> Tensor:
        """Return the network's input for an image, float32 (1, 224, 224)."""
        return self.encoder.prepare(image)

    @torch.inference_mode()
    def judge(self, prepared: Sequence[Tensor]) -> np.ndarray:
        """See `Judge`."""
        network = self.encoder.network
        scores = torch.sigmoid(network.classifier(network(to_device(prepared, self.device))))
        probabilities = np.full((len(prepared), len(FINDINGS)), np.nan, np.float32)
        columns = [DENSENET_OUTPUTS[name] for name in FINDINGS if name in DENSENET_OUTPUTS]
        probabilities[:, self.knows] = scores.float().cpu().numpy()[:, columns]
        return probabilities
