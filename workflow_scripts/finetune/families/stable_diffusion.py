"""Stable Diffusion 1.x and 2.x: a UNet over VAE latents, conditioned on CLIP text.

Training follows the objective that the checkpoint's own scheduler names: the noise (1.x, and the
`-base` checkpoints of 2.x) or the velocity (2, 2-1). Only the UNet is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import ATTENTIONS, Takes
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.flow import squared_error
from workflow_scripts.finetune.families.parts import (
    draw_latents,
    encode_moments,
    load_component,
    load_scheduler,
    load_tokenizer,
    moments_shape,
    require_fit,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder, clip
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

_REMEDY = "use the published checkpoint, all of its components from one repository"


class StableDiffusion(Family):
    """See the module."""

    name = "stable_diffusion"
    trained = "unet"
    takes = Takes(compile=("blocks", "network"), channels_last=True, attention=ATTENTIONS)
    lora_positions = MappingProxyType({"attention": ("to_q", "to_k", "to_v")})

    def check(self, base: Base) -> list[Path]:
        """See `Family.check`."""
        components = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
        files = check_pipeline_index(base, ("StableDiffusionPipeline",), components)
        unet, unet_files = component_files(base, "unet", "diffusion_pytorch_model")
        vae, vae_files = component_files(base, "vae", "diffusion_pytorch_model")
        text, text_files = component_files(base, "text_encoder", "model")
        tokens, vocabulary = tokenizer_files(base.path("tokenizer"))
        schedule = base.path("scheduler") / "scheduler_config.json"
        prediction = read_json(schedule).get("prediction_type", "epsilon")
        where = base.path("text_encoder") / "config.json"
        require_fit(
            text.get("hidden_size"),
            unet.get("cross_attention_dim"),
            "values per token of the text encoder, taken by the UNet",
            where,
        )
        if vocabulary is not None and vocabulary > text.get("vocab_size", 0):
            raise InputError(
                f"the tokenizer knows {vocabulary} tokens, the text encoder "
                f"{text.get('vocab_size')}",
                base.path("tokenizer") / "vocab.json",
                _REMEDY,
            )
        require_fit(
            vae.get("latent_channels"),
            unet.get("in_channels"),
            "latent channels of the VAE, taken by the UNet (an inpainting or depth model?)",
            base.path("unet") / "config.json",
        )
        if prediction not in ("epsilon", "v_prediction"):
            raise InputError(
                f"the scheduler predicts {prediction!r}, not epsilon or v_prediction",
                schedule,
                _REMEDY,
            )
        return [*files, *unet_files, *vae_files, *text_files, *tokens, schedule]

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        return [clip(base.path("tokenizer"))]

    def load(
        self,
        base: Base,
        dtype: torch.dtype | None = None,
        network_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> Any:
        """See `Family.load`. The safety checker is left out: it knows photographs."""
        self.check(base)
        from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        return StableDiffusionPipeline(
            unet=load_component(UNet2DConditionModel, base.path("unet"), network_dtype or dtype),
            vae=load_component(AutoencoderKL, base.path("vae"), vae_dtype or dtype),
            text_encoder=load_component(CLIPTextModel, base.path("text_encoder"), dtype),
            tokenizer=load_tokenizer(CLIPTokenizer, base.path("tokenizer")),
            scheduler=load_scheduler(base.path("scheduler")),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: mean and log-variance of the latents."""
        return moments_shape(pipeline.vae, size)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        return encode_moments(pipeline.vae, pixels)

    def encode_captions(self, pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_captions`; padded and cut to 77 tokens, as at sampling."""
        tokens = pipeline.tokenizer(
            list(captions),
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        encoder = pipeline.text_encoder
        uses_mask = getattr(encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(encoder.device) if uses_mask else None
        return {"text": encoder(tokens.input_ids.to(encoder.device), attention_mask=mask)[0]}

    def loss(
        self,
        pipeline: Any,
        network: nn.Module,
        encoded: Tensor,
        conditions: dict[str, Tensor],
        draws: Draws,
    ) -> Tensor:
        """See `Family.loss`: mean squared error to the noise or to the velocity.

        Noise levels are uniform over the scheduler's training steps (Ho et al., 2020); velocity as
        in Salimans and Ho, 2022.
        """
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        latents = draw_latents(pipeline.vae, encoded, draws)
        noise = draws.normal(latents.shape[1:])
        timesteps = draws.integers(scheduler.config.num_train_timesteps)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, timesteps)
        else:
            target = noise
        predicted = network(noisy, timesteps, conditions["text"].float()).sample
        return squared_error(predicted, target)

    def sample(
        self,
        pipeline: Any,
        captions: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> list[Image.Image]:
        """See `Family.sample`. The size is passed: the pipeline's default for 2.x is 768."""
        import torch

        return pipeline(
            list(captions),
            height=settings.size,
            width=settings.size,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        ).images
