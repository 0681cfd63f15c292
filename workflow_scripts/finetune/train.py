"""Fine-tune a text-to-image model on the captioned images of the train split.

    accelerate launch --num_processes 4 -m workflow_scripts.finetune.train --model sd_v1_5 ...
    python -m workflow_scripts.finetune.train --model sd_v1_5 ...

The total batch is part of the protocol: devices x per-device batch x accumulation always make it
up. A killed run continues to the same bits on a CPU (see run.py).

Training may take several jobs. Shortly before a job's time limit, training stops with a checkpoint
and a `span.json` that says so. The same command with another `--output` goes on (see span.py).
"""

import argparse
import dataclasses
import json
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from accelerate import Accelerator

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.devices import (
    accelerator_on,
    device_name,
    pick_device,
)
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import write_text
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.common.settings import add_flags, check_settings, settings_of_flags
from workflow_scripts.common.speed import (
    SWITCHES,
    TRAINING,
    add_speed_flag,
    plain_layout,
    speed_of,
    switches_said,
)
from workflow_scripts.common.speed_record import speed_record
from workflow_scripts.common.training_step import (
    all_agree,
    check_processes,
    number_of_main,
    object_of_main,
)
from workflow_scripts.finetune.batches import divide_batch
from workflow_scripts.finetune.canaries import planted_rows
from workflow_scripts.finetune.checks import PRECISIONS, check_before_loading, check_device
from workflow_scripts.finetune.data import patients_of_rows, read_training_rows
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.identity import digest_of, encoding_key, run_identity
from workflow_scripts.finetune.layout import Base, add_base_flags
from workflow_scripts.finetune.lora import save_lora
from workflow_scripts.finetune.private import GUARANTEE, check_privacy
from workflow_scripts.finetune.resume import (
    Checkpoint,
    read_checkpoint,
    save_checkpoint,
    take_over,
)
from workflow_scripts.finetune.run import EncodedCache, Run
from workflow_scripts.finetune.settings import TrainSettings
from workflow_scripts.finetune.span import CHECKPOINT, CURVE, write_span
from workflow_scripts.finetune.time_limit import TimeLimit

log = logging.getLogger(__name__)


