"""Sample one shard of a prompt set from a checkpoint.

    python -m workflow_scripts.generate.sample --model sd_v1_5 --family stable_diffusion \\
        --base results/finetune/sd_v1_5/checkpoint --prompts P.parquet \\
        --shard 0 --shards 4 --output FILE --progress DIR --steps 50 --guidance 7.5 --size 512 ...

An image depends on the model, its prompt and its seed, not on the number of shards, nor on how many
processes share one: with `--gpus 4`, four divide its batches. Every finished batch is kept in the
progress folder; a killed job continues after the last one. What is left of a job that was given up
cannot meddle with its retry (attempts.py).
"""

import argparse
import hashlib
import importlib.metadata
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import pandas as pd

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of
from workflow_scripts.common.images import (
    ImageItem,
    is_constant,
    png_bytes,
    read_shards,
    shard_jobs,
    write_shard,
)
from workflow_scripts.common.manifest import read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import slurm_job
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.common.speed import (
    COMPUTING,
    SWITCHES,
    Speed,
    add_speed_flag,
    apply_speed,
    attend_with,
    check_speed,
    speed_of,
    switches_said,
)
from workflow_scripts.common.speed_record import speed_record
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.finite import NotFiniteError, finite_decoding
from workflow_scripts.finetune.layout import Base, add_base_flags
from workflow_scripts.finetune.lora import check_lora, load_lora
from workflow_scripts.generate.lifeline import started
from workflow_scripts.generate.peers import (
    Peers,
    is_peer,
    peers_of,
    run_in_peers,
    together,
)
from workflow_scripts.generate.settings import BatchSettings
from workflow_scripts.generate.sharding import shard_batches

log = logging.getLogger(__name__)

PRECISIONS: Final = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_LIBRARIES: Final = ("torch", "diffusers", "transformers", "pillow")
"""What a batch's last bits depend on beside the project's code."""


def sample_shard(
    family: Family,
    base: Base,
    prompts: Path,
    output: Path,
    progress: Path,
    settings: SampleSettings,
    batch_size: int,
    shard: int = 0,
    shards: int = 1,
    label: str = "model",
    gpus: int = 0,
    threads: int = 1,
    lora: Path | None = None,
    precision: str = "fp32",
    version: int = 1,
    speed: Speed | None = None,
) -> None:
    """Sample the images of one shard and write them to `output` (common/images.py).

    Args:
        family: what kind of model the checkpoint is.
        base: the checkpoint; always loaded from disk.
        prompts: the prompt set.
        output: the Parquet shard to write.
        progress: folder of finished batches; removed once the output is in place.
        settings: see `SampleSettings`.
        batch_size: images denoised together; part of what the last bits of an image depend on.
        shard: which shard, from 0.
        shards: how many there are.
        label: the model's key, for the log.
        gpus: how many GPUs the job was given, over all its processes; 0 for the CPU.
        threads: of torch.
        lora: folder of an adapter that was trained on the base.
        precision: `fp32`, `bf16` or `fp16`, of weights and arithmetic; of the autoencoder `fp32`
            where the family says so. The noise that an image starts from is the same in all.
        version: of the stage; batches of another one are not continued.
        speed: switches that change rounding alone.

    Raises:
        InputError: an unusable checkpoint, prompt set or setting; another attempt took over; what
            a prompt becomes is not finite or one gray value, and is no image.
    """
    check_settings(family, settings)
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}", "--precision", f"use {', '.join(PRECISIONS)}")
    speed = speed or Speed()
    check_speed(
        speed,
        family.takes,
        f"the family {family.name}",
        "cuda" if gpus else "cpu",
        PRECISIONS[precision],
    )
    peers = peers_of(os.environ, gpus)
    files = {base.component_of(path) or path.name: path for path in family.check(base)}
    if lora:
        files["lora"] = check_lora(lora)
    frame = read_prompts(prompts)
    batches = shard_batches(len(frame), batch_size, shard, shards)
    with together(peers):
        # The main process reads the weights through for all.
        identity = peers.told(
            _identity(family, version, files, frame, settings, batch_size, gpus > 0, precision)
            if peers.main
            else None
        )
        names = [f"batch-{identity}-{batch.start:08d}.parquet" for batch in batches]
        attempt = _begin(progress, names, peers)
        parts = [attempt.folder / name for name in names]
        # All look before any writes, and the main process says what it saw.
        missing = peers.told([i for i, part in enumerate(parts) if not part.exists()])
        if own := peers.share(missing):
            pipeline, device = _placed(
                family, base, lora, settings, precision, speed, gpus, threads, peers
            )
            done = sum(len(batch) for i, batch in enumerate(batches) if i not in missing)
            total = done + sum(len(batches[i]) for i in own)
            share = f", process {peers.rank + 1} of {peers.count}" if peers.count > 1 else ""
            shown = Progress(f"sampling {label}, shard {shard}{share}", total, "images", done=done)
            made_by = {"device": device, **slurm_job(), **speed_record(speed)}
            for i in own:
                rows = frame.iloc[batches[i].start : batches[i].stop]
                items = _sample_batch(family, pipeline, rows, settings)
                with attempt.writing() as folder:
                    write_shard(items, folder / names[i], [made_by], make_parents=False)
                shown.update(len(rows))
        peers.wait()
    if not peers.main:
        return
    attempt.check()  # before anything is written: a newer attempt may be writing the same
    # A job that was killed has its part in the shard, too.
    jobs = [job for part in parts for job in shard_jobs(part)]
    write_shard(
        read_shards(parts), output, [job for i, job in enumerate(jobs) if job not in jobs[:i]]
    )
    attempt.end()


