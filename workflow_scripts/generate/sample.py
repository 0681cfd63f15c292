"""Sample one shard of a prompt set from a checkpoint.

    python -m workflow_scripts.generate.sample --model sd_v1_5 --family stable_diffusion \\
        --base results/finetune/sd_v1_5/checkpoint --prompts P.parquet \\
        --shard 0 --shards 4 --output FILE --progress DIR --steps 50 --guidance 7.5 --size 512 ...

An image depends on the model, its prompt and its seed. It does not depend on the number of shards,
nor on the number of processes that divide a shard's batches (four with `--gpus 4`). Finished
batches stay in the progress folder, and a killed job continues after them. A leftover process of an
earlier attempt cannot interfere with its retry (attempts.py).
"""

import argparse
import hashlib
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
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
"""The libraries on which the last bits of an image depend."""


@dataclass(frozen=True)
class Sampling:
    """A model, and how its images are sampled.

    Attributes:
        family: the family of the model.
        base: the checkpoint; always loaded from disk.
        settings: see `SampleSettings`.
        batches: the batch size, on which the last bits of an image depend, and the precision of
            weights and arithmetic. An image starts from the same noise in every precision.
        lora: folder of an adapter that was trained on the base.
        speed: switches that change nothing but rounding.
        version: of the stage; batches of another version are not continued.
        gpus: number of GPUs of the job, over all its processes; 0 for the CPU.
        threads: threads of torch.
    """

    family: Family
    base: Base
    settings: SampleSettings
    batches: BatchSettings
    lora: Path | None = None
    speed: Speed = field(default_factory=Speed)
    version: int = 1
    gpus: int = 0
    threads: int = 1

    def check(self) -> None:
        """Check the settings, as far as that is possible without the checkpoint.

        Raises:
            InputError: the family cannot sample with these settings.
        """
        check_settings(self.family, self.settings)
        precision = self.batches.precision
        if precision not in PRECISIONS:
            names = ", ".join(PRECISIONS)
            raise InputError(f"precision {precision!r}", "--precision", f"use {names}")
        device = "cuda" if self.gpus else "cpu"
        what = f"the family {self.family.name}"
        check_speed(self.speed, self.family.takes, what, device, PRECISIONS[precision])

    def files(self) -> dict[str, Path]:
        """Return the files of the checkpoint and of the adapter, by their place in it.

        Raises:
            InputError: a file is missing or damaged.
        """
        paths = self.family.check(self.base)
        files = {self.base.component_of(path) or path.name: path for path in paths}
        return files | ({"lora": check_lora(self.lora)} if self.lora else {})

    def identity(self, files: Mapping[str, Path], prompts: pd.DataFrame) -> str:
        """Return a digest of all that a finished batch depends on."""
        content = {
            "family": self.family.identity,
            "version": self.version,
            "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
            "checkpoint": {place: sha256_of(path) for place, path in files.items()},
            "prompts": prompts[["prompt_id", "caption", "seed"]].values.tolist(),
            "settings": {**vars(self.settings), "options": dict(self.settings.options)},
            "batch_size": self.batches.batch_size,
            "gpu": self.gpus > 0,
            "precision": self.batches.precision,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def load(self, peers: Peers) -> tuple[Any, str]:
        """Return the pipeline on this process's device, ready to sample, and the device's name."""
        import torch

        from workflow_scripts.common.devices import device_name, pick_device

        # Pipelines log the end of a caption that is longer than their text encoder takes.
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        device = pick_device(self.gpus)
        if device.type == "cuda":
            torch.cuda.set_device(peers.local)
        # With GPUs the processes share the job's CPUs. On CPUs the bits may depend on the threads.
        torch.set_num_threads(max(1, self.threads // peers.count) if self.gpus else self.threads)
        precision = self.batches.precision
        if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise InputError("this GPU has no bf16", "--precision", "use fp16 or fp32")
        pipeline = self.family.load(
            self.base,
            getattr(torch, PRECISIONS[precision]),
            **({"vae_dtype": torch.float32} if self.family.decodes_in_float32 else {}),
        )
        if self.lora:
            load_lora(self.family, pipeline, self.lora)
        self.family.check_size(pipeline, self.settings.size)
        pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        if self.speed.chosen:
            network = self.family.sampled_network(pipeline)
            apply_speed(network, self.speed)
            attend_with(network, self.speed)
        return pipeline, device_name(device)


def sample_shard(
    sampling: Sampling,
    prompts: Path,
    output: Path,
    progress: Path,
    shard: int = 0,
    shards: int = 1,
    label: str = "model",
) -> None:
    """Sample the images of one shard and write them to `output` (common/images.py).

    Args:
        sampling: the model, and how its images are sampled.
        prompts: the prompt set.
        output: the Parquet shard to write.
        progress: folder of finished batches; removed once the output is in place.
        shard: number of the shard, from 0.
        shards: number of shards.
        label: the model's key, for the log.

    Raises:
        InputError: an unusable checkpoint, prompt set or setting; another attempt took over; an
            image has values that are not finite, or a single gray value.
    """
    sampling.check()
    peers = peers_of(os.environ, sampling.gpus)
    files = sampling.files()
    frame = read_prompts(prompts)
    batches = shard_batches(len(frame), sampling.batches.batch_size, shard, shards)
    with together(peers):
        # The main process reads the weights for all processes.
        identity = peers.told(sampling.identity(files, frame) if peers.main else None)
        names = [f"batch-{identity}-{batch.start:08d}.parquet" for batch in batches]
        attempt = _begin(progress, names, peers)
        parts = [attempt.folder / name for name in names]
        # Every process looks before any of them writes; what the main process saw counts.
        missing = peers.told([i for i, part in enumerate(parts) if not part.exists()])
        if share := peers.share(missing):
            pipeline, device = sampling.load(peers)
            done = sum(len(batch) for i, batch in enumerate(batches) if i not in missing)
            total = done + sum(len(batches[i]) for i in share)
            process = f", process {peers.rank + 1} of {peers.count}" if peers.count > 1 else ""
            what = f"sampling {label}, shard {shard}{process}"
            meter = Progress(what, total, "images", done=done)
            made_by = {"device": device, **slurm_job(), **speed_record(sampling.speed)}
            for i in share:
                rows = frame.iloc[batches[i].start : batches[i].stop]
                items = _sample_batch(sampling.family, pipeline, rows, sampling.settings)
                with attempt.writing() as folder:
                    write_shard(items, folder / names[i], [made_by], make_parents=False)
                meter.update(len(rows))
        peers.wait()
    if not peers.main:
        return
    attempt.check()  # before anything is written: a newer attempt may be writing the same file
    # A killed job is named as well, for it made a part of the shard.
    jobs = [job for part in parts for job in shard_jobs(part)]
    jobs = [job for i, job in enumerate(jobs) if job not in jobs[:i]]
    write_shard(read_shards(parts), output, jobs)
    attempt.end()


def _begin(progress: Path, names: list[str], peers: Peers) -> Attempt:
    """Return the job's attempt, which the main process begins and the others join."""
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
    """Return the error of a batch with invalid images; it names the first ten."""
    named = [
        f"prompt {prompts['prompt_id'].iloc[row]}, seed {prompts['seed'].iloc[row]}"
        for row in rows[:10]
    ]
    return InputError(
        f"{len(rows)} of a batch of {len(prompts)} became no image: {what}",
        "; ".join(named) + ("; ..." if len(rows) > 10 else ""),
        "sample in fp32 or bf16 (the model's generate.precision), or check the checkpoint: its "
        "training may have diverged, or a weight may be damaged; finished batches are kept",
    )


def check_settings(family: Family, settings: SampleSettings) -> None:
    """Check the settings, as far as that is possible without the checkpoint.

    Raises:
        InputError: the family does not support the size, the steps or the options.
    """
    if settings.size < 8 or settings.size % 8:
        raise InputError(f"{settings.size} pixels", "--size", "use a multiple of 8")
    if family.denoises and settings.steps < 1:
        raise InputError(f"{settings.steps} denoising steps", "--steps", "use at least one")
    family.check_options(settings.options)


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
    parser.add_argument("--version", default=1, type=int, help="version of the stage")
    add_speed_flag(parser, COMPUTING)
    parser.add_argument("--gpus", default=0, type=int)
    parser.add_argument(
        "--processes", default=1, type=int, help="number on a CPU; with GPUs one each"
    )
    parser.add_argument(
        "--threads", default=1, type=int, help="threads of the job; on a CPU of each process"
    )
    flags = parser.parse_args(argv)
    started()
    processes = flags.gpus or flags.processes
    if processes > 1 and not is_peer(os.environ):
        words = sys.argv[1:] if argv is None else argv
        if code := run_in_peers("workflow_scripts.generate.sample", words, processes):
            sys.exit(code if code > 0 else 1)
        return
    switches = switches_said("models", flags.model).get("generate", {})
    where = "--speed" if flags.speed else SWITCHES
    speed = speed_of(dict(flags.speed) or switches, COMPUTING, where)
    if speed.chosen:
        log.info("switches of speed: %s", speed.chosen)
    sampling = Sampling(
        get_family(flags.family),
        Base(flags.base, dict(flags.part)),
        settings_of_flags(SampleSettings, flags, parser),
        settings_of_flags(BatchSettings, flags, parser),
        flags.lora,
        speed,
        flags.version,
        flags.gpus,
        flags.threads,
    )
    sample_shard(
        sampling,
        flags.prompts,
        flags.output,
        flags.progress,
        flags.shard,
        flags.shards,
        flags.model,
    )


if __name__ == "__main__":
    run_script(main)
