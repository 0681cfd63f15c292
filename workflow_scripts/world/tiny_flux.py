"""A tiny FLUX.1 of the embedded world, in the layout of FLUX.1-dev."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from workflow_scripts.world.diffusion import MERGES, clip_tokenizer_files, write_clip_tokenizer
from workflow_scripts.world.tiny_text import clip_encoder, t5_encoder, t5_tokenizer

TEXT_WIDTH: Final = 32
POOLED_WIDTH: Final = 48
"""Differs from T5's width, so that confused components do not fit."""


def write_tiny_flux(captions: Sequence[str], vae: Any, folder: Path) -> None:
    """Write a FLUX of one double and two single blocks with guidance embedding, like FLUX.1-dev.

    Args:
        captions: the texts that the tokenizers' vocabularies are made from.
        vae: from `train_vae`, 16 latent channels at an eighth of the side.
        folder: the diffusers folder to write. Torch's generator draws the weights.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    files = clip_tokenizer_files(captions, MERGES)
    tokenizer = write_clip_tokenizer(files, folder / "tokenizer")
    t5_tokens = t5_tokenizer(captions)
    transformer: Any = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * vae.config.latent_channels,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline: Any = FluxPipeline(
        transformer=transformer.eval(),
        # Like FLUX.1-dev, the shift depends on the number of tokens.
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=1.15,
            base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
        vae=vae.eval(),
        text_encoder=clip_encoder(tokenizer, POOLED_WIDTH),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(t5_tokens, TEXT_WIDTH),
        tokenizer_2=t5_tokens,
    )
    pipeline.save_pretrained(folder)
    # transformers 5 saves a tokenizer.json; the published folder has vocab.json and merges.txt.
    write_clip_tokenizer(files, folder / "tokenizer")
