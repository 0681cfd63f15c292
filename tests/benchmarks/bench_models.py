"""What this project's training and sampling cost beside diffusers alone, side by side in one run.

Repeat it with `python -m tests.benchmarks.bench_models` from the repository root (about a minute on
two cores). Both sides use the same tiny Stable Diffusion, images, batch and threads:

- a fine-tuning step, against the loop of diffusers' text-to-image example, which decodes, encodes
  with the VAE and encodes the caption in every step;
- sampling a shard, against calling the pipeline.

Loading is left out: two runs of different length are timed, and their difference is reported. With
`--small` it is counted: one short run is timed, of less work.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from tests.benchmarks.inputs import with_nulls
from tests.benchmarks.measure import Result, make_parser, parse, report, timed
from workflow_scripts.common.manifest import (
    MANIFEST_SCHEMA,
    PROMPT_SCHEMA,
    write_manifest,
    write_prompts,
)
from workflow_scripts.finetune.data import load_pixels
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import SampleSettings
from workflow_scripts.finetune.layout import Base
from workflow_scripts.finetune.train import TrainSettings, finetune
from workflow_scripts.generate.sample import Sampling, sample_shard
from workflow_scripts.generate.settings import BatchSettings
from workflow_scripts.world.diffusion import clip_tokenizer_files, tiny_vae, write_tiny_pipeline

SIZE = 64
FAMILY = get_family("stable_diffusion")


@dataclass(frozen=True)
class Load:
    """How much both sides have to do."""

    images: int
    batch: int
    denoising_steps: int
    threads: int


def main(argv: list[str] | None = None) -> None:
    """Time both pairs and print their ratios."""
    args = parse(make_parser(__doc__), argv)
    steps, batches, repeats = ((0, 2), (0, 1), 1) if args.small else ((5, 45), (1, 9), 3)
    load = Load(4, 2, 2, 1) if args.small else Load(64, 16, 20, 2)
    loading = "loading included" if args.small else "loading left out"
    sizes = f"tiny Stable Diffusion, batches of {load.batch}, {SIZE} px, "
    sizes += f"{load.threads} thread(s), {loading}"
    peer = f"diffusers {version('diffusers')}"
    logging.disable(logging.INFO)
    torch.set_num_threads(load.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = make_world(folder, load.images)
        ours = per_unit(lambda n: train_ours(folder, base, n, load), *steps, repeats)
        plain = per_unit(lambda n: train_plainly(folder, base, n, load), *steps, repeats)
        print(f"fine-tuning: {1 / ours:.1f} steps/s, plain loop {1 / plain:.1f}", end="; ")
        print(f"ratio {plain / ours:.2f}")
        report(Result("fine-tuning", f"a step, {sizes}: ours; plain loop", ours, plain, peer))
        ours = per_unit(lambda n: sample_ours(folder, base, n, load), *batches, repeats)
        bare = per_unit(lambda n: sample_plainly(base, n, load), *batches, repeats)
        print(f"sampling: {load.batch / ours:.1f} images/s, bare {load.batch / bare:.1f}", end="; ")
        print(f"ratio {bare / ours:.2f}")
        report(Result("sampling", f"a batch, {sizes}: a shard; bare pipeline", ours, bare, peer))


def per_unit(work: Callable[[int], None], few: int, many: int, repeats: int) -> float:
    """Return the seconds of one unit of work: the median over pairs of runs.

    Args:
        work: does so many units.
        few: of the shorter run, whose time is subtracted; 0 for no such run.
        many: of the longer run.
        repeats: how many pairs.
    """
    seconds = []
    for _ in range(repeats):
        less = timed(lambda: work(few))[1] if few else 0
        seconds.append((timed(lambda: work(many))[1] - less) / (many - few))
    return float(np.median(seconds))


def make_world(folder: Path, images: int) -> Base:
    """Write images, a manifest and an untrained tiny Stable Diffusion."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(images):
        path = folder / f"{i}.jpg"
        Image.fromarray(rng.integers(0, 256, (256, 256), dtype=np.uint8)).save(path)
        rows.append({"image_id": f"i{i}", "patient_id": f"p{i}", "path": str(path)})
    frame = pd.DataFrame(rows).assign(
        study_id="s", view="PA", split="train", caption_source="benchmark"
    )
    frame["caption"] = [f"caption number {i}" for i in range(images)]
    write_manifest(with_nulls(frame, MANIFEST_SCHEMA), folder / "manifest.parquet")
    torch.manual_seed(0)
    write_tiny_pipeline(
        1, clip_tokenizer_files(["caption number 1"], 20), tiny_vae(), folder / "sd"
    )
    return Base(folder / "sd")


