"""The published networks as configuration values, and what each system is put together from.

The values are those of the published config.json; tests/finetune/test_real_sizes.py counts the
parameters that they give. What no public source says is left out, and named where it is missed.
"""

from dataclasses import dataclass
from typing import Any, Final

_SD_UNET: Final[dict[str, Any]] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}

NETWORKS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    # stable-diffusion-v1-4, stable-diffusion-v1-5: unet/config.json
    "sd1": ("UNet2DConditionModel", _SD_UNET),
    # stable-diffusion-2, stable-diffusion-2-1
    "sd2": (
        "UNet2DConditionModel",
        {
            **_SD_UNET,
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
    ),
    # PixArt-Sigma-XL-2-512-MS
    "pixart_sigma": (
        "PixArtTransformer2DModel",
        {
            "num_attention_heads": 16,
            "attention_head_dim": 72,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 28,
            "cross_attention_dim": 1152,
            "caption_channels": 4096,
            "sample_size": 64,
            "patch_size": 2,
            "interpolation_scale": 1,
            "use_additional_conditions": False,
        },
    ),
    # Sana_600M_512px
    "sana": (
        "SanaTransformer2DModel",
        {
            "in_channels": 32,
            "out_channels": 32,
            "num_attention_heads": 36,
            "attention_head_dim": 32,
            "num_layers": 28,
            "num_cross_attention_heads": 16,
            "cross_attention_head_dim": 72,
            "cross_attention_dim": 1152,
            "caption_channels": 2304,
            "mlp_ratio": 2.5,
            "attention_bias": False,
            "sample_size": 16,
            "patch_size": 1,
            "interpolation_scale": None,
        },
    ),
    # stable-diffusion-3.5-medium
    "stable_diffusion_3": (
        "SD3Transformer2DModel",
        {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
    ),
    # Lumina-Image-2.0
    "lumina2": (
        "Lumina2Transformer2DModel",
        {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "hidden_size": 2304,
            "num_layers": 26,
            "num_refiner_layers": 2,
            "num_attention_heads": 24,
            "num_kv_heads": 8,
            "multiple_of": 256,
            "ffn_dim_multiplier": None,
            "norm_eps": 1e-5,
            "scaling_factor": 1.0,
            "axes_dim_rope": (32, 32, 32),
            "axes_lens": (300, 512, 512),
            "cap_feat_dim": 2304,
        },
    ),
    # FLUX.1-dev
    "flux": (
        "FluxTransformer2DModel",
        {
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
            "axes_dims_rope": (16, 56, 56),
        },
    ),
}
"""Class of diffusers and configuration of each trained or sampled network."""

_KL: Final[dict[str, Any]] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
}
_KL_16: Final[dict[str, Any]] = {
    **_KL,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "sample_size": 1024,
}
_DC_BLOCKS: Final = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
_DC_WIDTHS: Final = (128, 256, 512, 512, 1024, 1024)
_DC_SCALES: Final = ((), (), (), (5,), (5,), (5,))

AUTOENCODERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "kl_sd": ("AutoencoderKL", {**_KL, "scaling_factor": 0.18215}),
    "kl_sdxl": ("AutoencoderKL", {**_KL, "scaling_factor": 0.13025, "sample_size": 1024}),
    "kl_sd3": ("AutoencoderKL", {**_KL_16, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
    "kl_flux": ("AutoencoderKL", {**_KL_16, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
    "dc_sana": (
        "AutoencoderDC",
        {
            "latent_channels": 32,
            "attention_head_dim": 32,
            "encoder_block_types": _DC_BLOCKS,
            "decoder_block_types": _DC_BLOCKS,
            "encoder_block_out_channels": _DC_WIDTHS,
            "decoder_block_out_channels": _DC_WIDTHS,
            "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
            "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
            "encoder_qkv_multiscales": _DC_SCALES,
            "decoder_qkv_multiscales": _DC_SCALES,
            "downsample_block_type": "Conv",
            "upsample_block_type": "interpolate",
            "scaling_factor": 0.41407,
        },
    ),
}
"""Class of diffusers and configuration of each autoencoder."""


def _clip(width: int, layers: int, heads: int, projection: int, act: str) -> dict[str, Any]:
    return {
        "vocab_size": 49408,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": projection,
        "max_position_embeddings": 77,
        "hidden_act": act,
    }


TEXT_ENCODERS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "clip_l": ("CLIPTextModel", "CLIPTextConfig", _clip(768, 12, 12, 768, "quick_gelu")),
    "clip_h": ("CLIPTextModel", "CLIPTextConfig", _clip(1024, 23, 16, 512, "gelu")),
    "clip_l_projected": (
        "CLIPTextModelWithProjection",
        "CLIPTextConfig",
        _clip(768, 12, 12, 768, "quick_gelu"),
    ),
    "clip_g_projected": (
        "CLIPTextModelWithProjection",
        "CLIPTextConfig",
        _clip(1280, 32, 20, 1280, "gelu"),
    ),
    "t5_xxl": (
        "T5EncoderModel",
        "T5Config",
        {
            "vocab_size": 32128,
            "d_model": 4096,
            "d_kv": 64,
            "d_ff": 10240,
            "num_layers": 24,
            "num_heads": 64,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "eos_token_id": 1,
        },
    ),
    "gemma2_2b": (
        "Gemma2Model",
        "Gemma2Config",
        {
            "vocab_size": 256000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "max_position_embeddings": 8192,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
    ),
    "cxr_bert": (
        "BertModel",
        "BertConfig",
        {
            "vocab_size": 30522,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "max_position_embeddings": 512,
        },
    ),
}
"""Class of transformers, class of its configuration, and the configuration."""

_SD_NOISE: Final[dict[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
_FLOW: Final = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class System:
    """What a text-to-image system is put together from.

    Attributes:
        model: its block in config.yaml, whose settings it is trained and sampled with.
        pipeline: class of diffusers.
        network: component that is trained or denoises, and its name in `NETWORKS`.
        autoencoder: its name in `AUTOENCODERS`.
        texts: names in `TEXT_ENCODERS`, in the order of `text_encoder`, `text_encoder_2`, ...
        tokenizers: kinds of the tokenizers beside them, and to how many tokens they pad at most.
        scheduler: class of diffusers and configuration.
    """

    model: str
    pipeline: str
    network: tuple[str, str]
    autoencoder: str
    texts: tuple[str, ...]
    tokenizers: tuple[tuple[str, int], ...]
    scheduler: tuple[str, dict[str, Any]]


SYSTEMS: Final = {
    system.model: system
    for system in (
        System(
            "sd_v1_5",
            "StableDiffusionPipeline",
            ("unet", "sd1"),
            "kl_sd",
            ("clip_l",),
            (("clip", 77),),
            ("PNDMScheduler", {**_SD_NOISE, "skip_prk_steps": True}),
        ),
        System(
            "sd_v2_1",
            "StableDiffusionPipeline",
            ("unet", "sd2"),
            "kl_sd",
            ("clip_h",),
            (("clip", 77),),
            (
                "DDIMScheduler",
                {**_SD_NOISE, "clip_sample": False, "prediction_type": "v_prediction"},
            ),
        ),
        System(
            "pixart_sigma",
            "PixArtSigmaPipeline",
            ("transformer", "pixart_sigma"),
            "kl_sdxl",
            ("t5_xxl",),
            (("t5", 512),),
            ("DPMSolverMultistepScheduler", {}),
        ),
        System(
            "sana",
            "SanaPipeline",
            ("transformer", "sana"),
            "dc_sana",
            ("gemma2_2b",),
            (("gemma", 8192),),
            (
                "DPMSolverMultistepScheduler",
                {
                    "prediction_type": "flow_prediction",
                    "use_flow_sigmas": True,
                    "flow_shift": 3.0,
                },
            ),
        ),
        System(
            "sd_v3_5",
            "StableDiffusion3Pipeline",
            ("transformer", "stable_diffusion_3"),
            "kl_sd3",
            ("clip_l_projected", "clip_g_projected", "t5_xxl"),
            (("clip", 77), ("clip", 77), ("t5", 512)),
            (_FLOW, {"shift": 3.0}),
        ),
        System(
            "lumina_2",
            "Lumina2Pipeline",
            ("transformer", "lumina2"),
            "kl_flux",
            ("gemma2_2b",),
            (("gemma", 8192),),
            (_FLOW, {"shift": 6.0}),
        ),
        System(
            "flux_1_dev",
            "FluxPipeline",
            ("transformer", "flux"),
            "kl_flux",
            ("clip_l", "t5_xxl"),
            (("clip", 77), ("t5", 512)),
            (
                _FLOW,
                {
                    "shift": 3.0,
                    "use_dynamic_shifting": True,
                    "base_shift": 0.5,
                    "max_shift": 1.15,
                    "base_image_seq_len": 256,
                    "max_image_seq_len": 4096,
                },
            ),
        ),
        # The UNet's own config.json is not public: Stable Diffusion 1's, which its size is.
        System(
            "radedit",
            "StableDiffusionPipeline",
            ("unet", "sd1"),
            "kl_sdxl",
            ("cxr_bert",),
            (("bert", 128),),
            (
                "DDIMScheduler",
                {
                    "beta_schedule": "linear",
                    "beta_start": 1e-4,
                    "beta_end": 2e-2,
                    "clip_sample": False,
                    "prediction_type": "epsilon",
                    "timestep_spacing": "trailing",
                    "steps_offset": 1,
                },
            ),
        ),
    )
}
"""By their block in config.yaml. LLM-CXR, which is no pipeline of diffusers, is in answering.py."""
