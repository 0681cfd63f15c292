"""The same architectures with tiny values, for a run on a CPU that proves every part's code.

Each entry replaces values of the published configuration of the same name.
"""

from typing import Any, Final

SIZE: Final = 64
"""Side of the images in pixels."""

_UNET: Final[dict[str, Any]] = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (8, 8, 16, 16),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
_KL: Final[dict[str, Any]] = {
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": SIZE,
}
_CLIP: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "projection_dim": 32,
}

TINY: Final[dict[str, dict[str, Any]]] = {
    "sd1": _UNET,
    "sd2": {**_UNET, "attention_head_dim": (4, 4, 8, 8)},
    "pixart_sigma": {
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 2,
        "cross_attention_dim": 32,
        "caption_channels": 32,
        "sample_size": 8,
    },
    "sana": {
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 2,
        "num_cross_attention_heads": 4,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 32,
        "caption_channels": 32,
        "sample_size": 8,
    },
    "stable_diffusion_3": {
        "sample_size": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "caption_projection_dim": 32,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "pos_embed_max_size": 16,
        "dual_attention_layers": (0,),
    },
    "lumina2": {
        "sample_size": 8,
        "hidden_size": 48,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "multiple_of": 16,
        "axes_dim_rope": (4, 4, 4),
        "axes_lens": (300, 64, 64),
        "cap_feat_dim": 32,
    },
    "flux": {
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "axes_dims_rope": (4, 6, 6),
    },
    "kl_sd": _KL,
    "kl_sdxl": _KL,
    "kl_sd3": _KL,
    "kl_flux": _KL,
    "dc_sana": {
        "latent_channels": 8,
        "attention_head_dim": 8,
        "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",),
        "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",),
        "encoder_block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8, 8),
        "encoder_layers_per_block": (1,) * 4,
        "decoder_layers_per_block": (1,) * 4,
        "encoder_qkv_multiscales": ((), (), (), (5,)),
        "decoder_qkv_multiscales": ((), (), (), (5,)),
    },
    "clip_l": _CLIP,
    "clip_h": _CLIP,
    "clip_l_projected": {**_CLIP, "hidden_size": 16, "projection_dim": 16},
    "clip_g_projected": {**_CLIP, "hidden_size": 16, "projection_dim": 16},
    "t5_xxl": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4},
    "gemma2_2b": {
        "vocab_size": 1000,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
    },
    "cxr_bert": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    },
}
