"""The settings of the training of a re-identification network."""

from dataclasses import dataclass
from typing import Annotated

from workflow_scripts.common.settings import LARGEST_SEED, Key


@dataclass(frozen=True)
class ReidSettings:
    """How the network is trained on a cohort's own patients."""

    seed: Annotated[int, Key("Of pairs and augmentation.", minimum=0, maximum=LARGEST_SEED)]
    size: Annotated[int, Key("Side of the network's input in pixels.", minimum=32)] = 256
    epochs: Annotated[int, Key("Passes.", minimum=1)] = 11
    batch_size: Annotated[int, Key("Pairs of one step.", minimum=2)] = 64
    pairs: Annotated[
        int, Key("Pairs of an epoch; as many as images, if absent.", minimum=0, optional=True)
    ] = 0
    learning_rate: Annotated[float, Key("Of Adam.", above=0)] = 1e-4
    patience: Annotated[
        int, Key("Epochs without gain before a lower rate.", minimum=0, optional=True)
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
