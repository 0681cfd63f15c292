"""A tiny Sana of the embedded world, in the layout of the published one, and its autoencoder.

Sana's latents come from a deep-compression autoencoder, whose output is the latent itself, not a
distribution. The tiny one reduces the side by a factor of 8 (the published one by 32). The networks
work at 64 pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from workflow_scripts.common.progress import Progress
from workflow_scripts.world.tiny_text import gemma_encoder, gemma_tokenizer

LATENT_CHANNELS: Final = 8
TEXT_WIDTH: Final = 32
TEXT_TOKENS: Final = 128
"""Length of the tokenizer, which fits nine in ten of the world's captions."""

_LEARNING_RATE: Final = 3e-3
_WARMUP_STEPS: Final = 20


def tiny_dc_ae() -> Any:
    """Return a random deep-compression autoencoder that reduces the side by a factor of 8."""
    from diffusers import AutoencoderDC

    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",)
    widths = (8, 16, 16, 16)
    layers = (1,) * 4
    scales = ((), (), (), (5,))
    return AutoencoderDC(
        latent_channels=LATENT_CHANNELS,
        attention_head_dim=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
    )


def train_dc_ae(pixels: Tensor, steps: int, batch: int) -> Any:
    """Train a `tiny_dc_ae` by the absolute error of pixels; scale its latents to unit deviation.

    Args:
        pixels: float (n, 3, 64, 64) in [-1, 1].
        steps: steps of Adam.
        batch: images per step, drawn with replacement by torch's generator.
    """
    autoencoder = tiny_dc_ae().train()
    optimiser = torch.optim.Adam(autoencoder.parameters())
    progress = Progress("training the autoencoder", steps, "steps")
    for step in range(steps):
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / _WARMUP_STEPS)
            group["lr"] = _LEARNING_RATE * warm * (1 - step / steps)
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


def write_tiny_sana(captions: Sequence[str], vae: Any, folder: Path) -> None:
    """Write a Sana of three blocks.

    Args:
        captions: the texts that the tokenizer's vocabulary is made from.
        vae: from `train_dc_ae`.
        folder: the diffusers folder to write. Torch's generator draws the weights.
    """
    from diffusers import DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    # Word by word, because Gemma's splitting lets pairs merge across words, and each of the few
    # captions might become one token.
    words = [f" {word}" for caption in captions for word in caption.split()]
    tokenizer = gemma_tokenizer(words, max_length=TEXT_TOKENS)
    channels = vae.config.latent_channels
    transformer: Any = SanaTransformer2DModel(
        in_channels=channels,
        out_channels=channels,
        num_layers=3,
        num_attention_heads=4,
        attention_head_dim=16,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=TEXT_WIDTH,
        sample_size=8,
        patch_size=1,
        mlp_ratio=2.5,
    )
    pipeline: Any = SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=gemma_encoder(tokenizer, TEXT_WIDTH),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(
            flow_shift=3.0, prediction_type="flow_prediction", use_flow_sigmas=True
        ),
    )
    pipeline.save_pretrained(folder)
