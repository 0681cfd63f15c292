"""Stable Diffusion 1.x and 2.x: a UNet over VAE latents, conditioned on CLIP text.

Training follows the objective that the checkpoint's own scheduler names: the noise (1.x, and the
`-base` checkpoints of 2.x) or the velocity (2, 2-1). Only the UNet is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.layout import (
    check_pipeline_index,
    read_json,
    tokenizer_files,
    weight_files,
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
    lora_targets = ("to_q", "to_k", "to_v")

    def check(self, base: Path) -> list[Path]:
        """See `Family.check`."""
        components = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
        files = [check_pipeline_index(base, ("StableDiffusionPipeline",), components)]
        unet = read_json(base / "unet" / "config.json")
        vae = read_json(base / "vae" / "config.json")
        text = read_json(base / "text_encoder" / "config.json")
        scheduler = read_json(base / "scheduler" / "scheduler_config.json")
        files += [base / name / "config.json" for name in ("unet", "vae", "text_encoder")]
        files.append(base / "scheduler" / "scheduler_config.json")
        tokens, vocabulary = tokenizer_files(base / "tokenizer")
        files += tokens

        width, wanted = text.get("hidden_size"), unet.get("cross_attention_dim")
        if width != wanted:
            raise InputError(
                f"the text encoder does not fit the UNet: it gives {width} values per token, "
                f"the UNet takes {wanted}",
                base / "text_encoder" / "config.json",
                _REMEDY,
            )
        if vocabulary is not None and vocabulary > text.get("vocab_size", 0):
            raise InputError(
                f"the tokenizer knows {vocabulary} tokens, the text encoder "
                f"{text.get('vocab_size')}",
                base / "tokenizer" / "vocab.json",
                _REMEDY,
            )
        if vae.get("latent_channels") != unet.get("in_channels"):
            raise InputError(
                f"the VAE has {vae.get('latent_channels')} latent channels, the UNet takes "
                f"{unet.get('in_channels')} (an inpainting or depth model?)",
                base / "unet" / "config.json",
                _REMEDY,
            )
        if scheduler.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
            raise InputError(
                f"the scheduler predicts {scheduler['prediction_type']!r}, not epsilon or "
                "v_prediction",
                base / "scheduler" / "scheduler_config.json",
                _REMEDY,
            )
        files += weight_files(base / "unet", "diffusion_pytorch_model")
        files += weight_files(base / "vae", "diffusion_pytorch_model")
        files += weight_files(base / "text_encoder", "model")
        return files

    def load(self, base: Path) -> Any:
        """See `Family.load`. The safety checker is left out: it knows photographs."""
        self.check(base)
        from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
        from transformers import CLIPTextModel

        pipeline = StableDiffusionPipeline.from_pretrained(
            base,
            unet=_load_component(UNet2DConditionModel, base / "unet"),
            vae=_load_component(AutoencoderKL, base / "vae"),
            text_encoder=_load_component(CLIPTextModel, base / "text_encoder"),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
            local_files_only=True,
        )
        for component in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            component.requires_grad_(False).eval()
        return pipeline

    def place(self, pipeline: Any, device: torch.device, frozen_dtype: torch.dtype) -> None:
        """See `Family.place`."""
        pipeline.unet.to(device).requires_grad_(True).train()
        for frozen in (pipeline.vae, pipeline.text_encoder):
            frozen.to(device)
            if frozen.dtype != frozen_dtype:
                frozen.to(frozen_dtype)

    def encoded_shape(self, pipeline: Any, size: int) -> tuple[int, ...]:
        """See `Family.encoded_shape`: mean and log-variance of the latents."""
        side = size // 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
        return (2 * pipeline.vae.config.latent_channels, side, side)

    def encode_images(self, pipeline: Any, pixels: Tensor) -> Tensor:
        """See `Family.encode_images`."""
        vae = pipeline.vae
        return vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.parameters.float()

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
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        posterior = DiagonalGaussianDistribution(encoded)
        shape = posterior.mean.shape[1:]
        latents = posterior.mean + posterior.std * draws.normal(shape)
        latents = latents * pipeline.vae.config.scaling_factor
        noise = draws.normal(shape)
        timesteps = draws.integers(scheduler.config.num_train_timesteps)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, timesteps)
        else:
            target = noise
        predicted = network(noisy, timesteps, conditions["text"].float()).sample
        return (predicted.float() - target).square().mean(dim=(1, 2, 3))

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


def _load_component(kind: Any, folder: Path) -> Any:
    """Load a component in float32 and make sure that every key was there and wanted."""
    import torch

    dtype = {"dtype": torch.float32}
    if kind.__module__.startswith("diffusers"):
        dtype = {"torch_dtype": torch.float32}
    try:
        component, info = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **dtype
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{kind.__name__} cannot be loaded: {str(error).splitlines()[0]}", folder, _REMEDY
        ) from None
    # Checkpoints of older transformers store the positions 0..76 as a buffer.
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith("position_ids")]
    faults = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(unexpected),
        "of another shape": sorted(str(key) for key in info.get("mismatched_keys", ())),
    }
    found = [
        f"{len(keys)} {fault}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for fault, keys in faults.items()
        if keys
    ]
    if found:
        raise InputError(f"keys of {kind.__name__}: {'; '.join(found)}", folder, _REMEDY)
    return component
