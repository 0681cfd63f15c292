"""A tiny Lumina Image 2.0 of the embedded world, in the layout of the published one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from workflow_scripts.world.tiny_text import gemma_encoder, gemma_tokenizer

TEXT_WIDTH: Final = 32
TEXT_TOKENS: Final = 192
"""Length of the tokenizer: room for a report after the system prompt."""

_SYSTEM_PROMPT: Final = (
    "You are an assistant designed to generate superior images with the superior degree of "
    "image-text alignment based on textual prompts or user prompts. <Prompt Start>"
)


def write_tiny_lumina2(captions: Sequence[str], vae: Any, folder: Path) -> None:
    """Write a Lumina 2 of one refiner block for the text, one for the image and three joint ones.

    Args:
        captions: the texts that the vocabulary is made from, besides the system prompt.
        vae: from `train_vae`, 16 latent channels at an eighth of the side.
        folder: the diffusers folder to write. Torch's generator draws the weights.
    """
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        Lumina2Pipeline,
        Lumina2Transformer2DModel,
    )

    # Word by word, because Gemma's splitting lets pairs merge across words, and each of the few
    # captions might become one token. The system prompt is repeated, so that it gets few tokens.
    texts = [*captions, *[_SYSTEM_PROMPT] * len(captions)]
    words = [f" {word}" for text in texts for word in text.split()]
    tokenizer = gemma_tokenizer(words, max_length=TEXT_TOKENS)
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
        cap_feat_dim=TEXT_WIDTH,
    )
    pipeline: Any = Lumina2Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae.eval(),
        text_encoder=gemma_encoder(tokenizer, TEXT_WIDTH),
        tokenizer=tokenizer,
    )
    pipeline.save_pretrained(folder)
