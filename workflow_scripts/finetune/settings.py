"""The settings of fine-tuning (the paper's Table 11 in `config.yaml`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from workflow_scripts.common.settings import APART, LARGEST_SEED, Key
from workflow_scripts.common.speed import Speed
from workflow_scripts.finetune.families.options import OPTIONS_SCHEMA, Option, parse_option

Method = Literal["full", "lora"]
Optimiser = Literal["adamw", "came", "came_sana"]
Precision = Literal["no", "bf16", "fp16"]


CANARIES: Final = "canaries.csv"
"""The table in a folder of canaries (canaries.py)."""


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter."""

    rank: Annotated[int, Key("Rank of the two factors.", minimum=1)]
    alpha: Annotated[
        int, Key("The update is scaled by alpha / rank, or alpha / sqrt(rank).", minimum=1)
    ]
    rslora: Annotated[bool, Key("Rank-stabilised scaling (alpha / sqrt(rank)).")] = False
    targets: Annotated[
        tuple[str, ...],
        Key(
            "Positions that the family names (attention, attention_mlp, ...), or endings of module "
            "names.",
            min_items=1,
        ),
    ] = ("attention",)


@dataclass(frozen=True)
class PrivacySettings:
    """Fine-tuning with a guarantee: differential privacy whose unit is the patient (private.py)."""

    epsilon: Annotated[float, Key("Epsilon that the whole fine-tuning may spend.", above=0)]
    delta: Annotated[
        float,
        Key("Delta of the guarantee, below one over the number of patients.", above=0, below=1),
    ]
    unit: Annotated[
        Literal["patient"],
        Key("What the guarantee protects: all radiographs of a patient together."),
    ]
    max_grad_norm: Annotated[
        float,
        Key("A patient's gradient, summed over the images, is clipped to this norm.", above=0),
    ]
    noise_seed: Annotated[
        int | None,
        Key(
            "For tests: draws patients and noise from this seed; there is no guarantee against "
            "anyone who knows it. By default the seed is random and forgotten at the end.",
            minimum=0,
            maximum=LARGEST_SEED,
            optional=True,
        ),
    ] = None
    images_per_patient: Annotated[
        int | None,
        Key(
            "Refused: capping a patient's images instead of clipping their summed gradient "
            "protects images, not patients.",
            minimum=1,
            optional=True,
        ),
    ] = None


@dataclass(frozen=True)
class CanarySettings:
    """Invented radiographs that are planted in the training set, to be looked for afterwards."""

    count: Annotated[
        int,
        Key(
            "Number of invented radiographs for each number of repeats, 1, 4 and 16; a fair coin "
            "decides which are planted.",
            minimum=2,
        ),
    ]
    seed: Annotated[
        int, Key("Seed of their pictures, captions and coins.", minimum=0, maximum=LARGEST_SEED)
    ]


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a fine-tuning run."""

    learning_rate: Annotated[float, Key("Learning rate, constant after the warm-up.", above=0)]
    epochs: Annotated[
        float,
        Key(
            "Passes over the captioned training images.",
            above=0,
            schema={"type": "integer", "minimum": 1},
        ),
    ]
    batch_size: Annotated[int, Key("Total batch size, over devices and accumulation.", minimum=1)]
    per_device_batch_size: Annotated[
        int,
        Key(
            "Most images that one device takes at once; the rest of its share of a batch is "
            "accumulated.",
            minimum=1,
        ),
    ]
    size: Annotated[
        int,
        Key(
            "Side of training images in pixels.",
            minimum=8,
            schema={"type": "integer", "minimum": 16},
        ),
    ]
    method: Annotated[Method, Key("full trains every weight of the denoiser, lora an adapter.")] = (
        "full"
    )
    caption_dropout: Annotated[
        float, Key("Share of captions left empty, for guidance.", minimum=0, maximum=1)
    ] = 0.1
    weight_decay: Annotated[float, Key("Decoupled weight decay.", minimum=0)] = 1e-2
    max_grad_norm: Annotated[float, Key("Gradients are clipped to this norm.", above=0)] = 1.0
    warmup_steps: Annotated[int, Key("Steps of linear warm-up.", minimum=0)] = 0
    mixed_precision: Annotated[Precision, Key("Arithmetic on a GPU.")] = "no"
    gradient_checkpointing: Annotated[bool, Key("Saves memory and takes more time.")] = False
    checkpoint_every: Annotated[int, Key("Optimiser steps between two checkpoints.", minimum=1)] = (
        500
    )
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)] = 42
    auto_learning_rate: Annotated[
        bool,
        Key(
            "Multiply the rate by sqrt(batch_size / 256), as the trainers of PixArt and Sana do; "
            "false by default.",
            optional=True,
        ),
    ] = False
    optimiser: Annotated[
        Optimiser,
        Key(
            "adamw (the default), came as in PixArt's trainer, or came_sana as in Sana's.",
            optional=True,
        ),
    ] = "adamw"
    adam_epsilon: Annotated[
        float,
        Key(
            "Epsilon of adamw, 1e-8 by default; the 8-bit AdamW of ai-toolkit has 1e-6.",
            above=0,
            optional=True,
        ),
    ] = 1e-8
    ema_decay: Annotated[
        float | None,
        Key(
            "Decay of the moving average of the weights that is saved; null saves the last ones.",
            above=0,
            below=1,
            optional=True,
        ),
    ] = None
    lora: Annotated[LoraSettings | None, Key("The adapter of the method lora.", optional=True)] = (
        None
    )
    privacy: Annotated[
        PrivacySettings | None,
        Key(
            "Fine-tuning with a guarantee of differential privacy; none by default.", optional=True
        ),
    ] = None
    canaries: Annotated[
        CanarySettings | None,
        Key("Invented radiographs planted in the training set; none by default.", optional=True),
    ] = None
    options: Annotated[
        Mapping[str, Option],
        Key(
            "Training options of single families: shift_by_size of lumina2, text_tokens of "
            "stable_diffusion_3, caption_mask_when_dropped of pixart_sigma and sana, instruction "
            "of sana. See docs/families.md.",
            optional=True,
            flag="option",
            parse=parse_option,
            schema=OPTIONS_SCHEMA,
        ),
    ] = field(default_factory=dict)
    speed: Speed = field(default_factory=Speed, metadata=APART)
    """Switches that change rounding alone; the config has them beside the block (speed.py)."""
