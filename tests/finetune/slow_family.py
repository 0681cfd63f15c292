"""A Stable Diffusion whose steps seem to take five minutes: the clock moves on, nobody waits.

For processes of their own alone: the clock of this process's time limit is another one from the
import on. Of several processes only the first one's clock moves, as if the others were fast.
"""

import os
import time
from types import SimpleNamespace

from workflow_scripts.finetune import time_limit
from workflow_scripts.finetune.families.stable_diffusion import StableDiffusion

STEP_S = 300.0
_moved_s = 0.0

time_limit.time = SimpleNamespace(time=lambda: time.time() + _moved_s)


class SlowStableDiffusion(StableDiffusion):
    name = "slow_stable_diffusion"

    def loss(self, pipeline, network, encoded, conditions, draws):
        global _moved_s
        if os.environ.get("RANK", "0") == "0":
            _moved_s += STEP_S
        return super().loss(pipeline, network, encoded, conditions, draws)
