"""How many steps a fine-tuning has, and the learning rate of each. Needs no torch."""

import math
from typing import Final

from workflow_scripts.finetune.settings import TrainSettings

AUTO_RATE_BATCH: Final = 256
"""Total batch at which `auto_learning_rate` leaves the rate as it is."""


def total_steps(images: int, epochs: float, batch_size: int) -> int:
    """Return the optimiser steps of a run: every image is seen at least `epochs` times."""
    return max(1, math.ceil(images * epochs / batch_size))


def learning_rate_at(step: int, settings: TrainSettings) -> float:
    """Return the learning rate of an optimiser step: linear warm-up, then constant."""
    rate = settings.learning_rate
    if settings.auto_learning_rate:
        rate *= math.sqrt(settings.batch_size / AUTO_RATE_BATCH)
    return rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
