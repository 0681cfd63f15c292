"""The settings of a control."""

from dataclasses import dataclass
from typing import Annotated, Literal

from workflow_scripts.common.settings import LARGEST_SEED, Key

Kind = Literal[
    "held_out_real",
    "training_copies",
    "flipped_copies",
    "brightened_copies",
    "blurred_real",
    "noise",
]


@dataclass(frozen=True)
class ControlSettings:
    """What a control shows."""

    kind: Annotated[Kind, Key("Which control.")]
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)]
    blur: Annotated[
        float, Key("Sigma of the blur over the shorter side.", above=0, optional=True)
    ] = 0.02
    brighten: Annotated[
        float,
        Key("Share by which gray values of brightened copies are raised.", above=0, optional=True),
    ] = 0.1
    size: Annotated[
        int,
        Key(
            "Side of blurred or noise images in pixels, shorter side of changed copies.",
            minimum=16,
            optional=True,
        ),
    ] = 512
