"""Tiny diffusion transformers in the published layouts: PixArt-Sigma, Sana, SD 3.5, Lumina 2.

All weights but the autoencoder's are random, from torch's generator. They work at 64 pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.progress import Progress
from workflow_scripts.world.diffusion import MERGES, clip_tokenizer_files, write_clip_tokenizer
from workflow_scripts.world.tiny_text import (
    clip_encoder,
    gemma_encoder,
    gemma_tokenizer,
    t5_encoder,
    t5_tokenizer,
)

WIDTH = 32
"""Of the text encoders."""


def write_tiny_pixart_sigma(captions: Sequence[str], vae: Any, folder: Path) -> None:
    """Write a tiny PixArt-Sigma over a 4-channel VAE."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    tokenizer = t5_tokenizer(captions)
    transformer: Any = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=3,
        patch_size=2,
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=vae.config.latent_channels,
        out_channels=2 * vae.config.latent_channels,
        caption_channels=WIDTH,
        cross_attention_dim=64,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )
    pipeline: Any = PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer, WIDTH),
        vae=vae,
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(),
    )
    pipeline.save_pretrained(folder)


def tiny_dc_ae() -> Any:
    """Return a random deep-compression autoencoder: 8 channels at an eighth of the side."""
    from diffusers import AutoencoderDC

    return AutoencoderDC(
        in_channels=3,
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",),
        decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",),
        encoder_block_out_channels=(8, 16, 16, 16),
        decoder_block_out_channels=(8, 16, 16, 16),
        encoder_layers_per_block=(1,) * 4,
        decoder_layers_per_block=(1,) * 4,
        encoder_qkv_multiscales=((), (), (), (5,)),
        decoder_qkv_multiscales=((), (), (), (5,)),
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )


def train_dc_ae(pixels: Tensor, steps: int, batch: int) -> Any:
    """Train a deep-compression autoencoder on images float (n, 3, 64, 64) in [-1, 1]."""
    autoencoder = tiny_dc_ae().train()
    optimiser = torch.optim.Adam(autoencoder.parameters(), lr=3e-3)
    progress = Progress("training the autoencoder", steps, "steps")
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        images = pixels[torch.randint(len(pixels), (batch,))]
        decoded = autoencoder.decode(autoencoder.encode(images).latent).sample
        loss = functional.l1_loss(decoded, images)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimiser.step()
        progress.update(note=f"loss {float(loss.detach()):.4f}")
    autoencoder.eval()
    with torch.no_grad():
        latents = autoencoder.encode(pixels[:128]).latent
    autoencoder.register_to_config(scaling_factor=float(1 / latents.std()))
    return autoencoder


def write_tiny_sana(captions: Sequence[str], autoencoder: Any, folder: Path) -> None:
    """Write a tiny Sana over an autoencoder of `train_dc_ae`."""
    from diffusers import DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    tokenizer = gemma_tokenizer(captions, max_length=64)
    channels = autoencoder.config.latent_channels
    transformer: Any = SanaTransformer2DModel(
        patch_size=1,
        in_channels=channels,
        out_channels=channels,
        num_layers=3,
        num_attention_heads=4,
        attention_head_dim=16,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=WIDTH,
        sample_size=8,
        mlp_ratio=2.5,
    )
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        beta_schedule="linear",
        flow_shift=3.0,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
    )
    text_encoder = gemma_encoder(tokenizer, WIDTH)
    pipeline: Any = SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=autoencoder,
        transformer=transformer.eval(),
        scheduler=scheduler,
    )
    pipeline.save_pretrained(folder)


def write_tiny_stable_diffusion_3(captions: Sequence[str], vae: Any, folder: Path) -> None:
    """Write a tiny Stable Diffusion 3.5 over a 16-channel VAE; its first block attends twice."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    files = clip_tokenizer_files(captions, MERGES)
    clip = write_clip_tokenizer(files, folder / "tokenizer")
    long = t5_tokenizer(captions)
    transformer: Any = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        num_layers=3,
        num_attention_heads=4,
        attention_head_dim=16,
        caption_projection_dim=64,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    pipeline: Any = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=clip_encoder(clip, WIDTH // 2, projected=True),
        tokenizer=clip,
        text_encoder_2=clip_encoder(clip, WIDTH // 2, projected=True),
        tokenizer_2=clip,
        text_encoder_3=t5_encoder(long, WIDTH),
        tokenizer_3=long,
    )
    pipeline.save_pretrained(folder)
    for name in ("tokenizer", "tokenizer_2"):
        write_clip_tokenizer(files, folder / name)


def write_tiny_lumina2(captions: Sequence[str], vae: Any, folder: Path) -> None:
    """Write a tiny Lumina 2 over a 16-channel VAE."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        Lumina2Pipeline,
        Lumina2Transformer2DModel,
    )

    tokenizer = gemma_tokenizer([*captions, *[_LUMINA_WORDS] * 8])
    transformer: Any = Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=vae.config.latent_channels,
        hidden_size=64,
        num_layers=3,
        num_refiner_layers=1,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(8, 4, 4),
        axes_lens=(300, 64, 64),
        cap_feat_dim=WIDTH,
        norm_eps=1e-5,
    )
    text_encoder = gemma_encoder(tokenizer, WIDTH)
    pipeline: Any = Lumina2Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
    pipeline.save_pretrained(folder)


_LUMINA_WORDS = (
    "You are an assistant designed to generate superior images with the superior degree of "
    "image-text alignment based on textual prompts or user prompts. <Prompt Start>"
)
