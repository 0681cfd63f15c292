"""What a text-to-image family has to know: the interface that training and sampling talk to.

A family is one class. It holds no state: the loaded pipeline is passed around. Nothing heavy is
imported until weights are loaded, so that preflight can ask any family to check its files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws


@dataclass(frozen=True)
class SampleSettings:
    """How images are sampled: denoising steps, guidance scale, and the side in pixels."""

    steps: int
    guidance: float
    size: int


class Family(ABC):
    """One kind of text-to-image model.

    Attributes:
        name: as it stands in the config.
        trained: the pipeline component that fine-tuning trains (`unet`, `transformer`).
        lora_targets: the modules that get LoRA weights by default; empty where the family is
            always fine-tuned in full.
    """

    name: str
    trained: str
    lora_targets: tuple[str, ...] = ()

    @abstractmethod
    def check(self, base: Path) -> list[Path]:
        """Check a checkpoint folder without importing torch; return the files that will be read.

        Raises:
            InputError: a file is missing or damaged, or components do not fit each other.
        """

    @abstractmethod
    def load(self, base: Path) -> Any:
        """Load the diffusers pipeline from a local folder: float32, on the CPU, eval mode.

        Raises:
            InputError: as `check`, or keys are missing from or unexpected in a weight file.
        """

    def network(self, pipeline: Any) -> nn.Module:
        """Return the component that is trained."""
        return getattr(pipeline, self.trained)

    @abstractmethod
    def place(self, pipeline: Any, device: torch.device, frozen_dtype: torch.dtype) -> None:
        """Move to the device for training: the trained network in float32, the rest frozen."""

    @abstractmethod
    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """Return the shape of one image as `encode_images` gives it."""

    @abstractmethod
    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """Encode images float (n, 3, size, size) in [-1, 1] into what does not change by epoch.

        For a VAE these are the moments of its posterior, not a draw from it.
        """

    @abstractmethod
    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """Encode captions into the network's conditions; "" is the unconditional one."""

    @abstractmethod
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

    @abstractmethod
    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """Sample one 8-bit RGB image per caption, each from a CPU generator with its own seed."""
