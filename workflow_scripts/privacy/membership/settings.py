"""The settings of attacks on membership."""

from dataclasses import dataclass
from typing import Annotated, Final

from workflow_scripts.common.settings import Key

TRAINED_WITH: Final = ("method", "size", "mixed_precision", "options")
"""The settings of fine-tuning that an image's loss depends on."""

PRECISIONS: Final = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""The torch dtype of each `mixed_precision`."""

LIKELIHOODS: Final = ("llm_cxr",)
"""Families that come trained and yet have a loss: the likelihood of an image's tokens."""


@dataclass(frozen=True)
class MembershipSettings:
    """The settings of attacks on membership."""

    images: Annotated[
        int, Key("Most members, and most non-members; each has one radiograph.", minimum=10)
    ] = 1000
    noise_levels: Annotated[
        int, Key("Noise levels at which an image's loss is measured.", minimum=1)
    ] = 10
    seeds: Annotated[int, Key("Draws of noise at each noise level.", minimum=1)] = 1
    batch_size: Annotated[int, Key("Images whose loss is measured at once.", minimum=1)] = 16
