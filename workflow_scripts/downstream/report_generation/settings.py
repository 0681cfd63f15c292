"""The settings of a report generator's training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from workflow_scripts.common.settings import LARGEST_SEED, Key


@dataclass(frozen=True)
class ReporterSettings:
    """How a report generator is trained, and how it describes the test images."""

    start: Annotated[
        Path,
        Key(
            "Folder of base/ and released/, each a LLaVA in transformers' layout; "
            "convert_llava_rad writes it."
        ),
    ]
    real_images: Annotated[
        int,
        Key("Captioned training radiographs that are drawn; all if there are fewer.", minimum=2),
    ]
    draw_seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)]
    projector_epochs: Annotated[int, Key("Passes of the first stage.", minimum=1)]
    projector_batch_size: Annotated[int, Key("Total batch size of the first stage.", minimum=1)]
    projector_learning_rate: Annotated[float, Key("Peak rate of the first stage.", above=0)]
    epochs: Annotated[int, Key("Passes of the second stage.", minimum=1)]
    batch_size: Annotated[int, Key("Total batch size of the second stage.", minimum=1)]
    learning_rate: Annotated[float, Key("Peak rate of the second stage.", above=0)]
    lora_rank: Annotated[
        int, Key("Rank of the adapter on the language model's linear layers.", minimum=1)
    ]
    lora_alpha: Annotated[int, Key("The adapter is scaled by alpha / rank.", minimum=1)]
    lora_dropout: Annotated[float, Key("Dropout of the adapter's inputs.", minimum=0, below=1)]
    warmup_share: Annotated[
        float, Key("Share of a stage's steps over which the rate rises.", minimum=0, below=1)
    ]
    weight_decay: Annotated[float, Key("Weight decay of AdamW.", minimum=0)]
    max_grad_norm: Annotated[float, Key("Gradients are clipped to this norm.", above=0)]
    max_length: Annotated[int, Key("Tokens of prompt, image and report together.", minimum=1)]
    max_new_tokens: Annotated[int, Key("Most tokens of a generated report.", minimum=1)]
    validation_images: Annotated[
        int,
        Key(
            "Most images of the validation split to compute the loss on after each epoch.",
            minimum=0,
        ),
    ]
    mixed_precision: Annotated[
        Literal["no", "bf16"], Key("Precision of the frozen weights and of the computation.")
    ]
    seed: Annotated[int, Key("Seed of the stage.", minimum=0, maximum=LARGEST_SEED)]
    per_device_batch_size: Annotated[
        int, Key("Images of one device at a time; the rest of its batch is accumulated.", minimum=1)
    ]
    generate_batch_size: Annotated[int, Key("Images that are described at a time.", minimum=1)]
    checkpoint_every: Annotated[
        int, Key("Optimiser steps between two checkpoints of the progress.", minimum=1)
    ]
    image_memory: Annotated[
        float, Key("Gigabytes of decoded images that each process keeps.", minimum=0)
    ]
    gradient_checkpointing: Annotated[bool, Key("Recompute activations to save memory.")] = False
