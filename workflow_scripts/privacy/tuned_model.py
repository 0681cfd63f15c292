"""A model whose losses are attacked: its checkpoints, and how it was trained."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.settings import add_flags
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import Family
from workflow_scripts.finetune.layout import Base, add_base_flags
from workflow_scripts.finetune.lora import check_lora, load_lora
from workflow_scripts.finetune.settings import TrainSettings
from workflow_scripts.privacy.membership.settings import PRECISIONS, TRAINED_WITH

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TunedModel:
    """A fine-tuned model, or one that came trained.

    Attributes:
        family: the model's family, with its options of training chosen.
        base: the checkpoint before fine-tuning, or a model that came trained.
        checkpoint: what fine-tuning made: a folder laid out as the base is, or an adapter's; None
            for a model that came trained.
        method: `full` or `lora`.
        size: side of the images in training, in pixels.
        precision: of training: `no`, `bf16` or `fp16`.
        key: the model's key in the config, for the log.
    """

    family: Family
    base: Base
    checkpoint: Path | None
    method: str
    size: int
    precision: str
    key: str = "model"

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """`base` and `tuned`; `base` alone for a model that came trained."""
        return ("base", "tuned") if self.checkpoint else ("base",)

    @property
    def dtype(self) -> "torch.dtype":
        """The dtype that networks compute in, as in training."""
        import torch

        return cast(torch.dtype, getattr(torch, PRECISIONS[self.precision]))

    def files(self, which: str) -> dict[str, Path]:
        """Check a checkpoint of `checkpoints`, and return its files of weights by component.

        Raises:
            InputError: the checkpoint is missing, damaged, or not one of this method.
        """
        if which == "tuned" and self.checkpoint and self.method == "lora":
            if not self.family.lora_positions:
                remedy = "merge the adapter, and give the whole checkpoint and --method full"
                raise InputError(f"{self.family.name} has no adapters by LoRA", "--method", remedy)
            return {"lora": check_lora(self.checkpoint)}
        base = Base(self.checkpoint) if which == "tuned" and self.checkpoint else self.base
        return {base.component_of(path) or path.name: path for path in self.family.check(base)}

    def load(self, which: str) -> Any:
        """Load a checkpoint of `checkpoints` as training computes with it, on the CPU.

        Raises:
            InputError: a component is missing or damaged.
        """
        from workflow_scripts.privacy.membership.losses import loaded_as_trained

        tuned = self.checkpoint if which == "tuned" else None
        base = Base(tuned) if tuned and self.method == "full" else self.base
        pipeline = loaded_as_trained(self.family, base, self.method, self.dtype)
        if tuned and self.method == "lora":
            load_lora(self.family, pipeline, tuned)
        return pipeline


def tuned_arguments(description: str, checkpoint: str, *, required: bool) -> Any:
    """Return a parser with the arguments of attacks on losses; `checkpoint` is that flag's help."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True, help="the model's key in the config")
    parser.add_argument("--protocol", required=True, choices=PROTOCOLS)
    parser.add_argument("--family", required=True)
    add_base_flags(parser)
    parser.add_argument("--checkpoint", required=required, type=Path, help=checkpoint)
    add_flags(parser, TrainSettings, only=TRAINED_WITH)
    parser.add_argument("--gpus", default=0, type=int)
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--output", required=True, type=Path)
    return parser


def tuned_model_of(flags: argparse.Namespace) -> TunedModel:
    """Return the model that the arguments of `tuned_arguments` name."""
    return TunedModel(
        get_family(flags.family).trained_with(dict(flags.option)),
        Base(flags.base, dict(flags.part)),
        flags.checkpoint,
        flags.method,
        flags.size,
        flags.mixed_precision,
        flags.model,
    )
