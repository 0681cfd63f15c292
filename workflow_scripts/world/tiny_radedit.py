"""A tiny RadEdit of the embedded world, in the three folders of the published one."""

from pathlib import Path
from typing import Any, Final

TEXT_WIDTH: Final = 48
"""Values per token of the world's tiny CXR-BERT (`world/encoders.py`)."""


def write_tiny_radedit(vae: Any, folder: Path) -> None:
    """Write `radedit/unet` and `sdxl-vae`; the text encoder is the world's tiny BioViL-T.

    Args:
        vae: from `train_vae`, 4 latent channels.
        folder: where the two folders are written. Torch's generator draws the UNet's weights.
    """
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel(
        sample_size=vae.config.sample_size // 2 ** (len(vae.config.block_out_channels) - 1),
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    unet.save_pretrained(folder / "radedit" / "unet")
    vae.save_pretrained(folder / "sdxl-vae")
