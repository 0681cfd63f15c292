"""What each switch of speed (common/speed.py) gives, beside none, on one network in one run.

A switch stands alone, so that what it gives is its own. Each line is a ratio: seconds without it by
seconds with it, above 1 where it is faster; how far the numbers move stands beside it. Compiling is
timed apart from the steps, for it is done once a job.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tests.gpu.building import (
    CAPTION,
    config_of,
    family_of,
    pipeline_for_sampling,
    pipeline_for_training,
    sample_settings,
    train_settings,
)
from tests.gpu.encoding import BATCH, PIXELS, make_encoder, radiographs
from tests.gpu.lines import Writer
from tests.gpu.measure import peak_gib, seconds_of, wait
from tests.gpu.training import make_run
from workflow_scripts.common import speed as switches
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import (
    ATTENTIONS,
    COMPILED,
    Speed,
    Takes,
    apply_speed,
    attend_with,
    check_speed,
)
from workflow_scripts.features.encoders import hasten
from workflow_scripts.features.extract import compute_exactly
from workflow_scripts.finetune.checks import PRECISIONS

FLOAT32: Final = "float32"
LOSS_AWAY: Final = 5e-3
"""Relative difference of a first loss that a switch may make, in the config's precision."""

FEATURES_AWAY: Final = 1e-4
"""Of features, in float32."""
_SAMPLED: Final = {"fp32": FLOAT32, "fp16": "float16", "bf16": "bfloat16"}


def each_switch(
    takes: Takes, device: str, precision: str, trains: bool, tiny: bool
) -> Iterator[Speed]:
    """Yield no switch, then each that a network can take on a device, what is slow to begin last.

    Not a whole network's graph of a tiny one, which takes minutes to draw on a CPU.

    Args:
        takes: of the family or encoder.
        device: `cpu` or `cuda`.
        precision: in which it multiplies.
        trains: whether the switches of training are wanted, too.
        tiny: whether the network is tiny.
    """
    every = [Speed(channels_last=True), *(Speed(attention=kind) for kind in ATTENTIONS)]
    if trains:
        every += [Speed(optimiser="foreach"), Speed(optimiser="fused")]
        every += [Speed(captions_ahead=True)]
    every += [Speed(compile=kind) for kind in COMPILED[1 : 2 if tiny else None]]
    yield Speed()
    for speed in every:
        try:
            check_speed(speed, takes, "it", device, precision)
        except InputError:
            continue
        yield speed


def time_training_switches(model: str, device: torch.device, tiny: bool, say: Writer) -> None:
    """Time a model's training step with each switch, and how far the first loss moves."""
    settings, family = train_settings(model, tiny), family_of(model)
    precision = str(PRECISIONS[settings.mixed_precision]).removeprefix("torch.")
    takes = family.takes
    _compile_briefly(tiny)
    plain = (0.0, 0.0)
    for speed in each_switch(takes, device.type, precision, settings.optimiser == "adamw", tiny):
        torch.manual_seed(0)
        pipeline = pipeline_for_training(model, device, tiny)
        chosen = dataclasses.replace(settings, speed=speed)
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(model, pipeline, chosen, device, Path(folder), steps=100)
            batch = next(run.batches())
        began = time.perf_counter()
        run.advance(batch)
        wait(device)
        first = time.perf_counter() - began
        loss = run.curve[0][2]
        ours = seconds_of(lambda run=run, batch=batch: run.advance(batch), device, 1 if tiny else 5)
        name = _name(speed)
        if not speed.chosen:
            plain = (ours, loss)
            say("none", ours, "s", "seconds per step, which the switches are compared with")
            say("none, peak memory", _peak(run, batch, device), "GiB")
        else:
            say(name, plain[0] / ours, "1", f"seconds without by with ({ours:.4g} s); a step")
            away = abs(loss - plain[1]) / plain[1]
            say.compare(f"{name}, first loss", away, LOSS_AWAY, "relative difference")
        if speed.compile != "none":
            say(f"{name}, first step", first, "s", "compiling included")
        if run.ahead is not None:
            encoding = seconds_of(lambda run=run: run.ahead.encode_block(run.step), device, 1, 0)
            note = f"a block of {run.ahead.block} steps, text encoders moved there and back"
            say(f"{name}, captions per step", encoding / run.ahead.block, "s", note)
            say(f"{name}, peak memory", _peak(run, batch, device), "GiB", "of a step")
        run.images.close()
        del run, pipeline
        _let_go(device)


