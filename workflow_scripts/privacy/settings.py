"""The settings of the privacy scores."""

from dataclasses import dataclass
from typing import Annotated

from workflow_scripts.common.settings import LARGEST_SEED, Key


@dataclass(frozen=True)
class Settings:
    """What every score depends on beside features and images."""

    threshold: Annotated[
        float, Key("Re-identification score above which a prompt counts.", minimum=0, maximum=1)
    ] = 0.85
    bootstrap: Annotated[int, Key("Bootstrap replicates over prompts.", minimum=0)] = 1000
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)] = 42


@dataclass(frozen=True)
class ClosestSettings:
    """What the search of the closest training image keeps."""

    matches: Annotated[
        int, Key("Closest training images kept of each generated one.", minimum=1)
    ] = 5
