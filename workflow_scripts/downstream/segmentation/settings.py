"""The settings of the pseudo-masks and of a U-Net's training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from workflow_scripts.common.settings import LARGEST_SEED, Key


@dataclass(frozen=True)
class LabellerSettings:
    """The network that draws the pseudo-masks, in place of a radiologist."""

    weights: Annotated[Path, Key("CXAS's published UNet_ResNet50_default.pth.")]
    classes: Annotated[
        tuple[int, ...],
        Key(
            "The network's classes that make up the foreground; 31 and 32 are the left and the "
            "right clavicle.",
            minimum=0,
            min_items=1,
            unique=True,
        ),
    ]
    size: Annotated[
        int, Key("Side of the input in pixels; the published network has 512.", minimum=32)
    ]
    batch_size: Annotated[int, Key("Images at a time.", minimum=1)]


@dataclass(frozen=True)
class DrawSettings:
    """The draw of the prompts that get masks."""

    images: Annotated[
        int,
        Key(
            "Number of augment prompts to draw, the same for all models; all if there are fewer.",
            minimum=2,
        ),
    ]
    draw_seed: Annotated[int, Key("Seed of that draw.", minimum=0, maximum=LARGEST_SEED)]


@dataclass(frozen=True)
class SegmenterSettings:
    """The settings of training a U-Net, the same for every arm."""

    size: Annotated[
        int,
        Key(
            "Side of the U-Net's input in pixels; each level but the first halves it.",
            minimum=8,
            schema={"type": "integer", "minimum": 32},
        ),
    ]
    steps: Annotated[
        int, Key("Optimiser steps, rounded to whole passes; the same for all arms.", minimum=1)
    ]
    batch_size: Annotated[int, Key("Total batch size.", minimum=1)]
    learning_rate: Annotated[float, Key("Learning rate of Adam.", above=0)]
    channels: Annotated[
        tuple[int, ...],
        Key("Channels of the U-Net's levels, the finest first.", minimum=1, min_items=2),
    ]
    residual_units: Annotated[
        int, Key("Convolutions of a level with a shortcut; 0 for one without.", minimum=0)
    ]
    loss: Annotated[
        Literal["dice_ce", "dice", "ce"],
        Key("Soft Dice, binary cross-entropy, or their sum."),
    ]
    validation_share: Annotated[
        float, Key("Share of patients held out to choose the epoch.", above=0, below=1)
    ]
    rotation_degrees: Annotated[float, Key("Largest random rotation.", minimum=0)]
    contrast: Annotated[
        float, Key("Largest random change of contrast and brightness.", minimum=0, maximum=1)
    ]
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)]
    exact_masks: Annotated[
        Path | None,
        Key(
            "Folder of masks of test images, drawn by hand: {image_id}.png, not zero where the "
            "structure is; null if there are none."
        ),
    ] = None
