"""The encoders, one file each. Every file here is an encoder, and is imported only when needed.

Each module, except `layout` and `transform`, defines

- `load(weights, device, switches, purpose)`, which returns an `Encoder`;
- `check(weights)`, which quickly raises an `InputError` that names every fault of the weights;
- `files(weights)`, which returns the files that the features depend on, for the digest.
"""

import difflib
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common.as_published import Deviations
from workflow_scripts.common.encoder_names import encoder_names
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.speed import Speed, Takes, apply_speed, attend_with, check_speed

if TYPE_CHECKING:
    import torch

ENCODERS: Final = encoder_names()
PURPOSES: Final = ("fidelity", "privacy")
"""The uses of features: the official release prepares images differently for each."""


class Encoder(Protocol):
    """A network with its own preprocessing.

    Attributes:
        name: its key in the config.
        dimension: length d of one feature vector.
        preprocessing: the whole preprocessing of an input, in words; features may be compared only
            if it is the same.
        reads: `image` (prepare takes a decoded image, RGB or L) or `caption` (it takes a string).
        takes: the switches of speed that its network takes (common/speed.py).
        computes: the part of its network that images pass through, to which the switches apply.
        extras: small arrays that a reader of the features needs besides them, by name.
    """

    name: str
    dimension: int
    preprocessing: str
    reads: str
    takes: Takes
    computes: Any
    extras: dict[str, NDArray[np.float32]]

    def prepare(self, source: Any) -> "torch.Tensor":
        """Turn one image or caption into the network's input, on the CPU; thread-safe."""

    def encode(self, batch: "Sequence[torch.Tensor]") -> NDArray[np.float32]:
        """Map prepared inputs to features (n, d), float32."""


def encoder_module(name: str) -> Any:
    """Import and return an encoder's module.

    Raises:
        InputError: there is no encoder of that name.
    """
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(ENCODERS)}"
        raise InputError(f"unknown encoder {name!r}", "encoders", hint)
    return importlib.import_module(f"{__name__}.{name}")


def load_encoder(
    name: str,
    weights: Path,
    device: "torch.device",
    switches: Deviations,
    purpose: str,
    speed: Speed | None = None,
) -> Encoder:
    """Load an encoder from local files; every key of its weights is checked.

    Raises:
        InputError: no such encoder or purpose, faulty weights, or switches that it cannot take.
    """
    if purpose not in PURPOSES:
        raise InputError(f"unknown purpose {purpose!r}", None, f"use one of {', '.join(PURPOSES)}")
    encoder = encoder_module(name).load(Path(weights), device, switches, purpose)
    hasten(encoder, speed or Speed(), device.type)
    return encoder


def check_encoder_speed(name: str, speed: Speed, device: str) -> None:
    """Refuse switches that an encoder cannot take, without loading its network.

    Raises:
        InputError: it names the encoder and the switch.
    """
    kinds = vars(encoder_module(name)).values()
    takes = next(kind.takes for kind in kinds if getattr(kind, "name", None) == name)
    check_speed(speed, takes, f"the encoder {name}", device, "float32")


def hasten(encoder: Encoder, speed: Speed, device: str) -> None:
    """Set the switches of speed of an encoder whose network is on its device.

    Raises:
        InputError: it cannot take one.
    """
    check_speed(speed, encoder.takes, f"the encoder {encoder.name}", device, "float32")
    apply_speed(encoder.computes, speed)
    attend_with(encoder.computes, speed)


def check_encoder(name: str, weights: Path) -> None:
    """Check an encoder's weights without loading the network.

    Raises:
        InputError: files are missing or damaged, or keys are missing, unexpected or of another
            shape.
    """
    encoder_module(name).check(Path(weights))


def weights_sha256(name: str, weights: Path) -> str:
    """Return the sha256 of the files that an encoder's features depend on.

    For one file it is the file's own sha256, as published; for several, the sha256 over their names
    and digests.
    """
    files = encoder_module(name).files(Path(weights))
    if len(files) == 1:
        return sha256_of(files[0])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()