def finetune(
    family: Family,
    base: Base,
    manifest: Path,
    output: Path,
    progress: Path,
    settings: TrainSettings,
    label: str = "model",
    gpus: int = 0,
    threads: int = 1,
    cache: Path | None = None,
    limit: TimeLimit | None = None,
    version: int = 1,
    canaries: Path | None = None,
) -> None:
    """Fine-tune `base` to the end or until the time limit is near; write a span to `output`.

    Args:
        family: the family of the model.
        base: the checkpoint to start from.
        manifest: the cohort's manifest; all captioned images of its train split are shown.
        output: the folder of the span to write (span.py). If training is done, it also holds
            `checkpoint/`, a complete diffusers folder or with the method `lora` the adapter alone
            (`pytorch_lora_weights.safetensors`), and `training.csv` with `step, epoch, loss,
            learning_rate`.
        progress: folder of checkpoints, from which a stopped or killed run continues. It stays when
            training is done; finish.py removes it.
        settings: see `TrainSettings`.
        label: the model's key, for the log.
        gpus: number of GPUs that the job was given, over all processes.
        threads: threads of torch, and threads that decode in each process.
        cache: folder of encoded images, which all runs that encode in the same way share. Without
            it they are kept in memory if they fit, else encoded in every step.
        limit: the time limit of the job; None trains to the end.
        version: the stage's version; checkpoints and encoded images of another version are not
            used.
        canaries: the table of invented radiographs (canaries.py); the planted ones are shown, too.

    Raises:
        InputError: the settings, the manifest, the base or an image cannot be used; a loss is not
            finite; no step fits in the time limit; another attempt at this run took over.
    """
    limit = limit or TimeLimit(None)
    check_settings(settings)
    check_before_loading(family, settings)
    family = family.trained_with(settings.options)
    files = family.check(base)
    rows, patients = _training_rows(manifest, settings, canaries)
    device = pick_device(gpus)
    torch.set_num_threads(threads)
    check_device(family, settings, device)
    accelerator = accelerator_on(device, settings.mixed_precision)
    check_processes(gpus, accelerator)
    images, accumulate = divide_batch(
        settings.batch_size, accelerator.num_processes, settings.per_device_batch_size
    )
    identity = run_identity(family, version, files, base, rows, settings, device)
    if patients is not None:
        identity["patients"] = digest_of(patients.tolist())

    pipeline = _load(family, base, settings)
    attempt, checkpoint = _begin(progress, identity, accelerator)
    key = encoding_key(family, version, pipeline, files, base, rows, device)
    run = Run(
        family,
        pipeline,
        rows,
        settings,
        accelerator,
        accumulate,
        threads,
        checkpoint,
        EncodedCache(cache, key),
        limit,
        patients,
    )
    if accelerator.is_main_process:
        log.info(
            "fine-tuning %s: %d images, %d steps of %d = %d device(s) x %d x %d, on %s",
            *(label, len(rows), run.steps, settings.batch_size),
            *(accelerator.num_processes, images, accumulate, accelerator.device),
        )
    with closing(run.images):
        finished = _train(run, limit, attempt, identity, label)
    accelerator.wait_for_everyone()
    if attempt:
        attempt.check()  # before anything is written: a newer attempt may be writing the same
        made = provenance(identity, device_name(device)) | speed_record(settings.speed)
        write_span(
            output,
            run.step,
            run.steps,
            (lambda folder: _write_result(family, base, run, folder)) if finished else None,
            attempt.check,
            made | run.provenance(),
        )
    accelerator.end_training()


