"""Stable Diffusion 1.x and 2.x: a UNet over VAE latents, conditioned on CLIP text.

Training follows the objective that the checkpoint's own scheduler names: the noise (1.x, and the
`-base` checkpoints of 2.x) or the velocity (2, 2-1). Only the UNet is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import ATTENTIONS, Takes
from workflow_scripts.finetune.families.flow import squared_error
from workflow_scripts.finetune.families.latent_pipeline import REMEDY, LatentPipeline
from workflow_scripts.finetune.families.parts import (
    WITHOUT_SAFETY_CHECKER,
    draw_latents,
    require_fit,
)
from workflow_scripts.finetune.families.text_encoders import TextEncoder, clip
from workflow_scripts.finetune.layout import Base

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workflow_scripts.finetune.draws import Draws


class StableDiffusion(LatentPipeline):
    """See the module."""

    name = "stable_diffusion"
    trained = "unet"
    takes = Takes(compile=("blocks", "network"), channels_last=True, attention=ATTENTIONS)
    lora_positions = MappingProxyType({"attention": ("to_q", "to_k", "to_v")})
    pipelines = ("StableDiffusionPipeline",)
    networks = MappingProxyType(
        {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
    )
    tokenizers = MappingProxyType({"tokenizer": "CLIPTokenizer"})
    arguments = WITHOUT_SAFETY_CHECKER

    def check_fit(self, base: Base, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """See `LatentPipeline.check_fit`."""
        require_fit(
            configs["text_encoder"].get("hidden_size"),
            configs["unet"].get("cross_attention_dim"),
            "values per token of the text encoder, taken by the UNet",
            base.path("text_encoder") / "config.json",
        )
        self.require_latent_channels(base, configs, "the UNet (an inpainting or depth model?)")
        prediction = configs["scheduler"].get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise InputError(
                f"the scheduler predicts {prediction!r}, not epsilon or v_prediction",
                base.path("scheduler") / "scheduler_config.json",
                REMEDY,
            )

    def text_encoders(self, base: Base) -> list[TextEncoder]:
        """See `Family.text_encoders`."""
        return [clip(base.path("tokenizer"))]

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
