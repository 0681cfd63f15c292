"""The real-size networks, built without weights on torch's meta device and counted.

The configuration values are those of the published config.json; the counts that they must give are
the published ones, to all digits that are known. What LoRA adds is worked out by hand beside it.
"""

import pytest
import torch

from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.lora import LoraSettings, add_lora, trained_parameters

SD_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}

CONFIGS = {
    # stable-diffusion-v1-4, stable-diffusion-v1-5: unet/config.json
    "sd1": ("UNet2DConditionModel", SD_UNET),
    # stable-diffusion-2, stable-diffusion-2-1
    "sd2": (
        "UNet2DConditionModel",
        {
            **SD_UNET,
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


def build(name):
    """Build a network on the meta device: shapes without memory."""
    import diffusers

    kind, config = CONFIGS[name]
    with torch.device("meta"):
        network = getattr(diffusers, kind)(**config)
    assert all(parameter.is_meta for parameter in network.parameters())
    return network


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize(
    ("name", "billions", "digits"),
    [
        # CompVis' and Stability's code logs "DiffusionWrapper has 859.52 M params", "865.91 M".
        ("sd1", 0.85952, 5),
        ("sd2", 0.86591, 5),
        ("pixart_sigma", 0.611, 3),
        ("sana", 0.592, 3),
        ("stable_diffusion_3", 2.24, 2),
        ("lumina2", 2.61, 2),
        ("flux", 11.90, 2),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, billions, digits):
    assert round(count(build(name).parameters()) / 1e9, digits) == billions


RANK = 32


def lora_size(inputs, outputs):
    """Return the weights of one pair of factors."""
    return RANK * (inputs + outputs)


@pytest.mark.parametrize(
    ("name", "modules", "millions", "digits", "by_hand"),
    [
        # 24 blocks with three image and three text projections, 13 of them with three more.
        ("stable_diffusion_3", 183, 17.99, 2, 183 * lora_size(1536, 1536)),
        # 26 layers and 4 refiners; keys and values have 8 heads of 96.
        ("lumina2", 90, 10.3, 1, 30 * (lora_size(2304, 2304) + 2 * lora_size(2304, 768))),
        # 57 blocks with three projections, 19 of them with three more for the text.
        ("flux", 228, 44.8, 1, 228 * lora_size(3072, 3072)),
    ],
)
def test_lora_has_the_published_number_of_parameters(name, modules, millions, digits, by_hand):
    family, network = get_family(name), build(name)
    add_lora(network, family, LoraSettings(RANK, RANK, True, ("attention",)))
    factors = trained_parameters(network)
    assert len(factors) == 2 * modules
    assert all(factor.is_meta for factor in factors.values())
    assert all(".lora_A." in key or ".lora_B." in key for key in factors)
    found = count(factors.values())
    assert found == by_hand
    assert round(found / 1e6, digits) == millions


def test_llm_cxr_is_dolly_3b_with_image_tokens():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    words, codes, width = 50281, 1024, 2560
    with torch.device("meta"):
        network = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=words + codes,
                hidden_size=width,
                num_hidden_layers=32,
                num_attention_heads=32,
                intermediate_size=10240,
                max_position_embeddings=2048,
                tie_word_embeddings=False,
            )
        )
    embeddings = 2 * 51305 * width
    # Pythia 2.8b, from which dolly-v2-3b was made: the model card's count without embeddings.
    assert count(network.parameters()) - embeddings == 2_517_652_480
    assert network.get_input_embeddings().weight.shape == (51305, width)
    assert network.get_output_embeddings().weight.shape == (51305, width)