def time_sampling_switches(model: str, device: torch.device, tiny: bool, say: Writer) -> None:
    """Time a model's sampler with each switch, and how far its images' values move."""
    block, family = config_of(model)["generate"], family_of(model)
    images = 2 if tiny else block["batch_size"]
    steps = 2 if tiny else 8
    settings = sample_settings(model, steps, tiny)
    _compile_briefly(tiny)
    plain: tuple[float, Any] = (0.0, None)
    for speed in each_switch(family.takes, device.type, _SAMPLED[block["precision"]], False, tiny):
        pipeline = pipeline_for_sampling(model, device, tiny)
        network = family.sampled_network(pipeline)
        apply_speed(network, speed)
        attend_with(network, speed)

        def sample(pipeline: Any = pipeline) -> Any:
            return family.sample(pipeline, [CAPTION] * images, list(range(images)), settings)

        began = time.perf_counter()
        shown = np.stack([np.asarray(image, float) for image in sample()])
        first = time.perf_counter() - began
        ours = seconds_of(sample, device, 1 if tiny else 2, 0)
        name = _name(speed)
        if not speed.chosen:
            plain = (ours, shown)
            say("none", ours, "s", f"{steps} steps of a batch of {images}")
        else:
            say(name, plain[0] / ours, "1", f"seconds without by with; {steps} steps of a batch")
            moved = float(np.abs(shown - plain[1]).mean())
            say(f"{name}, images", moved, "1", "mean absolute difference of 256 levels")
        if speed.compile != "none":
            say(f"{name}, first batch", first, "s", "compiling included")
        del pipeline, network
        _let_go(device)


def time_encoding_switches(name: str, device: torch.device, tiny: bool, say: Writer) -> None:
    """Time a bare encoder with each switch, and in half precision; how far its features move."""
    compute_exactly()
    batch = 2 if tiny else BATCH
    _compile_briefly(tiny)
    items = radiographs(2, (160, 200) if tiny else PIXELS)
    plain: tuple[float, Any] = (0.0, None)
    encoder = _encoder(name, device, tiny)
    prepared = [encoder.prepare(item.open()) for item in items]
    inputs = [prepared[i % 2].to(device) for i in range(batch)]
    for speed in each_switch(encoder.takes, device.type, FLOAT32, False, tiny):
        encoder = _encoder(name, device, tiny)
        hasten(encoder, speed, device.type)
        plain = _say_features(_name(speed), encoder.encode, inputs, device, tiny, say, plain)
    encoder = _encoder(name, device, tiny)
    for dtype in (torch.float16, torch.bfloat16):  # no switch: it changes more than rounding

        def encode(inputs: Any, dtype: torch.dtype = dtype) -> Any:
            with torch.autocast(device.type, dtype):
                return encoder.encode(inputs)

        said = f"autocast to {str(dtype).removeprefix('torch.')}, no switch"
        _say_features(said, encode, inputs, device, tiny, say, plain)


def _say_features(
    name: str,
    encode: Callable[[Any], Any],
    inputs: Any,
    device: torch.device,
    tiny: bool,
    say: Writer,
    plain: tuple[float, Any],
) -> tuple[float, Any]:
    found = encode(inputs)
    ours = seconds_of(lambda: encode(inputs), device, 1 if tiny else 4, 1)
    if plain[1] is None:
        say(name, ours, "s", f"a batch of {len(inputs)}, float32, on the device")
        return ours, found
    away = np.linalg.norm(found - plain[1], axis=1) / np.linalg.norm(plain[1], axis=1)
    say(name, plain[0] / ours, "1", "seconds without by with; a batch")
    what = "||a - b|| / ||a||, largest of the batch"
    if "autocast" in name:
        say(f"{name}, features", float(away.max()), "1", what)
    else:
        say.compare(f"{name}, features", float(away.max()), FEATURES_AWAY, what)
    return plain


def _encoder(name: str, device: torch.device, tiny: bool) -> Any:
    torch.manual_seed(0)
    return make_encoder(name, device, tiny)


def _name(speed: Speed) -> str:
    chosen = [name if value is True else f"{name} {value}" for name, value in speed.chosen.items()]
    return ", ".join(chosen) or "none"


def _peak(run: Any, batch: Any, device: torch.device) -> float:
    return peak_gib(lambda: run.advance(batch), device)


def _compile_briefly(tiny: bool) -> None:
    """On tiny networks only look whether the graph can be drawn: a compiler takes minutes."""
    if tiny:
        switches.BACKEND = "eager"  # type: ignore[misc]


def _let_go(device: torch.device) -> None:
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