def train_ours(folder: Path, base: Base, steps: int, load: Load) -> None:
    """Fine-tune for some steps as the workflow does."""
    settings = TrainSettings(
        method="full",
        learning_rate=1e-4,
        epochs=steps * load.batch / load.images,
        batch_size=load.batch,
        per_device_batch_size=load.batch,
        size=SIZE,
        caption_dropout=0.1,
        weight_decay=1e-2,
        max_grad_norm=1.0,
        warmup_steps=0,
        mixed_precision="no",
        gradient_checkpointing=False,
        checkpoint_every=10_000,
        seed=0,
    )
    output, progress = (folder / f"{name}-{steps}" for name in ("span", "progress"))
    manifest = folder / "manifest.parquet"
    shutil.rmtree(progress, ignore_errors=True)  # else the second run finds the first one's end
    finetune(FAMILY, base, manifest, output, progress, settings, threads=load.threads)


def train_plainly(folder: Path, base: Base, steps: int, load: Load) -> None:
    """Fine-tune for some steps as diffusers' example does."""
    from diffusers import DDPMScheduler

    pipeline = FAMILY.load(base)
    unet = pipeline.unet.requires_grad_(True).train()
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-4, weight_decay=1e-2)
    rows = pd.read_parquet(folder / "manifest.parquet")
    for step in range(steps):
        chosen = rows.iloc[
            [i % load.images for i in range(step * load.batch, (step + 1) * load.batch)]
        ]
        pixels = np.stack([load_pixels(path, SIZE) for path in chosen["path"]])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens = pipeline.tokenizer(
            chosen["caption"].tolist(), padding="max_length", truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            latents = pipeline.vae.encode(images).latent_dist.sample()
            text = pipeline.text_encoder(tokens.input_ids)[0]
        latents = latents * pipeline.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = torch.randint(schedule.config.num_train_timesteps, (load.batch,))
        predicted = unet(schedule.add_noise(latents, noise, times), times, text).sample
        torch.nn.functional.mse_loss(predicted, noise).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()


def sample_ours(folder: Path, base: Base, batches: int, load: Load) -> None:
    """Sample a shard of so many batches."""
    n = batches * load.batch
    frame = pd.DataFrame(
        {
            "prompt_id": [f"p{i}" for i in range(n)],
            "image_id": "i0",
            "caption": "caption number 1",
            "caption_source": "llava_rad",
            "second_wording": False,
            "replicate": 0,
            "seed": range(n),
        }
    )
    prompts = folder / f"prompts-{batches}.parquet"
    write_prompts(with_nulls(frame, PROMPT_SCHEMA), prompts)
    output, progress = folder / "shard.parquet", folder / "sampling"
    settings = SampleSettings(load.denoising_steps, 7.5, SIZE)
    batches = BatchSettings(load.batch)
    sampling = Sampling(FAMILY, base, settings, batches, threads=load.threads)
    sample_shard(sampling, prompts, output, progress)


def sample_plainly(base: Base, batches: int, load: Load) -> None:
    """Call the pipeline so many times."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(base.folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    for batch in range(batches):
        pipeline(
            ["caption number 1"] * load.batch,
            height=SIZE,
            width=SIZE,
            num_inference_steps=load.denoising_steps,
            guidance_scale=7.5,
            generator=[
                torch.Generator().manual_seed(batch * load.batch + i) for i in range(load.batch)
            ],
        )


if __name__ == "__main__":
    main()
