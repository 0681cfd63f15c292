"""Lumina Image 2.0: a single-stream diffusion transformer with Gemma 2 text.

Qin et al., 2025 (arXiv 2503.21758). Flow matching that runs the other way: the network's time is 1
at the image, and it predicts the direction towards the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.flow import (
    noised,
    shifted,
    squared_error,
    uniform_sigma,
    velocity,
)
from workflow_scripts.finetune.families.parts import (
    draw_latents,
    encode_moments,
    load_component,
    load_scheduler,
    moments_shape,
    require_fit,
    text_tokens,
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
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws

TEXT_TOKENS: Final = 256
"""The pipeline's default, system prompt included."""


class Lumina2(Family):
    """See the module."""

    name = "lumina2"
    trained = "transformer"
    lora_positions = MappingProxyType({"attention": ("to_q", "to_k", "to_v")})
    options = MappingProxyType({"cfg_trunc_ratio": 1.0, "cfg_normalization": True})

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        components = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
        pipelines = ("Lumina2Pipeline", "Lumina2Text2ImgPipeline")
        files = check_pipeline_index(base, pipelines, components)
        network, network_files = component_files(base, "transformer", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        text, text_files = component_files(base, "text_encoder", "model")
        tokens, _ = tokenizer_files(base.path("tokenizer"))
        schedule = base.path("scheduler") / "scheduler_config.json"
        read_json(schedule)
        where = base.path("transformer") / "config.json"
        require_fit(
            text.get("hidden_size"),
            network.get("cap_feat_dim"),
            "values per token of the text encoder, taken by the transformer",
            where,
        )
        require_fit(
            vae.get("latent_channels"),
            network.get("in_channels"),
            "latent channels of the VAE, taken by the transformer",
            where,
        )
        return [*files, *network_files, *vae_files, *text_files, *tokens, schedule]

    def load(
        self, base: Base, dtype: torch.dtype | None = None, network_dtype: torch.dtype | None = None
    ) -> Any:
        """See `Family.load`."""
        self.check(base)
        from diffusers import AutoencoderKL, Lumina2Pipeline, Lumina2Transformer2DModel
        from transformers import AutoTokenizer, Gemma2Model

        network = base.path("transformer")
        tokenizer: Any = AutoTokenizer.from_pretrained(
            base.path("tokenizer"), local_files_only=True
        )
        text_encoder = load_component(Gemma2Model, base.path("text_encoder"), dtype)
        return Lumina2Pipeline(
            transformer=load_component(Lumina2Transformer2DModel, network, network_dtype or dtype),
            vae=load_component(AutoencoderKL, base.path("vae"), dtype),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=load_scheduler(base.path("scheduler")),
        )

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: mean and log-variance of the latents."""
        return moments_shape(pipeline.vae, size)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        return encode_moments(pipeline.vae, pixels)

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`: after the pipeline's system prompt, with the mask.

        The pipeline gives its negative prompt no system prompt, so the empty caption has none.
        """
        prompts = [f"{pipeline.system_prompt} <Prompt Start> {c}" if c else "" for c in captions]
        text, mask = pipeline._get_gemma_prompt_embeds(
            prompts, max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS)
        )
        return {"text": text, "mask": mask}

    def loss(
        self,
        pipeline: Any,
        network: nn.Module,
        encoded: Tensor,
        conditions: dict[str, Tensor],
        draws: Draws,
    ) -> Tensor:
        """See `Family.loss`: mean squared error to the velocity towards the image."""
        latents = draw_latents(pipeline.vae, encoded, draws)
        noise = draws.normal(latents.shape[1:])
        sigma = noise_levels(pipeline, draws)
        dtype = pipeline.transformer.dtype
        predicted = network(
            hidden_states=noised(latents, noise, sigma).to(dtype),
            timestep=1 - sigma,
            encoder_hidden_states=conditions["text"].to(dtype),
            encoder_attention_mask=conditions["mask"],
            return_dict=False,
        )[0]
        return squared_error(-predicted, velocity(latents, noise))

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`."""
        options = {**self.options, **settings.options}
        import torch

        return pipeline(
            list(captions),
            height=settings.size,
            width=settings.size,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            max_sequence_length=text_tokens(pipeline.tokenizer, TEXT_TOKENS),
            cfg_trunc_ratio=float(options["cfg_trunc_ratio"]),
            cfg_normalization=bool(options["cfg_normalization"]),
        ).images


def noise_levels(pipeline: Any, draws: Draws) -> Tensor:
    """Draw noise levels, float32 (n,): uniform, shifted as the scheduler samples."""
    return shifted(uniform_sigma(draws), pipeline.scheduler.config.shift)
