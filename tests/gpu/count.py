"""Count what a training step of each published network keeps and computes, without any memory.

    python -m tests.gpu.count               # writes workflow_scripts/preflight/counted.csv
    python -m tests.gpu.count sd_v1_5 sana  # some models alone, printed and not written
    python -m tests.gpu.count --table       # what lies on a GPU in each phase, from that file

Our own loss runs on the published architectures as fake tensors, which have shapes and no values,
under autocast to the config's precision. Counted are the tensors that autograd saves for the
backward pass, and the operations of the forward pass. With gradient checkpointing autograd saves
each block's inputs, and one block's tensors at a time: the largest block's. Not in: what a kernel
needs while it works, and what the allocator loses to fragments.
"""

import csv
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor

from tests.gpu import building
from tests.gpu.building import ROOT, config_of, family_of, pipeline_for_training, train_settings
from workflow_scripts.finetune.lora import add_lora, trained_parameters
from workflow_scripts.preflight.cost_model import training_settings
from workflow_scripts.preflight.gpu_memory import (
    Parts,
    Phase,
    activations_of,
    parts_of,
    sampling_phase,
    table,
    training_phases,
)

TARGET: Final = ROOT / "workflow_scripts/preflight/counted.csv"
MODELS: Final = ("sd_v1_5", "sd_v2_1", "pixart_sigma", "sana", "sd_v3_5", "flux_1_dev")
"""Not Lumina 2, which looks at the values of its captions' masks: fake tensors have none."""

TRAINED: Final = (*MODELS, "lumina_2")
COLUMNS: Final = (
    "model", "settings", "fixed_gb", "image_gb", "forward_flop_per_image", "torch",
)  # fmt: skip
IMAGES: Final = (2, 4)
"""Of two counts, between which memory grows in a line."""


class Draws:
    """Draws for fake tensors: of `finetune.draws.Draws`, whose generators fake tensors lack."""

    def __init__(self, images: int):
        self.images = images

    def normal(self, shape: Any) -> Tensor:
        """Draw normal values."""
        return torch.randn(self.images, *shape)

    def uniform(self) -> Tensor:
        """Draw values in [0, 1)."""
        return torch.rand(self.images)

    def integers(self, high: int) -> Tensor:
        """Draw whole numbers below `high`."""
        return torch.randint(high, (self.images,))


class Kept:
    """Bytes of tensors that autograd keeps, each storage once, by where they were kept.

    Args:
        parameters: of the network, which lie there anyway.
    """

    def __init__(self, parameters: list[Tensor]):
        self._own = {value.untyped_storage()._cdata for value in parameters}
        self._held: list[Any] = []  # a storage that is freed may give its place to another
        self.outside: dict[int, int] = {}
        self.blocks: list[dict[int, int]] = []
        self._inside: dict[int, int] | None = None

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a tensor that is saved; for `saved_tensors_hooks`."""
        self._note(tensor, self.outside if self._inside is None else self._inside)
        return tensor

    def block(self, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Do what gradient checkpointing would do anew in the backward pass."""
        for value in (*args, *named.values()):
            if isinstance(value, Tensor):
                self._note(value, self.outside)
        outer, self._inside = self._inside, {}
        try:
            return work(*args, **named)
        finally:
            self.blocks.append(self._inside)
            self._inside = outer

    def _note(self, tensor: Tensor, where: dict[int, int]) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._held.append(storage)
            where[storage._cdata] = storage.nbytes()

    def peak(self, checkpointing: bool) -> int:
        """Return the most bytes that are kept at a time."""
        own = [sum(n for key, n in b.items() if key not in self.outside) for b in self.blocks]
        outside = sum(self.outside.values())
        return outside + (max(own, default=0) if checkpointing else sum(own))


