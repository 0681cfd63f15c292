"""The learning rate over a stage: a linear rise, then half a cosine down to zero."""

import math
from collections.abc import Callable


def warmup_then_cosine(warmup_share: float) -> Callable[[float], float]:
    """Return the rate's factor by the share of steps that is done, in [0, 1).

    Args:
        warmup_share: of all steps, in [0, 1); the factor rises from 0 to 1 over it.
    """

    def factor(done: float) -> float:
        if done < warmup_share:
            return done / warmup_share
        return 0.5 * (1 + math.cos(math.pi * (done - warmup_share) / (1 - warmup_share)))

    return factor
