"""Our sampler at the published size, and the bare network beside it.

Two short runs of `Family.sample` give the seconds of a step and of what comes once (captions,
decoding); the line through them gives those of all steps. The bare network is shown the inputs that
it was shown in these runs, again, with nothing in between.
"""

from typing import Any, Final

import torch

from tests.gpu.building import (
    CAPTION,
    config_of,
    family_of,
    pipeline_for_sampling,
    sample_settings,
)
from tests.gpu.lines import Writer
from tests.gpu.measure import OURS_GOAL, at_steps, peak_gib, seconds_of
from tests.gpu.published import SYSTEMS
from workflow_scripts.preflight.cost_model import sampling_settings

FEW_AND_MANY: Final = (4, 8)
"""Steps of the two runs. Lumina 2 guides a quarter of them, so both are multiples of four."""


def time_sampling(
    model: str, device: torch.device, tiny: bool, say: Writer, precision: str | None = None
) -> None:
    """Measure a model's sampler: images a second, memory, and the bare network's.

    Args:
        model: its block in config.yaml.
        device: where it samples.
        tiny: whether with tiny networks.
        say: takes what is measured.
        precision: by default that of config.yaml.
    """
    block, family = config_of(model)["generate"], family_of(model)
    steps, images = block["steps"], 2 if tiny else block["batch_size"]
    precision = precision or block["precision"]
    pipeline = pipeline_for_sampling(model, device, tiny, precision)
    network: Any = getattr(pipeline, SYSTEMS[model].network[0])
    captions, seeds = [CAPTION] * images, list(range(images))

    def sample(count: int) -> None:
        shown = family.sample(pipeline, captions, seeds, sample_settings(model, count, tiny))
        assert len(shown) == images

    def calls_of(count: int) -> list[tuple[Any, Any]]:
        calls: list[tuple[Any, Any]] = []

        def keep(_: Any, args: Any, named: Any) -> None:
            calls.append((args, named))

        hook = network.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            sample(count)
        finally:
            hook.remove()
        return calls

    def replay(calls: list[tuple[Any, Any]]) -> None:
        with torch.no_grad():
            for args, named in calls:
                network(*args, **named)

    few, many = (2, 4) if tiny else FEW_AND_MANY
    repeats = 1 if tiny else 2
    calls = {count: calls_of(count) for count in (few, many)}  # also the warm-up
    ours = {
        count: seconds_of(lambda count=count: sample(count), device, repeats, warm_up=0)
        for count in (few, many)
    }
    bare = {
        count: seconds_of(lambda shown=shown: replay(shown), device, repeats, warm_up=0)
        for count, shown in calls.items()
    }
    size = sample_settings(model, steps, tiny).size
    how = sampling_settings({**block, "precision": precision}, size, images)
    ours_s, bare_s = (
        at_steps((few, found[few]), (many, found[many]), steps) for found in (ours, bare)
    )
    how += f", from runs of {few} and {many} steps"
    if ours_s is None or bare_s is None:
        say("images per second", None, "1/s", f"{how}: the longer run took no longer")
    else:
        say("images per second", images / ours_s, "1/s", how)
        say("seconds per batch", ours_s, "s", how)
        say("seconds per bare batch", bare_s, "s", "the network on the same inputs")
        say.goal("bare / ours", bare_s / ours_s, OURS_GOAL, "of the seconds of a batch")
    say("peak memory", peak_gib(lambda: sample(few), device), "GiB", how)