def _training_rows(
    manifest: Path, settings: TrainSettings, canaries: Path | None
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Return the training images, planted canaries last, and with a guarantee their patients.

    Raises:
        InputError: see `finetune`.
    """
    rows = read_training_rows(manifest)
    patients = patients_of_rows(manifest, rows) if settings.privacy else None
    if (canaries is None) != (settings.canaries is None):
        raise InputError(
            "the settings of canaries and their table go together",
            "--canaries-count, --canary-table",
            "give both or neither",
        )
    if canaries is not None:
        planted = planted_rows(canaries)
        if patients is not None:
            patients = np.concatenate([patients, planted["canary"].to_numpy(str)])
        rows = pd.concat([rows, planted[list(rows.columns)]], ignore_index=True)
    if patients is not None:
        check_privacy(settings, len(np.unique(patients)))
    return rows, patients


def _load(family: Family, base: Base, settings: TrainSettings) -> Any:
    # Pipelines log the end of a caption that is longer than their text encoder takes.
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = family.load(
        base,
        PRECISIONS[settings.mixed_precision],
        torch.float32 if settings.method == "full" else None,
        **({"vae_dtype": torch.float32} if family.encodes_in_float32 else {}),
    )
    family.check_size(pipeline, settings.size)
    return pipeline


def _begin(
    progress: Path, identity: dict[str, Any], accelerator: Accelerator
) -> tuple[Attempt | None, Checkpoint | None]:
    """Return the attempt, in the main process, and the checkpoint to continue, in all."""
    attempt, taken = None, None
    if accelerator.is_main_process:
        attempt = Attempt(progress)
        taken = take_over(attempt, identity)
    # All processes must continue the same checkpoint: the others read the main one's choice.
    path = object_of_main(str(taken[0]) if taken else None)
    if accelerator.is_main_process or path is None:
        return attempt, taken[1] if taken else None
    return None, read_checkpoint(Path(path), identity)


def _train(
    run: Run, limit: TimeLimit, attempt: Attempt | None, identity: dict[str, Any], label: str
) -> bool:
    """Do the steps that are left and that the time limit allows; return whether all are done."""
    every, first = run.settings.checkpoint_every, run.step + 1
    meter = Progress(f"fine-tuning {label}", run.steps, "steps", done=run.step)
    if run.step == run.steps:  # all that is left is to write the result
        return True
    encoded = not all_agree(run.accelerator, run.images.encoded == 0)
    near = not run.images.complete or bool(number_of_main(run.accelerator, limit.is_near()))
    if near and not encoded:
        raise InputError(
            f"the time limit was near before the first step (step {first} of {run.steps}): loading "
            "the weights and images leaves no time to train",
            "--time-limit, the rule's `runtime`",
            "raise `runtime` of finetune_train in the profile",
        )
    if near:
        if attempt:
            log.info("the time limit is near: stopped while encoding images, before step %d", first)
        return False
    limit.start()
    for batch in run.batches():
        run.advance(batch)
        limit.step_done()
        # All processes stop at the same step: the main one decides.
        stop = bool(number_of_main(run.accelerator, limit.is_near()))
        if attempt:
            meter.update(note=run.summary())
            # With a time limit also after the first step: this measures how long writing a
            # checkpoint takes, and finds a disk that is too small.
            due = run.step % every == 0 or (limit.limited and run.step == first)
            if due or stop or run.step == run.steps:
                with limit.writing():
                    save_checkpoint(attempt, run.checkpoint(), identity)
        if stop:
            break
    if stop and attempt:
        log.info("the time limit is near: stopped after step %d of %d", run.step, run.steps)
    return not stop


def _write_result(family: Family, base: Base, run: Run, folder: Path) -> None:
    lines = ["step,epoch,loss,learning_rate"]
    lines += [f"{step},{epoch:.4f},{loss:.6g},{rate:.6g}" for step, epoch, loss, rate in run.curve]
    write_text(folder / CURVE, "\n".join(lines) + "\n")
    pipeline = run.finished()
    target = folder / CHECKPOINT
    target.mkdir()
    if run.private:
        guarantee = json.dumps(run.private.guarantee(), indent=1, sort_keys=True)
        write_text(target / GUARANTEE, guarantee + "\n")
    with plain_layout(family.network(pipeline), run.settings.speed):
        if run.settings.lora:
            save_lora(family, pipeline, target)
        else:
            family.save(pipeline, base, target)


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and fine-tune."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="the model's key in the config")
    parser.add_argument("--family", required=True)
    add_base_flags(parser)
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path, help="folder of the span to write")
    parser.add_argument("--progress", required=True, type=Path, help="folder of checkpoints")
    parser.add_argument("--cache", type=Path, help="folder of encoded images, shared by runs")
    add_flags(parser, TrainSettings)
    add_speed_flag(parser, TRAINING)
    parser.add_argument("--gpus", default=0, type=int)
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--version", default=1, type=int, help="version of the stage")
    parser.add_argument("--canary-table", type=Path, help="table of invented radiographs")
    parser.add_argument(
        "--time-limit", default=None, type=float, help="minutes until training must stop"
    )
    flags = parser.parse_args(argv)
    settings = settings_of_flags(TrainSettings, flags, parser)
    switches = dict(flags.speed) or switches_said("models", flags.model).get("finetune", {})
    speed = speed_of(switches, TRAINING, "--speed" if flags.speed else SWITCHES)
    if speed.chosen:
        log.info("switches of speed: %s", speed.chosen)
    finetune(
        get_family(flags.family),
        Base(flags.base, dict(flags.part)),
        manifest=flags.manifest,
        output=flags.output,
        progress=flags.progress,
        settings=dataclasses.replace(settings, speed=speed),
        label=flags.model,
        gpus=flags.gpus,
        threads=flags.threads,
        cache=flags.cache,
        limit=TimeLimit(flags.time_limit, psutil.Process().create_time()),
        version=flags.version,
        canaries=flags.canary_table,
    )


if __name__ == "__main__":
    run_script(main)
