"""The settings of a classifier's training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from workflow_scripts.common.settings import LARGEST_SEED, Key


@dataclass(frozen=True)
class ClassifierSettings:
    """The settings of training a classifier, the same for every arm."""

    weights: Annotated[Path, Key("Initialisation in timm's or torchvision's layout.")]
    size: Annotated[int, Key("Side of the network's input in pixels.", minimum=32)]
    epochs: Annotated[int, Key("Passes over the training images.", minimum=1)]
    batch_size: Annotated[
        int, Key("Images of an optimiser step, in one or several pieces.", minimum=1)
    ]
    learning_rate: Annotated[float, Key("Learning rate of Adam.", above=0)]
    weight_decay: Annotated[float, Key("Weight decay of Adam.", minimum=0)]
    validation_share: Annotated[
        float, Key("Share of patients held out to choose the epoch.", above=0, below=1)
    ]
    scheduler_factor: Annotated[float, Key("Factor of ReduceLROnPlateau.", above=0, below=1)]
    scheduler_patience: Annotated[int, Key("Patience of ReduceLROnPlateau in epochs.", minimum=0)]
    rotation_degrees: Annotated[float, Key("Largest random rotation.", minimum=0)]
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)]
    per_device_batch_size: Annotated[
        int | None,
        Key(
            "The most images at once on the GPU; gradients of the pieces of a batch are summed. "
            "Loss and gradient are those of the whole batch, but batch normalisation takes its "
            "statistics over a piece. As large as batch_size, nothing is accumulated.",
            minimum=1,
            schema={"type": "integer", "minimum": 1},
        ),
    ] = None
    mixed_precision: Annotated[
        Literal["no", "bf16"],
        Key("Arithmetic of training; weights and the test images' pass are float32."),
    ] = "no"
