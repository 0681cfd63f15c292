"""Our training step at the published size, and the bare network beside it.

The step is `run.Run.advance`, which fine-tuning itself does: captions encoded, noise drawn image
by image, loss, gradient, clipping, optimiser, moving average. The bare step shows the same network
the inputs that our step showed it, and does gradient, clipping and optimiser: neither captions nor
draws.
"""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image

from tests.gpu.building import (
    CAPTION,
    ROOT,
    config_of,
    family_of,
    pipeline_for_training,
    train_settings,
)
from tests.gpu.lines import Writer
from tests.gpu.measure import (
    CAPACITIES,
    MARGIN,
    OURS_GOAL,
    bf16_peak,
    flops_of,
    largest_batch,
    peak_gib,
    seconds_of,
)
from workflow_scripts.common.devices import accelerator_on
from workflow_scripts.common.settings import settings_of_block
from workflow_scripts.finetune.batches import divide_batch
from workflow_scripts.finetune.checks import PRECISIONS
from workflow_scripts.finetune.data import ENCODED_TOGETHER
from workflow_scripts.finetune.resume import Checkpoint
from workflow_scripts.finetune.run import EncodedCache, Run
from workflow_scripts.finetune.settings import TrainSettings
from workflow_scripts.finetune.time_limit import TimeLimit
from workflow_scripts.preflight.cost_model import training_settings
from workflow_scripts.privacy.membership.losses import Measuring, image_losses
from workflow_scripts.privacy.membership.settings import MembershipSettings

Batch = list[tuple[np.ndarray, np.ndarray, torch.Tensor]]


def time_training(model: str, device: torch.device, tiny: bool, say: Writer) -> None:
    """Measure a model's training step: seconds, memory, share of the peak, and the bare one's."""
    settings = train_settings(model, tiny)
    with tempfile.TemporaryDirectory() as folder:
        _time_training(model, settings, device, tiny, say, Path(folder))


