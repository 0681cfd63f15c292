"""The state of a fine-tuning, and its optimiser steps.

What an image is shown with (its place in the order, noise level, noise, dropped caption) depends on
the seed, the step and its index in the batch alone. So a killed run continues to the same bits on a
CPU, and the number of devices changes rounding only.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import adamw_flags, apply_speed, attending, load_optimiser
from workflow_scripts.common.training_step import (
    all_agree,
    check_finite,
    gradient_exchange,
    object_of_main,
)
from workflow_scripts.finetune.captions import CaptionsAhead, Conditions, text_encoders
from workflow_scripts.finetune.data import TrainingImages
from workflow_scripts.finetune.draws import Draws, batch_order
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.lora import add_lora, trained_parameters
from workflow_scripts.finetune.private import PrivateSteps, clip_to, read_secret
from workflow_scripts.finetune.resume import Checkpoint
from workflow_scripts.finetune.schedule import learning_rate_at, total_steps
from workflow_scripts.finetune.settings import TrainSettings
from workflow_scripts.finetune.time_limit import TimeLimit

_REMEDY: Final = (
    "lower the learning rate, clip harder, or use bf16 or no mixed precision; if the images named "
    "are damaged, repair them"
)

Pass = tuple[np.ndarray, np.ndarray, torch.Tensor]
"""The images of one forward and backward pass: their rows (n,), their indices in the step's whole
batch (n,), and the encoded images (n, ...)."""


@dataclass(frozen=True)
class EncodedCache:
    """Where encoded images are kept.

    Attributes:
        folder: folder of all sets of encoded images; None keeps them in memory.
        key: what they depend on, see `identity.encoding_key`.
    """

    folder: Path | None
    key: dict[str, str]


class Run:
    """The state of a fine-tuning: network, optimiser, steps done, losses so far.

    Args:
        family: family of the model.
        pipeline: the base as the family has loaded it.
        rows: the training images: `image_id, path, caption`.
        settings: settings of the training.
        accelerator: the processes that share a step.
        accumulate: number of passes of a step, in each process.
        threads: number of threads that decode images.
        checkpoint: the checkpoint to continue; None starts at the base.
        cache: cache of encoded images.
        limit: the time limit, at which encoding images stops.
        patients: the patient of each image, text (n,); needed with `settings.privacy`.

    Attributes:
        steps: optimiser steps of the whole run.
        step: optimiser steps done.
        curve: one row (step, epoch, loss, learning rate) per step done.
        private: patients, noise and account of a training with a guarantee; else None.
        ema: the moving average of the trained parameters, by name; None if there is none.
        images: the encoded training images.
    """

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
        cache: EncodedCache,
        limit: TimeLimit,
        patients: np.ndarray | None = None,
    ):
        self.family, self.pipeline, self.rows, self.settings = family, pipeline, rows, settings
        self.accelerator, self.accumulate = accelerator, accumulate
        self.steps = total_steps(len(rows), settings.epochs, settings.batch_size)
        self.step = checkpoint.step if checkpoint else 0
        self.curve = list(checkpoint.curve) if checkpoint else []
        self.captions = rows["caption"].tolist()
        self.private = self._private_steps(patients, checkpoint)
        network: Any = family.network(pipeline)
        self._prepare(network, checkpoint)
        autoencoder: Any = getattr(pipeline, family.encode_with(pipeline), None)
        self.ahead: CaptionsAhead | None = None
        if settings.speed.captions_ahead:
            encoders = text_encoders(pipeline, network, autoencoder)
            device = accelerator.device
            self.ahead = CaptionsAhead(encoders, self._conditions_of_step, self.steps, device)
        limit.start()
        self.images = self._encoded_images(cache, limit, threads)
        encodes = isinstance(autoencoder, torch.nn.Module) and autoencoder is not network
        if encodes and self.images.all_encoded:  # the steps need its configuration alone
            autoencoder.to("cpu")

    def _private_steps(
        self, patients: np.ndarray | None, checkpoint: Checkpoint | None
    ) -> PrivateSteps | None:
        if not self.settings.privacy or patients is None:
            return None
        # All processes draw the same patients and noise, from the main process's secret.
        secret = object_of_main(read_secret(self.settings.privacy))
        private = PrivateSteps(self.settings, patients, self.steps, secret)
        if checkpoint:
            private.continue_from(checkpoint.private)
        return private

    def _prepare(self, network: Any, checkpoint: Checkpoint | None) -> None:
        """Put the network on the device, with its adapter, optimiser and moving average."""
        settings, accelerator = self.settings, self.accelerator
        if settings.lora:
            torch.manual_seed(settings.seed)
            add_lora(network, self.family, settings.lora)
        else:
            network.requires_grad_(True)
        self.family.place(self.pipeline, accelerator.device)
        if settings.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        parameters = trained_parameters(network)
        if checkpoint:
            _set(parameters, checkpoint.weights)
        apply_speed(network, settings.speed)
        self.ema = _initial_average(parameters, checkpoint) if settings.ema_decay else None
        optimiser = _optimiser(list(parameters.values()), settings)
        if checkpoint:
            load_optimiser(optimiser, checkpoint.optimiser)
        # With a guarantee, processes show different numbers of patients, and `_advance_private`
        # adds up their sums: nothing may wait for another process before.
        self.network = accelerator.prepare_model(network, evaluation_mode=self.private is not None)
        self.optimiser = accelerator.prepare(optimiser)
        if checkpoint and checkpoint.scaler is not None:
            accelerator.scaler.load_state_dict(checkpoint.scaler)

    def _encoded_images(
        self, cache: EncodedCache, limit: TimeLimit, threads: int
    ) -> TrainingImages:
        def out_of_time() -> bool:
            limit.step_done()  # a killed job loses the block of images that it encodes
            return limit.is_near()

        accelerator, size = self.accelerator, self.settings.size
        return TrainingImages(
            self.rows["path"].tolist(),
            size,
            self._encode_images,
            self.family.encoded_shape(self.pipeline, size),
            threads,
            cache=cache.folder,
            key=cache.key,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
            agree=lambda holds: all_agree(accelerator, holds),
            out_of_time=out_of_time,
        )

    def batches(self) -> Iterator[list[Pass]]:
        """Iterate over the steps that are left: each is the list of this process's passes."""
        share = self._share if self.private is None else self._private_share
        steps = range(self.step, self.steps)
        rows_ahead = (rows for step in steps for rows, _ in share(step))
        encoded = self.images.batches(rows_ahead)
        for step in steps:
            yield [(rows, indices, next(encoded)) for rows, indices in share(step)]

    def advance(self, batch: list[Pass]) -> None:
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
        for number, images in enumerate(batch):
            with gradient_exchange(accelerator, self.network, now=number + 1 == len(batch)):
                losses.append(self._backward(number, *images))
        loss = float(accelerator.reduce(torch.cat(losses).mean(), "mean"))
        self._check_finite("loss", loss, rate, batch, losses)
        norm = float(accelerator.clip_grad_norm_(self.network.parameters(), settings.max_grad_norm))
        # In fp16 the gradient scaler skips a step that overflowed and lowers the scale.
        if settings.mixed_precision != "fp16":
            self._check_finite("gradient norm", norm, rate, batch, losses)
        self._step(loss, rate)

    def _step(self, loss: float, rate: float) -> None:
        """Take the optimiser's step with the accumulated gradients, and count it."""
        settings = self.settings
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema is not None and settings.ema_decay is not None:
            for name, value in self._trained().items():
                self.ema[name].lerp_(value.detach(), 1 - settings.ema_decay)
        self.step += 1
        epoch = self.step * settings.batch_size / len(self.rows)
        self.curve.append((self.step, epoch, loss, rate))

    def _private_share(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return this process's passes of a step with a guarantee: each shows one patient alone.

        Returns:
            For each pass the images' rows and their indices in the step's whole batch. A patient
            with many images has several passes, one after the other.
        """
        assert self.private is not None
        accelerator, most = self.accelerator, self.settings.per_device_batch_size
        share, first = [], 0
        for number, rows in enumerate(self.private.drawn(step)):
            indices = np.arange(first, first + len(rows))
            first += len(rows)
            if number % accelerator.num_processes == accelerator.process_index:
                parts = range(0, len(rows), most)
                share += [(rows[at : at + most], indices[at : at + most]) for at in parts]
        return share

    def _advance_private(
        self,
        private: PrivateSteps,
        batch: list[Pass],
        rate: float,
    ) -> None:
        """Do one step: each patient's summed gradient is clipped, and noise added to their sum."""
        accelerator = self.accelerator
        parameters = list(self._trained().values())
        total = [torch.zeros_like(parameter) for parameter in parameters]
        losses: list[torch.Tensor] = []
        for number, images in enumerate(batch):
            with gradient_exchange(accelerator, self.network, now=False):
                losses.append(self._backward(number, *images, summed=True))
            after = batch[number + 1][0] if number + 1 < len(batch) else None
            if after is not None and private.patient(after) == private.patient(images[0]):
                continue  # more images of the same patient follow
            norm = clip_to(parameters, private.bound)
            self._check_finite("gradient norm", norm, rate, batch[: number + 1], losses)
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
        for parameter, of_process, drawn in zip(parameters, total, noise, strict=True):
            noisy_sum = accelerator.reduce(of_process, "sum") + drawn.to(of_process.device)
            parameter.grad = noisy_sum / private.expected
        private.count()
        # A step for which no patient was drawn has no loss.
        self._step(float(sums[0] / sums[1]), rate)

    def provenance(self) -> dict[str, Any]:
        """Return what the provenance holds besides the settings: the guarantee, if there is one."""
        return {"guarantee": self.private.guarantee()} if self.private else {}

    def summary(self) -> str:
        """Return the recent loss and the learning rate, for the log."""
        # With a guarantee, a step for which no patient was drawn has no loss.
        recent = [row[2] for row in self.curve[-20:] if math.isfinite(row[2])]
        return (
            f"loss {sum(recent) / max(1, len(recent)):.4f}, learning rate {self.curve[-1][3]:.2e}"
        )

    def finished(self) -> Any:
        """Return the pipeline with the weights to save: the moving average if there is one."""
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
        """Return this process's passes of a step: images' rows and their indices in the batch."""
        settings, accelerator = self.settings, self.accelerator
        order = batch_order(settings.seed, len(self.rows), settings.batch_size, step)
        indices = np.arange(settings.batch_size).reshape(
            self.accumulate, accelerator.num_processes, -1
        )[:, accelerator.process_index]
        return [(order[part], part) for part in indices]

    def _encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.family.encode_images(self.pipeline, pixels)

    def _conditions(self, rows: np.ndarray, uniform: torch.Tensor) -> Conditions:
        """Encode the captions of one pass; `uniform` (n,) decides which of them are dropped."""
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
        """Add the gradient of one pass to its step's; return the images' losses, detached (n,).

        Args:
            number: number of the pass within the step.
            rows: rows of the images, (n,).
            indices: indices of the images in the step's whole batch, (n,).
            encoded: the images, (n, ...).
            summed: take the gradient of the losses' sum, not of their mean over the step.
        """
        settings, device = self.settings, self.accelerator.device
        draws = Draws(settings.seed, self.step, indices.tolist(), device)
        uniform = draws.uniform()
        if self.ahead is None:
            conditions = self._conditions(rows, uniform)
        else:
            conditions = self.ahead.of(self.step, number)
        with attending(settings.speed):  # the backward pass may recompute blocks
            losses = self.family.loss(
                self.pipeline, self.network, encoded.to(device), conditions, draws
            )
            self.accelerator.backward(losses.sum() if summed else losses.mean() / self.accumulate)
        return losses.detach()

    def _check_finite(
        self, name: str, value: float, rate: float, batch: list[Pass], losses: list[torch.Tensor]
    ) -> None:
        """Stop at a loss or gradient norm that is not finite; the message names the images.

        Args:
            name: `loss` or `gradient norm`.
            value: its value over the whole step.
            rate: the learning rate.
            batch: the passes of the step so far.
            losses: losses of their images.
        """

        def details() -> str:
            not_finite = ~torch.isfinite(torch.cat(losses).cpu())
            rows = np.concatenate([rows for rows, _, _ in batch])[not_finite.numpy()]
            names = ", ".join(self.rows["image_id"].iloc[rows[:5]])
            before = ", ".join(f"{row[2]:.4g}" for row in self.curve[-5:])
            return (
                f" at step {self.step + 1} (learning rate {rate:.2e}); the losses before: "
                f"{before or 'none: it is the first'}" + (f"; images: {names}" if names else "")
            )

        check_finite(value, name, "fine-tuning", _REMEDY, details)


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


def _initial_average(
    parameters: dict[str, torch.Tensor], checkpoint: Checkpoint | None
) -> dict[str, torch.Tensor]:
    average = {name: value.detach().clone() for name, value in parameters.items()}
    if checkpoint:
        assert checkpoint.ema is not None  # the settings are part of a checkpoint's identity
        _set(average, checkpoint.ema)
    return average


def _set(parameters: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    if parameters.keys() != values.keys():
        raise InputError(
            "the checkpoint belongs to another network", "--progress", "remove the folder"
        )
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def _on_cpu(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu() for name, value in parameters.items()}
