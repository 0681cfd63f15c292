"""What a text-to-image family has to know: the interface that training and sampling talk to.

A family is one class. It holds no state: the loaded pipeline is passed around. Nothing heavy is
imported until weights are loaded, so that preflight can ask any family to check its files.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.layout import Base

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws


@dataclass(frozen=True)
class SampleSettings:
    """How images are sampled.

    Attributes:
        steps: denoising steps; 0 for a family that does not denoise.
        guidance: classifier-free guidance scale.
        size: side of the images in pixels.
        options: what only this family has (`Family.options`).
    """

    steps: int
    guidance: float
    size: int
    options: Mapping[str, float | bool] = field(default_factory=dict)


class Family(ABC):
    """One kind of text-to-image model.

    Attributes:
        name: as it stands in the config.
        trained: the pipeline component that fine-tuning trains (`unet`, `transformer`); empty for
            a family that is only sampled.
        lora_positions: name of a place for LoRA weights (`attention`, `attention_mlp`, ...) to the
            endings of the module names that it stands for; empty where LoRA cannot be saved.
        options: sampling options beyond steps, guidance and size, with their defaults.
        denoises: whether sampling takes denoising steps.
    """

    name: str
    trained: str = ""
    lora_positions: Mapping[str, tuple[str, ...]] = {}
    options: Mapping[str, float | bool] = {}
    denoises: bool = True

    @abstractmethod
    def check(self, base: Base) -> list[Path]:
        """Check a checkpoint without importing torch; return the files that will be read.

        Raises:
            InputError: a file is missing or damaged, or components do not fit each other.
        """

    @abstractmethod
    def load(
        self, base: Base, dtype: torch.dtype | None = None, network_dtype: torch.dtype | None = None
    ) -> Any:
        """Load the diffusers pipeline from local folders, on the CPU, frozen, in eval mode.

        Args:
            base: where the components lie.
            dtype: of all components; float32 by default.
            network_dtype: of the trained component, where it differs.

        Raises:
            InputError: as `check`, or keys are missing from or unexpected in a weight file.
        """

    @property
    def identity(self) -> str:
        """The family's name and class, for keys of caches.

        A subclass that changes one method makes something else, whatever its name. (An edited
        method is told by the stage's version, as everywhere in fine-tuning and sampling.)
        """
        own = type(self)
        return f"{self.name} {own.__module__}:{own.__qualname__}"

    def network(self, pipeline: Any) -> nn.Module:
        """Return the component that is trained."""
        return getattr(pipeline, self.trained)

    def encode_with(self, pipeline: Any) -> str:
        """Return which component encodes images; its weights decide what is cached."""
        return "vae"

    def save(self, pipeline: Any, base: Base, folder: Path) -> None:
        """Write a complete diffusers folder: the trained network anew, the rest copied as it was.

        Args:
            pipeline: whose network is saved, in safetensors.
            base: what the pipeline was loaded from.
            folder: an empty folder.
        """
        pipeline.save_config(folder)
        for file in self.check(base):
            component = base.component_of(file)
            if component and component.split("/")[0] != self.trained:
                target = folder / component
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        if not (folder / "scheduler").exists():
            pipeline.scheduler.save_pretrained(folder / "scheduler")
        network: Any = self.network(pipeline)
        network.save_pretrained(folder / self.trained, safe_serialization=True)

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """Return the shape of one image as `encode_images` gives it."""
        raise self._untrained()

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """Encode images float (n, 3, size, size) in [-1, 1] into what does not change by epoch.

        For a VAE these are the moments of its posterior, not a draw from it. Float32.
        """
        raise self._untrained()

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """Encode captions into the network's conditions; "" is the unconditional one."""
        raise self._untrained()

    def loss(
        self,
        pipeline: Any,
        network: nn.Module,
        encoded: Tensor,
        conditions: dict[str, Tensor],
        draws: Draws,
    ) -> Tensor:
        """Return the training loss of each image, float32 (n,).

        Args:
            pipeline: as loaded and placed.
            network: the trained network, possibly wrapped for several devices.
            encoded: from `encode_images`.
            conditions: from `encode_captions`.
            draws: the only source of randomness: one stream per image.
        """
        raise self._untrained()

    @abstractmethod
    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """Sample one 8-bit RGB image per caption, each from a CPU generator with its own seed."""

    def place(self, pipeline: Any, device: torch.device) -> None:
        """Move every component to the device for training; only the network leaves eval mode."""
        pipeline.to(device)
        self.network(pipeline).train()

    def _untrained(self) -> InputError:
        return InputError(
            f"the family {self.name} is sampled as it was published, not fine-tuned",
            "finetune",
            "remove the model's `finetune` block",
        )