def _begin(progress: Path, names: list[str], peers: Peers) -> Attempt:
    """Return the job's attempt, which the main process makes and the others join."""
    attempt = Attempt(progress) if peers.main else None
    if attempt:
        attempt.inherit()
        if others := {path.name for path in attempt.folder.iterdir()} - set(names):
            log.warning(
                "%d batch(es) in %s were made from other inputs and are not continued",
                len(others),
                progress,
            )
    folder = peers.told(str(attempt.folder) if attempt else None)
    return attempt or Attempt.joined(Path(folder))


def _placed(
    family: Family,
    base: Base,
    lora: Path | None,
    settings: SampleSettings,
    precision: str,
    speed: Speed,
    gpus: int,
    threads: int,
    peers: Peers,
) -> tuple[Any, str]:
    """Return the pipeline on this process's device, ready to sample, and the device's name."""
    import torch

    from workflow_scripts.common.devices import device_name, pick_device

    # Pipelines log the end of a caption that is longer than their text encoder takes.
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    device = pick_device(gpus)
    if device.type == "cuda":
        torch.cuda.set_device(peers.local)
    # Beside GPUs the processes share the job's processors; on CPUs bits may depend on threads.
    torch.set_num_threads(max(1, threads // peers.count) if gpus else threads)
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bf16", "--precision", "use fp16 or fp32")
    pipeline = family.load(
        base,
        getattr(torch, PRECISIONS[precision]),
        **({"vae_dtype": torch.float32} if family.decodes_in_float32 else {}),
    )
    if lora:
        load_lora(family, pipeline, lora)
    family.check_size(pipeline, settings.size)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    if speed.chosen:
        network = family.sampled_network(pipeline)
        apply_speed(network, speed)
        attend_with(network, speed)
    return pipeline, device_name(device)


def _sample_batch(
    family: Family, pipeline: Any, rows: pd.DataFrame, settings: SampleSettings
) -> list[ImageItem]:
    captions, seeds = rows["caption"].tolist(), rows["seed"].tolist()
    try:
        with finite_decoding(getattr(pipeline, family.decoder, None)):
            images = family.sample(pipeline, captions, seeds, settings)
    except NotFiniteError as error:
        what = f"{error.what} are not finite (NaN or infinite)"
        raise _not_an_image(rows, error.rows, what) from None
    images = [image.convert("RGB") for image in images]
    if constant := [row for row, image in enumerate(images) if is_constant(image)]:
        raise _not_an_image(rows, constant, "all pixels have one value")
    return [
        ImageItem(prompt_id, f"{prompt_id}.png", png_bytes(image), caption)
        for prompt_id, caption, image in zip(rows["prompt_id"], captions, images, strict=True)
    ]


def _not_an_image(prompts: pd.DataFrame, rows: list[int], what: str) -> InputError:
    """Return the error of a batch in which some rows became no image; it names the first ten."""
    named = [
        f"prompt {prompts['prompt_id'].iloc[row]}, seed {prompts['seed'].iloc[row]}"
        for row in rows[:10]
    ]
    return InputError(
        f"{len(rows)} of a batch of {len(prompts)} became no image: {what}",
        "; ".join(named) + ("; ..." if len(rows) > 10 else ""),
        "sample in fp32 or bf16 (the model's generate.precision), or look at the checkpoint: a "
        "training that diverged, a damaged weight; finished batches are kept",
    )


def check_settings(family: Family, settings: SampleSettings) -> None:
    """Check how images are to be sampled, as far as it can be told without the checkpoint.

    Raises:
        InputError: a size, steps or options that the family cannot do.
    """
    if settings.size < 8 or settings.size % 8:
        raise InputError(f"{settings.size} pixels", "--size", "use a multiple of 8")
    if family.denoises and settings.steps < 1:
        raise InputError(f"{settings.steps} denoising steps", "--steps", "use at least one")
    family.check_options(settings.options)


def _identity(
    family: Family,
    version: int,
    files: dict[str, Path],
    frame: pd.DataFrame,
    settings: SampleSettings,
    batch_size: int,
    on_gpu: bool,
    precision: str,
) -> str:
    """Return a digest of all that a finished batch depends on."""
    content = {
        "family": family.identity,
        "version": version,
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "checkpoint": {place: sha256_of(path) for place, path in files.items()},
        "prompts": frame[["prompt_id", "caption", "seed"]].values.tolist(),
        "settings": {**vars(settings), "options": dict(settings.options)},
        "batch_size": batch_size,
        "gpu": on_gpu,
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and sample a shard."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="the model's key in the config")
    parser.add_argument("--family", required=True)
    add_base_flags(parser)
    parser.add_argument("--lora", type=Path, help="folder of an adapter trained on the base")
    parser.add_argument("--prompts", required=True, type=Path)
    parser.add_argument("--shard", default=0, type=int)
    parser.add_argument("--shards", default=1, type=int)
    parser.add_argument("--output", required=True, type=Path)
    add_flags(parser, SampleSettings)
    add_flags(parser, BatchSettings)
    parser.add_argument("--progress", required=True, type=Path, help="folder of finished batches")
    parser.add_argument("--version", default=1, type=int, help="of the stage")
    add_speed_flag(parser, COMPUTING)
    parser.add_argument("--gpus", default=0, type=int)
    parser.add_argument("--processes", default=1, type=int, help="on a CPU; one for each GPU")
    parser.add_argument(
        "--threads", default=1, type=int, help="of the job, or on CPUs of each process"
    )
    flags = parser.parse_args(argv)
    started()
    processes = flags.gpus or flags.processes
    if processes > 1 and not is_peer(os.environ):
        words = sys.argv[1:] if argv is None else argv
        if code := run_in_peers("workflow_scripts.generate.sample", words, processes):
            sys.exit(code if code > 0 else 1)
        return
    batches = settings_of_flags(BatchSettings, flags, parser)
    said = switches_said("models", flags.model).get("generate", {})
    speed = speed_of(dict(flags.speed) or said, COMPUTING, "--speed" if flags.speed else SWITCHES)
    if speed.chosen:
        log.info("switches of speed: %s", speed.chosen)
    sample_shard(
        get_family(flags.family),
        Base(flags.base, dict(flags.part)),
        prompts=flags.prompts,
        output=flags.output,
        progress=flags.progress,
        settings=settings_of_flags(SampleSettings, flags, parser),
        batch_size=batches.batch_size,
        shard=flags.shard,
        shards=flags.shards,
        label=flags.model,
        gpus=flags.gpus,
        threads=flags.threads,
        lora=flags.lora,
        precision=batches.precision,
        version=flags.version,
        speed=speed,
    )


if __name__ == "__main__":
    run_script(main)
