"""The settings of a control."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from workflow_scripts.common.settings import LARGEST_SEED, Key

Kind = Literal[
    "held_out_real",
    "training_copies",
    "flipped_copies",
    "brightened_copies",
    "recoded_copies",
    "blurred_real",
    "warped_real",
    "noise",
]


LADDERS: Final = ("blurred_real", "warped_real")
"""The kinds of controls whose steps lose ever more texture, or topology."""


@dataclass(frozen=True)
class ControlSettings:
    """What a control shows."""

    kind: Annotated[Kind, Key("Kind of control.")]
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)]
    blur: Annotated[
        float,
        Key(
            "Sigma of the blur, relative to the shorter side; 0 for none.", minimum=0, optional=True
        ),
    ] = 0.02
    brighten: Annotated[
        float,
        Key("Share by which brightened copies raise gray values.", above=0, optional=True),
    ] = 0.1
    warp: Annotated[
        float,
        Key("Standard deviation of a warp, relative to the side.", above=0, optional=True),
    ] = 0.02
    quality: Annotated[
        int,
        Key(
            "JPEG quality of recoded copies; 100 for no JPEG.",
            minimum=1,
            maximum=100,
            optional=True,
        ),
    ] = 95
    window: Annotated[
        float,
        Key(
            "Share of pixels at each end of the gray values that recoded copies saturate.",
            minimum=0,
            below=0.5,
            optional=True,
        ),
    ] = 0.0
    size: Annotated[
        int,
        Key(
            "Side of blurred, warped and noise images, and shorter side of changed copies, pixels.",
            minimum=16,
            optional=True,
        ),
    ] = 512
