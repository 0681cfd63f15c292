"""The settings of the privacy scores."""

from dataclasses import dataclass
from typing import Annotated

from workflow_scripts.common.settings import LARGEST_SEED, Key


@dataclass(frozen=True)
class Settings:
    """The settings that every privacy score shares."""

    threshold: Annotated[
        float, Key("Re-identification score above which a prompt counts.", minimum=0, maximum=1)
    ] = 0.85
    bootstrap: Annotated[int, Key("Bootstrap replicates of patients.", minimum=0)] = 1000
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)] = 42


@dataclass(frozen=True)
class ClosestSettings:
    """The settings of the search for the closest training images."""

    matches: Annotated[
        int, Key("Closest training images kept for each generated image.", minimum=1)
    ] = 5