def count(model: str) -> dict[str, Any]:
    """Return a row of the table: activations of a model in GB, fixed and per image, and FLOP."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    settings, family = train_settings(model, tiny=False), family_of(model)
    tuned = config_of(model)["finetune"]
    found: dict[int, tuple[int, int]] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        pipeline = pipeline_for_training(model, torch.device("cpu"), tiny=False)
        network: Any = family.network(pipeline)
        if settings.lora:
            # It is made in float32 where it is to be, and a fake parameter cannot be moved.
            with mock.patch.object(torch.nn.Module, "to", lambda module, *_, **__: module):
                add_lora(network, family, settings.lora)
        else:
            network.requires_grad_(True)
        network.train()
        for images in IMAGES:
            kept = Kept([*network.parameters(), *network.buffers()])
            if settings.gradient_checkpointing:
                network.enable_gradient_checkpointing(kept.block)
            with torch.no_grad():
                shown = family.encode_captions(pipeline, [building.CAPTION] * images)
            encoded = torch.zeros(images, *family.encoded_shape(pipeline, settings.size))
            counter = FlopCounterMode(display=False)
            dtype = building.PRECISIONS[settings.mixed_precision]
            with (
                torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
                torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda value: value),
                counter,
            ):
                draws: Any = Draws(images)
                loss = family.loss(pipeline, network, encoded, shown, draws)
            assert loss.shape == (images,)
            peak = kept.peak(settings.gradient_checkpointing)
            found[images] = (peak, counter.get_total_flops())
    few, many = IMAGES
    each = (found[many][0] - found[few][0]) / (many - few)
    return dict(
        zip(
            COLUMNS,
            (
                model,
                training_settings(tuned, settings.per_device_batch_size),
                f"{(found[few][0] - few * each) / 1e9:.4g}",
                f"{each / 1e9:.4g}",
                f"{(found[many][1] - found[few][1]) / (many - few):.6g}",
                torch.__version__.split("+")[0],
            ),
            strict=True,
        )
    )


def published_parts(model: str) -> Parts:
    """Return the numbers of parameters of a published system, with the config's adapter."""
    settings, family = train_settings(model, tiny=False), family_of(model)
    pipeline = pipeline_for_training(model, torch.device("meta"), tiny=False)
    network: Any = family.network(pipeline)
    parts = parts_of(pipeline, network, family.encode_with(pipeline))
    if settings.lora:
        with torch.device("meta"):
            add_lora(network, family, settings.lora)
        trained = sum(value.numel() for value in trained_parameters(network).values())
    else:
        trained = parts.network
    return dataclasses.replace(parts, trained=trained)


def published_phases(model: str) -> list[Phase]:
    """Return what lies on a GPU in each phase of a published system, as config.yaml has it."""
    block, family = config_of(model), family_of(model)
    parts = published_parts(model)
    phases = training_phases(
        parts, block["finetune"], family.encodes_in_float32, activations_of(block, model)
    )
    precision = block["generate"]["precision"]
    return [*phases, sampling_phase(parts, precision, family.decodes_in_float32)]


def _placed(make: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Build in the wanted precision at once: a fake parameter cannot be converted."""
    torch.set_default_dtype(dtype)
    try:
        return make().requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def _scheduler(kind: str, values: dict[str, Any]) -> Any:
    """Build a scheduler of real tensors: some look at their values."""
    import diffusers
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    with unset_fake_temporarily():
        return getattr(diffusers, kind)(**values)


def main(models: list[str]) -> None:
    """Count and write, or print."""
    if models == ["--table"]:
        rows_of = [
            (config_of(model)["display"]["name"], published_phases(model)) for model in MODELS
        ]
        print(table(rows_of), end="")
        return
    building._placed, building._scheduler = _placed, _scheduler
    rows = []
    for model in models or MODELS:
        rows.append(count(model))
        print(rows[-1], flush=True)
    if not models:
        write(rows, TARGET)


def write(rows: list[dict[str, Any]], target: Path) -> None:
    """Write the rows as CSV."""
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
