"""The interface of a text-to-image family, which training and sampling use.

A family is one class. Its only state is the options that it is trained with; the loaded pipeline is
passed to its methods. Nothing heavy is imported until weights are loaded, so that preflight can let
any family check its files.
"""

from __future__ import annotations

import copy
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.settings import Key
from workflow_scripts.common.speed import Takes
from workflow_scripts.finetune.families.options import (
    OPTIONS_SCHEMA,
    Option,
    check_options,
    parse_option,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder, indexed_text_encoders
from workflow_scripts.finetune.layout import Base

if TYPE_CHECKING:
    from typing import Self

    import torch
    from PIL import Image
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws


@dataclass(frozen=True)
class SampleSettings:
    """The settings of sampling that the family applies.

    `steps` is 0 for a family that does not denoise; `options` are those of `Family.options`.
    """

    steps: Annotated[
        int,
        Key("Denoising steps.", minimum=0, absent=0, schema={"type": "integer", "minimum": 1}),
    ]
    guidance: Annotated[float, Key("Classifier-free guidance scale.", minimum=0, absent=0.0)]
    size: Annotated[
        int,
        Key("Side of the images in pixels.", schema={"type": "integer", "minimum": 16}),
    ]
    options: Annotated[
        Mapping[str, Option],
        Key(
            "Options of single families: cfg_trunc_ratio and cfg_normalization of lumina2, "
            "instruction of sana, top_p, attempts and instruction of llm_cxr. See "
            "docs/families.md.",
            optional=True,
            flag="option",
            parse=parse_option,
            schema=OPTIONS_SCHEMA,
        ),
    ] = field(default_factory=dict)


class Family(ABC):
    """One kind of text-to-image model.

    Attributes:
        name: the value of `family:` in the config.
        trained: the pipeline component that fine-tuning trains (`unet`, `transformer`); empty for
            a family that is only sampled.
        lora_positions: each name of a place for LoRA weights (`attention`, `attention_mlp`, ...)
            with the endings of module names that it stands for; empty if the pipeline cannot save
            LoRA.
        options: sampling options beyond steps, guidance and size, with their defaults.
        training_options: options of training that only this family has, with their defaults.
        denoises: whether sampling has denoising steps.
        encodes_in_float32: whether training loads the autoencoder in float32 at any
            precision.
        decodes_in_float32: the same for sampling.
        decoder: the pipeline's component whose `decode` turns latents into pixels; sampling refuses
            values that are not finite there (finite.py). A pipeline without it is not checked.
        takes: the switches of speed that its network supports (common/speed.py); none by default.
        denoiser: the component that denoises in sampling; by default the trained one.
    """

    name: str
    trained: str = ""
    lora_positions: Mapping[str, tuple[str, ...]] = {}
    options: Mapping[str, Option] = {}
    training_options: Mapping[str, Option] = {}
    denoises: bool = True
    encodes_in_float32: bool = False
    decodes_in_float32: bool = False
    decoder: str = "vae"
    takes: Takes = Takes()
    denoiser: str = ""

    _chosen: Mapping[str, Option] = MappingProxyType({})

    def trained_with(self, options: Mapping[str, Option]) -> Self:
        """Return the family with some options of training (`training_options`) set.

        Raises:
            InputError: an option that the family does not have, or a value of another kind.
        """
        check_options(self.name, options, self.training_options, "finetune.options")
        chosen = copy.copy(self)
        chosen._chosen = MappingProxyType(dict(options))
        return chosen

    def training_option(self, name: str) -> Option:
        """Return the value of an option of training: the one set, or its default."""
        return self._chosen.get(name, self.training_options[name])

    @abstractmethod
    def check(self, base: Base) -> list[Path]:
        """Check a checkpoint without importing torch; return the files that will be read.

        Raises:
            InputError: a file is missing or damaged, or components do not fit each other.
        """

    @abstractmethod
    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """Load the diffusers pipeline from local folders, on the CPU, frozen, in eval mode.

        Args:
            base: the folders of the components.
            dtype: the precision of all components; float32 by default.
            network_dtype: the precision of the trained component, if it differs.
            vae_dtype: the precision of the autoencoder, if it differs. A family that neither
                encodes nor decodes in float32 need not have this argument.

        Components and tokenizers are loaded by `parts.load_component` and `load_tokenizer`, which
        let preflight load every model of the run without the values of its weights.

        Raises:
            InputError: as `check`, or keys are missing from or unexpected in a weight file.
        """

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """Return the text encoders and how each reads a caption.

        By default these are the tokenizers that the checkpoint's `model_index.json` names, each
        cutting at its own length. The list is empty if nothing is known.
        """
        return indexed_text_encoders(base)

    @property
    def identity(self) -> str:
        """The family's name and class, for keys of caches.

        The class is part of it, because a subclass that changes one method makes other images. (For
        an edited method, raise the stage's version, as everywhere in fine-tuning and sampling.)
        """
        kind = type(self)
        return f"{self.name} {kind.__module__}:{kind.__qualname__}"

    def network(self, pipeline: Any) -> nn.Module:
        """Return the component that is trained."""
        return getattr(pipeline, self.trained)

    def sampled_network(self, pipeline: Any) -> nn.Module:
        """Return the component that denoises in sampling."""
        return getattr(pipeline, self.denoiser or self.trained)

    def encode_with(self, pipeline: Any) -> str:
        """Return the component that encodes images; cached images depend on its weights."""
        return "vae"

    def save(self, pipeline: Any, base: Base, folder: Path) -> None:
        """Write a complete diffusers folder: the trained network newly written, the rest copied.

        Args:
            pipeline: the pipeline whose network is saved, as safetensors.
            base: the checkpoint that the pipeline was loaded from.
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

    def check_size(self, pipeline: Any, size: int) -> None:
        """Check the side of training or sampled images, in pixels.

        By default it has to be a multiple of 8 and of the side of a token: the pipeline's
        `vae_scale_factor` times the patch size of its transformer.

        Raises:
            InputError: the networks cannot work at it.
        """
        transformer: Any = getattr(pipeline, "transformer", None)
        patch = getattr(getattr(transformer, "config", None), "patch_size", None)
        token = getattr(pipeline, "vae_scale_factor", 1) * (patch if isinstance(patch, int) else 1)
        self.require_multiple(size, math.lcm(8, token))

    def require_multiple(self, size: int, side: int) -> None:
        """Refuse a size that is not a positive multiple of a side, both in pixels.

        Raises:
            InputError: it is not; the message gives the nearest smaller multiple.
        """
        if size <= 0 or size % side:
            raise InputError(
                f"{size} pixels: {self.name} needs a multiple of {side}",
                "size",
                f"use {max(1, size // side) * side}",
            )

    def check_options(self, options: Mapping[str, Option]) -> None:
        """Check the sampling options that only this family has, before anything is loaded.

        Raises:
            InputError: the family has no such option, or the value is of another kind.
        """
        check_options(self.name, options, self.options, "generate.options")

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """Return the shape of one image as `encode_images` gives it."""
        raise self._untrained()

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """Encode images float (n, 3, size, size) in [-1, 1] as float32, the same in every epoch.

        For a VAE these are the moments of its posterior, not a draw from it.
        """
        raise self._untrained()

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """Encode captions into the network's conditions; "" gives the unconditional one."""
        raise self._untrained()

    def encode_shown(
        self, pipeline: Any, captions: Sequence[str], dropped: Sequence[bool]
    ) -> dict[str, Tensor]:
        """Encode captions as training shows them: a dropped caption is the empty one."""
        shown = ["" if drop else text for text, drop in zip(captions, dropped, strict=True)]
        return self.encode_captions(pipeline, shown)

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
            pipeline: the loaded pipeline on the device. Use only the configuration of its
                autoencoder, which leaves the device once all images are encoded.
            network: the trained network, possibly wrapped for several devices.
            encoded: images from `encode_images`.
            conditions: conditions from `encode_captions`.
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
            f"the family {self.name} can be sampled as published, but not fine-tuned",
            "finetune",
            "remove the model's `finetune` block",
        )
