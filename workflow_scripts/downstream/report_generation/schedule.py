"""The learning-rate schedule of a stage: linear warm-up, then a cosine decay to zero."""

import math
from collections.abc import Callable


def warmup_then_cosine(warmup_share: float) -> Callable[[float], float]:
    """Return the learning rate's factor, in [0, 1], as a function of the share of steps done.

    Args:
        warmup_share: the share of all steps over which the factor rises from 0 to 1, in [0, 1).
    """

    def factor(done: float) -> float:
        if done < warmup_share:
            return done / warmup_share
        return 0.5 * (1 + math.cos(math.pi * (done - warmup_share) / (1 - warmup_share)))

    return factor
