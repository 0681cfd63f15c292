"""A family whose checkpoint is the diffusers folder of one pipeline, trained on latents.

A subclass names the pipeline and its components. Checking the folder, loading it, encoding images
and sampling follow from these names. What is left to the subclass is how components fit each other
(`check_fit`), how captions are encoded, and the training loss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.options import Option
from workflow_scripts.finetune.families.parts import (
    encode_moments,
    load_component,
    load_scheduler,
    load_tokenizer,
    moments_shape,
    require_fit,
    sample_images,
    with_caption_mask,
)
from workflow_scripts.finetune.layout import (
    Base,
    check_pipeline_index,
    component_files,
    read_json,
    tokenizer_files,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

REMEDY: Final = "use the published checkpoint, all of its components from one repository"

CAPTION_MASK: Final = "caption_mask_when_dropped"
"""The training option that `parts.with_caption_mask` explains."""


class LatentPipeline(Family):
    """See the module.

    Attributes:
        pipelines: the pipeline classes that the folder's index may name; the first is built.
        networks: each component with weights, and its class: of diffusers for the trained network
            and the autoencoder (`vae`), else of transformers.
        tokenizers: each tokenizer, and its class of transformers. The tokenizer `tokenizer_2`
            serves `text_encoder_2`.
        scheduler: the class of diffusers that stands in for a scheduler's folder that is missing;
            empty where the folder must be there.
        arguments: further arguments of the pipeline's class.
    """

    pipelines: tuple[str, ...]
    networks: Mapping[str, str]
    tokenizers: Mapping[str, str]
    scheduler: str = ""
    arguments: Mapping[str, Any] = MappingProxyType({})

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        components = (*self.networks, *self.tokenizers, "scheduler")
        files = check_pipeline_index(base, self.pipelines, components)
        configs: dict[str, dict[str, Any]] = {}
        for name in self.networks:
            stem = "diffusion_pytorch_model" if self._of_diffusers(name) else "model"
            configs[name], component = component_files(base, name, stem)
            files += component
        for name in self.tokenizers:
            component, vocabulary = tokenizer_files(base.path(name))
            files += component
            encoder = name.replace("tokenizer", "text_encoder")
            _check_vocabulary(base.path(name), vocabulary, encoder, configs[encoder])
        schedule = base.path("scheduler") / "scheduler_config.json"
        if schedule.is_file() or not self.scheduler:
            configs["scheduler"] = read_json(schedule)
            files.append(schedule)
        self.check_fit(base, configs)
        return files

    @abstractmethod
    def check_fit(self, base: Base, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that components fit each other, and that the scheduler is one that is known.

        Args:
            base: the checkpoint, for messages.
            configs: the configuration of each network and of the scheduler, by component.

        Raises:
            InputError: they do not.
        """

    def require_latent_channels(
        self, base: Base, configs: Mapping[str, Mapping[str, Any]], taken: str = "the transformer"
    ) -> None:
        """Refuse an autoencoder whose latents have other channels than the network takes.

        Raises:
            InputError: they differ; `taken` names the network that takes them.
        """
        require_fit(
            configs["vae"].get("latent_channels"),
            configs[self.trained].get("in_channels"),
            f"latent channels of the VAE, taken by {taken}",
            base.path(self.trained) / "config.json",
        )

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        import diffusers
        import transformers

        chosen = {self.trained: network_dtype, "vae": vae_dtype}
        parts: dict[str, Any] = {}
        for name, kind in self.networks.items():
            library = diffusers if self._of_diffusers(name) else transformers
            precision = chosen.get(name) or dtype
            parts[name] = load_component(getattr(library, kind), base.path(name), precision)
        for name, kind in self.tokenizers.items():
            parts[name] = load_tokenizer(getattr(transformers, kind), base.path(name))
        schedule = base.path("scheduler")
        if self.scheduler and not schedule.is_dir():
            parts["scheduler"] = getattr(diffusers, self.scheduler)()
        else:
            parts["scheduler"] = load_scheduler(schedule)
        return getattr(diffusers, self.pipelines[0])(**parts, **self.arguments)

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: mean and log-variance of the latents.

        Raises:
            InputError: a size that the networks cannot work at.
        """
        self.check_size(pipeline, size)
        return moments_shape(pipeline.vae, size)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        return encode_moments(pipeline.vae, pixels)

    def encode_shown(
        self, pipeline: Any, captions: Sequence[str], dropped: Sequence[bool]
    ) -> dict[str, Tensor]:
        """See `Family.encode_shown`."""
        shown = super().encode_shown(pipeline, captions, dropped)
        keeps_mask = CAPTION_MASK in self.training_options and self.training_option(CAPTION_MASK)
        if keeps_mask and any(dropped):
            return with_caption_mask(shown, self.encode_captions(pipeline, captions))
        return shown

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`.

        Raises:
            InputError: a size that the networks cannot work at; a pipeline would shrink it.
        """
        self.check_size(pipeline, settings.size)
        arguments = self.sample_arguments(pipeline, {**self.options, **settings.options})
        return sample_images(pipeline, captions, seeds, settings, **arguments)

    def sample_arguments(self, pipeline: Any, options: Mapping[str, Option]) -> dict[str, Any]:
        """Return what the pipeline is called with beyond captions, size, steps and guidance.

        Args:
            pipeline: as loaded.
            options: every sampling option of the family, chosen or by default.
        """
        return {}

    def _of_diffusers(self, component: str) -> bool:
        return component in (self.trained, "vae")


def _check_vocabulary(
    folder: Path, vocabulary: int | None, encoder: str, config: Mapping[str, Any]
) -> None:
    """Refuse a tokenizer that knows tokens for which its text encoder has no embedding."""
    if vocabulary is not None and vocabulary > config.get("vocab_size", 0):
        raise InputError(
            f"the tokenizer knows {vocabulary} tokens, but {encoder} only "
            f"{config.get('vocab_size')}",
            folder / "vocab.json",
            REMEDY,
        )