def _time_training(
    model: str, settings: TrainSettings, device: torch.device, tiny: bool, say: Writer, folder: Path
) -> None:
    pipeline = pipeline_for_training(model, device, tiny)
    run = make_run(model, pipeline, settings, device, folder)
    batch = next(run.batches())
    images = settings.per_device_batch_size
    tuned = config_of(model)["finetune"] | {"size": settings.size}
    method = training_settings(tuned, images)
    repeats = 1 if tiny else 5
    seen: dict[str, Any] = {}

    def keep(_: Any, args: Any, named: Any) -> None:
        seen.update(args=args, named=named)

    hook = run.network.register_forward_pre_hook(keep, with_kwargs=True)
    run.advance(batch)
    hook.remove()
    ours = seconds_of(lambda: run.advance(batch), device, repeats)
    say("seconds per step", ours, "s", f"{method}, one pass a step")
    say("images per second", images / ours, "1/s", method)
    peaks = {images: peak_gib(lambda: run.advance(batch), device)}
    say("peak memory", peaks[images], "GiB", method)
    bare = seconds_of(lambda: bare_step(run, seen["args"], seen["named"]), device, repeats)
    say("seconds per bare step", bare, "s", "the network on the same inputs, and the optimiser")
    say.goal("bare / ours", bare / ours, OURS_GOAL, "of the seconds of a step")
    shown = [run.captions[row] for row in batch[0][0]]
    say(
        "seconds for captions",
        seconds_of(lambda: encode(run, shown), device, repeats),
        "s",
        "of our step",
    )
    autoencoder: Any = getattr(pipeline, run.family.encode_with(pipeline))
    autoencoder.to(device)  # training has moved it off, once all images were encoded
    pixels = torch.zeros(ENCODED_TOGETHER, 3, settings.size, settings.size, device=device)
    encoding = seconds_of(lambda: run._encode_images(pixels), device, repeats)
    note = f"{settings.size} px, {ENCODED_TOGETHER} at a time, by the autoencoder alone"
    say("images encoded per second", ENCODED_TOGETHER / encoding, "1/s", note)
    attack = membership_settings(tiny)
    note = training_settings(tuned, attack.batch_size)
    say("losses per second", losses_per_second(run, attack, device), "1/s", note)
    autoencoder.to("cpu")
    half = max(1, images // 2)
    if half < images:
        fewer = [(rows[:half], indices[:half], encoded[:half]) for rows, indices, encoded in batch]
        peaks[half] = peak_gib(lambda: run.advance(fewer), device)
        for name, capacity in CAPACITIES.items():
            most = largest_batch(peaks, capacity)
            line = f"a line through {half} and {images} images, {MARGIN:.0%} of the memory free"
            say(f"largest batch, {name}", most, "images", line)
    flops = flops_of(lambda: run.advance(batch))
    if flops is not None:
        say("FLOP per step", flops, "FLOP", "of products, what is recomputed included")
        peak = bf16_peak(device)
        if peak is not None:
            note = f"of {peak / 1e12:.0f} TFLOP/s, the data sheet's"
            say("share of the bf16 peak", flops / ours / peak, "1", note)
    run.images.close()


def membership_settings(tiny: bool) -> MembershipSettings:
    """Return config.yaml's settings of attacks on membership; tiny, of two images at a time."""
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    given = yaml.safe_load(text)["privacy"]["membership"] | ({"batch_size": 2} if tiny else {})
    return settings_of_block(MembershipSettings, given)


def losses_per_second(run: Run, attack: MembershipSettings, device: torch.device) -> float:
    """Return how many losses of images an attack on membership measures a second.

    Reading and encoding of images and captions, once for all noise levels, is included. One and
    two noise levels are timed, of which the seconds of all follow.
    """
    rows = run.rows.iloc[[k % len(run.rows) for k in range(attack.batch_size)]]
    paths, captions = rows["path"].tolist(), rows["caption"].tolist()
    dtype = PRECISIONS[run.settings.mixed_precision]
    run.network.eval()

    def seconds(levels: int, warm_up: int) -> float:
        how = Measuring(run.settings.size, levels, 1, dtype)
        measure = functools.partial(image_losses, run.family, run.pipeline, paths, captions, how)
        return seconds_of(measure, device, 1, warm_up)

    one, two = seconds(1, warm_up=1), seconds(2, warm_up=0)
    run.network.train()
    draws = attack.noise_levels * attack.seeds
    return 2 * draws * attack.batch_size / (one + (draws - 1) * max(0.0, two - one))


def make_run(
    model: str,
    pipeline: Any,
    settings: TrainSettings,
    device: torch.device,
    folder: Path,
    checkpoint: Checkpoint | None = None,
    steps: int = 1,
) -> Run:
    """Return fine-tuning's own state on images of noise, which are written to `folder`.

    Args:
        model: its block in config.yaml.
        pipeline: from `pipeline_for_training`.
        settings: from `train_settings`.
        device: where the pipeline lies.
        folder: gets the images.
        checkpoint: to go on from.
        steps: how many steps the images last for.
    """
    rng = np.random.default_rng(0)
    paths = []
    for i in range(4):
        side = settings.size // 8
        small = Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8))
        paths.append(folder / f"{i}.jpg")
        small.resize((settings.size, settings.size), Image.Resampling.BICUBIC).save(paths[-1])
    count = settings.batch_size * steps
    rows = pd.DataFrame(
        {
            "image_id": [f"image{i}" for i in range(count)],
            "path": [str(paths[i % len(paths)]) for i in range(count)],
            "caption": CAPTION,
        }
    )
    accelerator = accelerator_on(device, settings.mixed_precision)
    _, accumulate = divide_batch(
        settings.batch_size, accelerator.num_processes, settings.per_device_batch_size
    )
    return Run(
        family_of(model),
        pipeline,
        rows,
        settings,
        accelerator,
        accumulate,
        2,
        checkpoint,
        EncodedCache(None, {}),
        TimeLimit(None),
    )


def bare_step(run: Run, args: Any, named: Any) -> None:
    """Do one step of the network alone, on inputs that it was shown before."""
    output = run.network(*args, **named)
    predicted = output[0] if isinstance(output, tuple) else output.sample
    predicted.float().square().mean().backward()
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), run.settings.max_grad_norm)
    run.optimiser.step()
    run.optimiser.zero_grad()


def encode(run: Run, captions: list[str]) -> None:
    """Encode captions as our step does."""
    with torch.no_grad():
        run.family.encode_shown(run.pipeline, captions, [False] * len(captions))
