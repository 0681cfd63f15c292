"""A tiny PixArt-Sigma of the embedded world, in diffusers' layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from workflow_scripts.world.tiny_text import t5_encoder, write_t5_tokenizer

TEXT_WIDTH: Final = 32


def write_tiny_pixart_sigma(captions: Sequence[str], vae: Any, folder: Path) -> None:
    """Write a PixArt-Sigma of three blocks, which also predict a variance.

    Args:
        captions: the texts that the tokenizer's vocabulary is made from.
        vae: from `train_vae`, 4 latent channels at an eighth of the side.
        folder: the diffusers folder to write. Torch's generator draws the weights.
    """
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    tokenizer = write_t5_tokenizer(captions, folder / "tokenizer")
    transformer: Any = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=3,
        patch_size=2,
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=vae.config.latent_channels,
        out_channels=2 * vae.config.latent_channels,
        caption_channels=TEXT_WIDTH,
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
        text_encoder=t5_encoder(tokenizer, TEXT_WIDTH),
        vae=vae,
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(),
    )
    pipeline.save_pretrained(folder)
    # transformers 5 saves a tokenizer.json; the published folder has the SentencePiece model alone.
    write_t5_tokenizer(captions, folder / "tokenizer")
