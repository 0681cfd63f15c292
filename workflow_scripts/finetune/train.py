"""Fine-tune a text-to-image model on the captioned images of the train split.

    accelerate launch --num_processes 4 -m workflow_scripts.finetune.train --model sd_v1_5 ...
    python -m workflow_scripts.finetune.train --model sd_v1_5 ...

The total batch is the protocol: devices x per-device batch x accumulation always make it up. What
an image of the run is shown with (its place in the order, noise level, noise, dropped caption)
depends on the seed, the step and its index in the batch alone, so a killed run continues to the
same bits on a CPU, and the number of devices changes rounding only.

One job need not be enough: shortly before its time limit, training stops with a checkpoint and a
`span.json` that says so, and the same command with another `--output` goes on (see span.py).
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.devices import accelerator_on, device_name, pick_device
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import sha256_of, write_text
from workflow_scripts.common.levels import said_of_bits
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import provenance
from workflow_scripts.common.settings import add_flags, check_settings, settings_of_flags
from workflow_scripts.common.speed import (
    SWITCHES,
    TRAINING,
    adamw_flags,
    add_speed_flag,
    apply_speed,
    attending,
    check_kernel,
    check_speed,
    load_optimiser,
    plain_layout,
    speed_of,
    switches_said,
)
from workflow_scripts.common.speed_record import speed_record
from workflow_scripts.finetune.batches import divide_batch
from workflow_scripts.finetune.canaries import planted_rows
from workflow_scripts.finetune.captions import CaptionsAhead, Conditions, text_encoders
from workflow_scripts.finetune.data import (
    TrainingImages,
    digest_of_files,
    patients_of_rows,
    read_training_rows,
)
from workflow_scripts.finetune.draws import Draws, batch_order
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.layout import Base, add_base_flags
from workflow_scripts.finetune.lora import (
    add_lora,
    module_endings,
    save_lora,
    trained_parameters,
)
from workflow_scripts.finetune.private import (
    GUARANTEE,
    PrivateSteps,
    check_privacy,
    clip_to,
    read_secret,
)
from workflow_scripts.finetune.resume import (
    Checkpoint,
    read_checkpoint,
    save_checkpoint,
    take_over,
)
from workflow_scripts.finetune.settings import TrainSettings
from workflow_scripts.finetune.span import CHECKPOINT, CURVE, write_span
from workflow_scripts.finetune.time_limit import TimeLimit

log = logging.getLogger(__name__)

PRECISIONS: Final = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTO_RATE_BATCH: Final = 256
"""Total batch at which `auto_learning_rate` leaves the rate as it is."""
_HARDWARE_KEYS: Final = (
    "per_device_batch_size",
    "gradient_checkpointing",
    "checkpoint_every",
    "speed",
)


def total_steps(images: int, epochs: float, batch_size: int) -> int:
    """Return the optimiser steps of a run: every image is seen at least `epochs` times."""
    return max(1, math.ceil(images * epochs / batch_size))


def learning_rate_at(step: int, settings: TrainSettings) -> float:
    """Return the learning rate of an optimiser step: linear warm-up, then constant."""
    rate = settings.learning_rate
    if settings.auto_learning_rate:
        rate *= math.sqrt(settings.batch_size / AUTO_RATE_BATCH)
    return rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))


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
    """Fine-tune `base`, until it is done or the time limit is near, and write a span to `output`.

    Args:
        family: what kind of model it is.
        base: the checkpoint to start from.
        manifest: the cohort's; all captioned images of its train split are shown.
        output: the folder to write, see span.py: how far training is; when it is done also
            `checkpoint/`, a complete diffusers folder, or with the method `lora` the adapter alone,
            `pytorch_lora_weights.safetensors`, and `training.csv` with
            `step, epoch, loss, learning_rate`.
        progress: folder of checkpoints; a run stopped or killed before continues from there. It
            stays: whoever takes the result for done removes it (finish.py).
        settings: see `TrainSettings`.
        label: the model's key, for the log.
        gpus: how many GPUs the job was given, over all processes.
        threads: for torch and, per process, for decoding.
        cache: folder of encoded images, for this run and every other that encodes alike; without
            it, they are kept in memory if they fit, else encoded in every step.
        limit: when to stop; None trains to the end.
        version: of the stage; neither checkpoints nor encoded images of another one are used.
        canaries: the table of invented radiographs (canaries.py), whose planted ones are shown,
            too.

    Raises:
        InputError: unusable settings, manifest, base or image; a loss that is not finite; no step
            fits in the time limit; another attempt at this run took over.
    """
    limit = limit or TimeLimit(None)
    check_settings(settings)
    _check_size(settings.size)
    _check_method(family, settings)
    family = family.trained_with(settings.options)
    files = family.check(base)
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
    if settings.privacy and patients is not None:
        check_privacy(settings, len(np.unique(patients)))
    device = pick_device(gpus)
    torch.set_num_threads(threads)

    _check_precision(settings.mixed_precision, device)
    _check_speed(family, settings, device.type)
    accelerator = accelerator_on(device, settings.mixed_precision)
    if gpus and accelerator.num_processes != gpus:
        raise InputError(
            f"{gpus} GPUs were given to {accelerator.num_processes} process(es)",
            "--gpus",
            f"start with `accelerate launch --num_processes {gpus} -m ...`",
        )
    images, accumulate = divide_batch(
        settings.batch_size, accelerator.num_processes, settings.per_device_batch_size
    )
    identity = _identity(family, version, files, base, rows, settings, device)
    if patients is not None:
        identity["patients"] = _digest(patients.tolist())

    # Pipelines log the end of a caption that is longer than their text encoder takes.
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = family.load(
        base,
        PRECISIONS[settings.mixed_precision],
        torch.float32 if settings.method == "full" else None,
        **({"vae_dtype": torch.float32} if family.encodes_in_float32 else {}),
    )
    family.check_size(pipeline, settings.size)
    attempt, checkpoint = _begin(progress, identity, accelerator)
    encoded = _EncodedCache(
        cache, _encoding_key(family, version, pipeline, files, base, rows, device)
    )
    run = _Run(
        family,
        pipeline,
        rows,
        settings,
        accelerator,
        accumulate,
        threads,
        checkpoint,
        encoded,
        limit,
        patients,
    )
    if accelerator.is_main_process:
        log.info(
            "fine-tuning %s: %d images, %d steps of %d = %d device(s) x %d x %d, on %s",
            label,
            len(rows),
            run.steps,
            settings.batch_size,
            accelerator.num_processes,
            images,
            accumulate,
            accelerator.device,
        )
    with closing(run.images):
        finished = _train(run, limit, attempt, identity, label)
    accelerator.wait_for_everyone()
    if attempt:
        attempt.check()  # before anything is written: a newer attempt may be writing the same
        write_span(
            output,
            run.step,
            run.steps,
            (lambda folder: _write_result(family, base, run, folder)) if finished else None,
            attempt.check,
            provenance(identity, device_name(device)) | speed_record(settings.speed) | run.said(),
        )
    accelerator.end_training()


@dataclass(frozen=True)
class _EncodedCache:
    folder: Path | None
    key: dict[str, str]


class _Run:
    """The state of a training run: network, optimiser, steps done, losses so far."""

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        rows: pd.DataFrame,
        settings: TrainSettings,
        accelerator: Accelerator,
        accumulate: int,
        threads: int,
        checkpoint: Checkpoint | None,
        encoded: _EncodedCache,
        limit: TimeLimit,
        patients: np.ndarray | None = None,
    ):
        self.family, self.pipeline, self.rows, self.settings = family, pipeline, rows, settings
        self.accelerator, self.accumulate = accelerator, accumulate
        self.steps = total_steps(len(rows), settings.epochs, settings.batch_size)
        self.step = checkpoint.step if checkpoint else 0
        self.curve = list(checkpoint.curve) if checkpoint else []
        self.private: PrivateSteps | None = None
        if settings.privacy and patients is not None:
            # All processes draw the same patients and noise: the main one's secret is theirs.
            secret = broadcast_object_list([read_secret(settings.privacy)])[0]
            self.private = PrivateSteps(settings, patients, self.steps, secret)
            if checkpoint:
                self.private.continue_from(checkpoint.private)

        network: Any = family.network(pipeline)
        if settings.lora:
            torch.manual_seed(settings.seed)
            add_lora(network, family, settings.lora)
        else:
            network.requires_grad_(True)
        family.place(pipeline, accelerator.device)
        if settings.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        parameters = trained_parameters(network)
        if checkpoint:
            _set(parameters, checkpoint.weights)
        apply_speed(network, settings.speed)
        self.ema = _average_to_start_from(parameters, checkpoint) if settings.ema_decay else None
        optimiser = _optimiser(list(parameters.values()), settings)
        if checkpoint:
            load_optimiser(optimiser, checkpoint.optimiser)
        # With a guarantee, processes show different numbers of patients, and `_advance_private`
        # adds up their sums: nothing may wait for another process before.
        self.network = accelerator.prepare_model(network, evaluation_mode=self.private is not None)
        self.optimiser = accelerator.prepare(optimiser)
        if checkpoint and checkpoint.scaler is not None:
            accelerator.scaler.load_state_dict(checkpoint.scaler)
        self.captions = rows["caption"].tolist()
        autoencoder: Any = getattr(pipeline, family.encode_with(pipeline), None)
        self.ahead: CaptionsAhead | None = None
        if settings.speed.captions_ahead:
            encoders = text_encoders(pipeline, network, autoencoder)
            device = accelerator.device
            self.ahead = CaptionsAhead(encoders, self._conditions_of_step, self.steps, device)

        def out_of_time() -> bool:
            limit.step_done()  # a block of images, which is what encoding loses when it is killed
            return limit.is_near()

        limit.start()
        self.images = TrainingImages(
            rows["path"].tolist(),
            settings.size,
            self._encode_images,
            family.encoded_shape(pipeline, settings.size),
            threads,
            cache=encoded.folder,
            key=encoded.key,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
            agree=lambda said: _all_say(accelerator, said),
            out_of_time=out_of_time,
        )
        encodes = isinstance(autoencoder, torch.nn.Module) and autoencoder is not network
        if encodes and self.images.all_encoded:  # the steps need its configuration alone
            autoencoder.to("cpu")

    def batches(self) -> Iterator[list[tuple[np.ndarray, np.ndarray, torch.Tensor]]]:
        """Iterate over this process's share of each step left.

        A share is a list of `accumulate` entries: the images' rows, their indices in the whole
        batch, and the encoded images.
        """
        if self.private:
            yield from self._private_batches()
            return
        shares = (self._share(step) for step in range(self.step, self.steps))
        flat = ((rows, indices) for share in shares for rows, indices in share)
        waiting: list[tuple[np.ndarray, np.ndarray]] = []

        def wanted() -> Iterator[np.ndarray]:
            for entry in flat:
                waiting.append(entry)
                yield entry[0]

        collected = []
        for encoded in self.images.batches(wanted()):
            rows, indices = waiting.pop(0)
            collected.append((rows, indices, encoded))
            if len(collected) == self.accumulate:
                yield collected
                collected = []

    def advance(self, batch: list[tuple[np.ndarray, np.ndarray, torch.Tensor]]) -> None:
        """Do one optimiser step.

        Raises:
            InputError: the loss or the gradient is not finite.
        """
        settings, accelerator = self.settings, self.accelerator
        # For what the network itself draws; everything else comes from `Draws`.
        torch.manual_seed(settings.seed * 1_000_003 + self.step + accelerator.process_index)
        rate = learning_rate_at(self.step, settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.private:
            self._advance_private(self.private, batch, rate)
            return
        losses = []
        for i, shown in enumerate(batch):
            if i < self.accumulate - 1:
                with accelerator.no_sync(self.network):
                    losses.append(self._backward(i, *shown))
            else:
                losses.append(self._backward(i, *shown))
        loss = float(accelerator.reduce(torch.cat(losses).mean(), "mean"))
        if not math.isfinite(loss):
            self._refuse("loss", loss, rate, [entry[0] for entry in batch], losses)
        norm = float(accelerator.clip_grad_norm_(self.network.parameters(), settings.max_grad_norm))
        # In fp16 the gradient scaler skips a step that overflowed and lowers the scale.
        if not math.isfinite(norm) and settings.mixed_precision != "fp16":
            self._refuse("gradient norm", norm, rate, [entry[0] for entry in batch], losses)
        self._step(loss, rate)

    def _step(self, loss: float, rate: float) -> None:
        """Let the optimiser take its step by the gradients that are there, and count it."""
        settings = self.settings
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema is not None and settings.ema_decay is not None:
            for name, value in self._trained().items():
                self.ema[name].lerp_(value.detach(), 1 - settings.ema_decay)
        self.step += 1
        epoch = self.step * settings.batch_size / len(self.rows)
        self.curve.append((self.step, epoch, loss, rate))

    def _private_batches(self) -> Iterator[list[tuple[np.ndarray, np.ndarray, torch.Tensor]]]:
        """Iterate over this process's patients of each step left: an entry is of one patient."""
        assert self.private is not None
        steps = range(self.step, self.steps)
        shares = (self._private_share(step) for step in steps)
        encoded = self.images.batches(rows for share in shares for rows, _ in share)
        for step in steps:
            yield [(*entry, next(encoded)) for entry in self._private_share(step)]

    def _private_share(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        assert self.private is not None
        accelerator, most = self.accelerator, self.settings.per_device_batch_size
        share, shown = [], 0
        for number, rows in enumerate(self.private.drawn(step)):
            indices = np.arange(shown, shown + len(rows))
            shown += len(rows)
            if number % accelerator.num_processes == accelerator.process_index:
                parts = range(0, len(rows), most)
                share += [(rows[at : at + most], indices[at : at + most]) for at in parts]
        return share

    def _advance_private(
        self,
        private: PrivateSteps,
        batch: list[tuple[np.ndarray, np.ndarray, torch.Tensor]],
        rate: float,
    ) -> None:
        """Do one step: each patient's summed gradient is clipped, and noise added to their sum."""
        accelerator = self.accelerator
        parameters = list(self._trained().values())
        total = [torch.zeros_like(parameter) for parameter in parameters]
        losses: list[torch.Tensor] = []
        for number, entry in enumerate(batch):
            with accelerator.no_sync(self.network):
                losses.append(self._backward(number, *entry, summed=True))
            after = batch[number + 1][0] if number + 1 < len(batch) else None
            if after is not None and private.patient(after) == private.patient(entry[0]):
                continue  # more images of the same patient follow
            norm = clip_to(parameters, private.bound)
            if not math.isfinite(norm):
                shown = [entry[0] for entry in batch[: number + 1]]
                self._refuse("gradient norm", norm, rate, shown, losses)
            for into, parameter in zip(total, parameters, strict=True):
                if parameter.grad is not None:
                    into += parameter.grad
            self.optimiser.zero_grad()
        sums = torch.tensor(
            [sum(float(part.sum()) for part in losses), sum(map(len, losses))],
            dtype=torch.float32,  # also where this process had no patient
            device=accelerator.device,
        )
        sums = accelerator.reduce(sums, "sum")
        noise = private.noise(self.step, [parameter.shape for parameter in parameters])
        for parameter, own, drawn in zip(parameters, total, noise, strict=True):
            every = accelerator.reduce(own, "sum") + drawn.to(own.device)
            parameter.grad = every / private.expected
        private.count()
        # A step for which no patient was drawn has no loss.
        self._step(float(sums[0] / sums[1]), rate)

    def said(self) -> dict[str, Any]:
        """Return what the provenance says beside the settings: the guarantee, if there is one."""
        return {"guarantee": self.private.guarantee()} if self.private else {}

    def summary(self) -> str:
        """Return the recent loss and the learning rate, for the log."""
        # With a guarantee, a step for which no patient was drawn has no loss.
        recent = [row[2] for row in self.curve[-20:] if math.isfinite(row[2])]
        return (
            f"loss {sum(recent) / max(1, len(recent)):.4f}, learning rate {self.curve[-1][3]:.2e}"
        )

    def finished(self) -> Any:
        """Return the pipeline with the weights to save: their moving average where there is one."""
        if self.ema is not None:
            _set(self._trained(), self.ema)
        return self.pipeline

    def checkpoint(self) -> Checkpoint:
        """Return what is needed to continue from here."""
        scaler = self.accelerator.scaler
        return Checkpoint(
            self.step,
            _on_cpu(self._trained()),
            _on_cpu(self.ema) if self.ema is not None else None,
            self.optimiser.state_dict(),
            scaler.state_dict() if scaler is not None else None,
            self.curve,
            self.private.state() if self.private else None,
        )

    def _trained(self) -> dict[str, torch.Tensor]:
        return trained_parameters(self.accelerator.unwrap_model(self.network))

    def _share(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        settings, accelerator = self.settings, self.accelerator
        order = batch_order(settings.seed, len(self.rows), settings.batch_size, step)
        indices = np.arange(settings.batch_size).reshape(
            self.accumulate, accelerator.num_processes, -1
        )[:, accelerator.process_index]
        return [(order[own], own) for own in indices]

    def _encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.family.encode_images(self.pipeline, pixels)

    def _conditions(self, rows: np.ndarray, uniform: torch.Tensor) -> Conditions:
        """Encode the captions of one pass; `uniform` is each image's first draw."""
        dropped = (uniform < self.settings.caption_dropout).tolist()
        captions = [self.captions[row] for row in rows]
        with torch.no_grad():
            return self.family.encode_shown(self.pipeline, captions, dropped)

    def _conditions_of_step(self, step: int) -> list[Conditions]:
        """Encode the captions of this process's share of a step, pass by pass."""
        seed, device = self.settings.seed, self.accelerator.device
        return [
            self._conditions(rows, Draws(seed, step, indices.tolist(), device).uniform())
            for rows, indices in self._share(step)
        ]

    def _backward(
        self,
        number: int,
        rows: np.ndarray,
        indices: np.ndarray,
        encoded: torch.Tensor,
        summed: bool = False,
    ) -> torch.Tensor:
        """Accumulate the gradient of a step's pass; return the images' losses, detached (n,).

        `summed`: of the losses' sum, not of their mean over the step.
        """
        settings, device = self.settings, self.accelerator.device
        draws = Draws(settings.seed, self.step, indices.tolist(), device)
        uniform = draws.uniform()
        if self.ahead is None:
            conditions = self._conditions(rows, uniform)
        else:
            conditions = self.ahead.of(self.step, number)
        with attending(settings.speed):  # the backward pass may compute blocks anew
            losses = self.family.loss(
                self.pipeline, self.network, encoded.to(device), conditions, draws
            )
            self.accelerator.backward(losses.sum() if summed else losses.mean() / self.accumulate)
        return losses.detach()

    def _refuse(
        self,
        what: str,
        value: float,
        rate: float,
        rows: list[np.ndarray],
        losses: list[torch.Tensor],
    ) -> None:
        own = torch.cat(losses).cpu()
        worst = np.concatenate(rows)[(~torch.isfinite(own)).numpy()]
        names = ", ".join(self.rows["image_id"].iloc[worst[:5]])
        before = ", ".join(f"{row[2]:.4g}" for row in self.curve[-5:]) or "none: it is the first"
        raise InputError(
            f"the {what} is {value} at step {self.step + 1} (learning rate {rate:.2e}); the losses "
            f"before: {before}" + (f"; images: {names}" if names else ""),
            "fine-tuning",
            "lower the learning rate, clip harder, or use bf16 or no mixed precision; if the "
            "images named are damaged, repair them",
        )


def _begin(
    progress: Path, identity: dict[str, Any], accelerator: Accelerator
) -> tuple[Attempt | None, Checkpoint | None]:
    """Return the attempt, in the main process, and the checkpoint to continue, in all."""
    attempt, taken = None, None
    if accelerator.is_main_process:
        attempt = Attempt(progress)
        taken = take_over(attempt, identity)
    # The others read what the main process found, not what they find: they must agree.
    path = broadcast_object_list([str(taken[0]) if taken else None])[0]
    if accelerator.is_main_process or path is None:
        return attempt, taken[1] if taken else None
    return None, read_checkpoint(Path(path), identity)


def _train(
    run: _Run, limit: TimeLimit, attempt: Attempt | None, identity: dict[str, Any], label: str
) -> bool:
    """Do the steps that are left and that the time limit allows; return whether all are done."""
    every, first = run.settings.checkpoint_every, run.step + 1
    shown = Progress(f"fine-tuning {label}", run.steps, "steps", done=run.step)
    if run.step == run.steps:  # all that is left is to write the result
        return True
    encoded = not _all_say(run.accelerator, run.images.encoded == 0)
    near = not run.images.complete or _main_says(run.accelerator, limit.is_near())
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
        stop = _main_says(run.accelerator, limit.is_near())
        if attempt:
            shown.update(note=run.summary())
            # With a time limit also after the first step: how long a checkpoint takes to write is
            # known then, and a disk that cannot take one found out.
            due = run.step % every == 0 or (limit.limited and run.step == first)
            if due or stop or run.step == run.steps:
                with limit.writing():
                    save_checkpoint(attempt, run.checkpoint(), identity)
        if stop:
            break
    if stop and attempt:
        log.info("the time limit is near: stopped after step %d of %d", run.step, run.steps)
    return not stop


def _main_says(accelerator: Accelerator, said: bool) -> bool:
    """Return what the main process says, in all processes."""
    if accelerator.num_processes == 1:
        return said
    return bool(broadcast(torch.tensor([int(said)], device=accelerator.device)).item())


def _all_say(accelerator: Accelerator, said: bool) -> bool:
    """Return whether all processes say True, in all of them."""
    if accelerator.num_processes == 1:
        return said
    disagreeing = accelerator.reduce(torch.tensor([float(not said)], device=accelerator.device))
    return not disagreeing.item()


def _write_result(family: Family, base: Base, run: _Run, folder: Path) -> None:
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


def _optimiser(parameters: list[torch.nn.Parameter], settings: TrainSettings) -> Any:
    if settings.optimiser in ("came", "came_sana"):
        from workflow_scripts.finetune.came import Came

        return Came(
            parameters,
            lr=settings.learning_rate,
            layout="matrices" if settings.optimiser == "came_sana" else "stacks",
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(0.9, 0.999),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        **adamw_flags(settings.speed),
    )


def _average_to_start_from(
    parameters: dict[str, torch.Tensor], checkpoint: Checkpoint | None
) -> dict[str, torch.Tensor]:
    average = {name: value.detach().clone() for name, value in parameters.items()}
    if checkpoint:
        assert checkpoint.ema is not None  # the settings are part of a checkpoint's identity
        _set(average, checkpoint.ema)
    return average


def _set(parameters: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    if parameters.keys() != values.keys():
        raise InputError("a checkpoint of another network", "--progress", "remove the folder")
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def _on_cpu(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu() for name, value in parameters.items()}


def _encoding_key(
    family: Family,
    version: int,
    pipeline: Any,
    files: list[Path],
    base: Base,
    rows: pd.DataFrame,
    device: torch.device,
) -> dict[str, str]:
    """Return what encoded images follow from, besides their size."""
    component = family.encode_with(pipeline)
    places = {base.component_of(path): path for path in sorted(files)}
    weights = {
        place: sha256_of(path)
        for place, path in places.items()
        if place.startswith(f"{component}/")
    }
    return {
        "family": family.identity,
        "version": str(version),
        "encoder": _digest(weights),
        "precision": str(getattr(getattr(pipeline, component, None), "dtype", None)),
        "device": device.type,
        "images": digest_of_files(rows["path"].tolist()),
    }


def _identity(
    family: Family,
    version: int,
    files: list[Path],
    base: Base,
    rows: pd.DataFrame,
    settings: TrainSettings,
    device: torch.device,
) -> dict[str, Any]:
    """Return what a checkpoint must have been made with to be continued."""
    weights = {base.component_of(path): sha256_of(path) for path in sorted(files)}
    chosen = {key: value for key, value in asdict(settings).items() if key not in _HARDWARE_KEYS}
    identity = {
        "family": family.identity,
        "version": version,
        "base": _digest(weights),
        "images": _digest(rows.values.tolist()),
        "device": device.type,
        **said_of_bits(),
        **chosen,
    }
    return json.loads(json.dumps(identity))  # as it is read back: tuples are lists there


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _check_size(size: int) -> None:
    if size % 8:
        raise InputError("the size is a multiple of 8 pixels", "--size")


def _check_method(family: Family, settings: TrainSettings) -> None:
    if not family.trained:
        raise InputError(
            f"the family {family.name} is sampled as it was published, not fine-tuned",
            "finetune",
            "remove the model's `finetune` block",
        )
    if (settings.method == "lora") != (settings.lora is not None):
        raise InputError(
            f"method {settings.method} {'with' if settings.lora else 'without'} LoRA settings",
            "--method, --lora-rank",
            "LoRA's settings belong to the method `lora`",
        )
    if settings.lora:
        module_endings(family, settings.lora.targets)


def _check_speed(family: Family, settings: TrainSettings, device: str) -> None:
    precision = str(PRECISIONS[settings.mixed_precision]).removeprefix("torch.")
    check_speed(settings.speed, family.takes, f"the family {family.name}", device, precision)
    check_kernel(settings.speed, settings.optimiser)


def _check_precision(precision: str, device: torch.device) -> None:
    if precision == "fp16" and device.type == "cpu":
        raise InputError("fp16 training needs a GPU", "--mixed-precision", "use no or bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bf16", "--mixed-precision", "use fp16 or no")


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
    parser.add_argument("--version", default=1, type=int, help="of the stage")
    parser.add_argument("--canary-table", type=Path, help="table of invented radiographs")
    parser.add_argument("--time-limit", default=None, type=float, help="minutes; stop before")
    flags = parser.parse_args(argv)
    settings = settings_of_flags(TrainSettings, flags, parser)
    said = switches_said("models", flags.model).get("finetune", {})
    speed = speed_of(dict(flags.speed) or said, TRAINING, "--speed" if flags.speed else SWITCHES)
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
