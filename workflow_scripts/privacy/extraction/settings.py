"""The settings of the extraction attack."""

from dataclasses import dataclass
from typing import Annotated, Literal

from workflow_scripts.common.settings import Key


@dataclass(frozen=True)
class ExtractionSettings:
    """The settings of the extraction attack."""

    false_alarms: Annotated[
        float,
        Key(
            "Probability with which a new patient's radiograph may raise the alarm.",
            above=0,
            below=1,
        ),
    ] = 0.01
    neighbours: Annotated[
        int,
        Key("Closest training radiographs; their mean distance divides an image's least distance.",
            minimum=2),
    ] = 50  # fmt: skip
    repeats: Annotated[
        int, Key("Images of one caption that must be alike for the caption to repeat an image.",
                 minimum=2),
    ] = 3  # fmt: skip
    views: Annotated[
        Literal["as_it_lies", "mirrored", "mirrored_and_moved"],
        Key("How the images that the attacker picks are compared: as they lie; also mirrored; or "
            "each of both also moved by 3% of the side to eight sides, and 6% larger and smaller.",
            optional=True),
    ] = "mirrored_and_moved"  # fmt: skip
