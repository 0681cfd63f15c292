"""The settings of the fidelity metrics."""

from dataclasses import dataclass
from typing import Annotated

from workflow_scripts.common.settings import LARGEST_SEED, Key


@dataclass(frozen=True)
class Settings:
    """The settings of the fidelity metrics."""

    nearest_k: Annotated[
        int, Key("Neighbours of precision, recall, density, coverage.", minimum=1)
    ] = 5
    kid_bootstrap: Annotated[int, Key("Bootstrap replicates of KID's interval.", minimum=0)] = 1000
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)] = 42
