"""A tiny Stable Diffusion 3.5 of the embedded world, in the layout of the published one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from workflow_scripts.world.diffusion import MERGES, clip_tokenizer_files, write_clip_tokenizer
from workflow_scripts.world.tiny_text import clip_encoder, t5_encoder, t5_tokenizer

TEXT_WIDTH: Final = 32


def write_tiny_stable_diffusion_3(captions: Sequence[str], vae: Any, folder: Path) -> None:
    """Write a Stable Diffusion 3.5 of three blocks, the first with dual attention.

    Args:
        captions: the texts that the tokenizers' vocabularies are made from.
        vae: from `train_vae`, 16 latent channels at an eighth of the side.
        folder: the diffusers folder to write. Torch's generator draws the weights.
    """
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
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    pipeline: Any = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=clip_encoder(clip, TEXT_WIDTH // 2, projected=True),
        tokenizer=clip,
        text_encoder_2=clip_encoder(clip, TEXT_WIDTH // 2, projected=True),
        tokenizer_2=clip,
        text_encoder_3=t5_encoder(long, TEXT_WIDTH),
        tokenizer_3=long,
    )
    pipeline.save_pretrained(folder)
    for name in ("tokenizer", "tokenizer_2"):
        write_clip_tokenizer(files, folder / name)
