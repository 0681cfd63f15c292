"""The settings of the training of a re-identification network."""

from dataclasses import dataclass
from typing import Annotated

from workflow_scripts.common.settings import LARGEST_SEED, Key


@dataclass(frozen=True)
class ReidSettings:
    """How the network is trained on a cohort's own patients."""

    seed: Annotated[int, Key("Seed of pairs and augmentation.", minimum=0, maximum=LARGEST_SEED)]
    size: Annotated[int, Key("Side of the network's input in pixels.", minimum=32)] = 256
    epochs: Annotated[int, Key("Number of epochs.", minimum=1)] = 11
    batch_size: Annotated[int, Key("Pairs in one step.", minimum=2)] = 64
    pairs: Annotated[
        int, Key("Pairs in an epoch; by default as many as images.", minimum=0, optional=True)
    ] = 0
    learning_rate: Annotated[float, Key("Learning rate of Adam.", above=0)] = 1e-4
    patience: Annotated[
        int, Key("Epochs without improvement before the rate falls.", minimum=0, optional=True)
    ] = 5
    validation_share: Annotated[
        float, Key("Share of patients held out to choose the epoch.", above=0, below=1)
    ] = 0.05
    rotation_degrees: Annotated[
        float, Key("Largest random rotation.", minimum=0, optional=True)
    ] = 0.0
    contrast: Annotated[
        float,
        Key(
            "Largest random change of contrast and brightness.",
            minimum=0,
            maximum=1,
            optional=True,
        ),
    ] = 0.0
