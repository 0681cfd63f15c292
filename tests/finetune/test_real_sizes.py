"""The real-size networks, built without weights on torch's meta device and counted.

The configuration values (tests/gpu/published.py) are those of the published config.json; the counts
that they must give are the published ones, to all digits that are known. What LoRA adds is worked
out by hand beside it.
"""

import pytest
import torch

from tests.gpu.published import AUTOENCODERS, NETWORKS, SYSTEMS, TEXT_ENCODERS
from tests.gpu.tiny import TINY
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.lora import LoraSettings, add_lora, trained_parameters


def build(name):
    """Build a network on the meta device: shapes without memory."""
    import diffusers

    kind, config = NETWORKS[name]
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


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("kl_sd", 83.65),
        ("kl_sdxl", 83.65),
        # Without the 1x1 convolutions around the latents, and with 16 channels of them.
        ("kl_sd3", 83.82),
        ("kl_flux", 83.82),
        ("dc_sana", 312.25),
    ],
)
def test_autoencoders_have_the_published_number_of_parameters(name, millions):
    import diffusers

    kind, config = AUTOENCODERS[name]
    with torch.device("meta"):
        network = getattr(diffusers, kind)(**config)
    assert round(count(network.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("clip_l", 123.06),
        ("clip_h", 340.39),
        ("clip_l_projected", 123.65),
        ("clip_g_projected", 694.66),
        ("t5_xxl", 4762.31),
        ("gemma2_2b", 2614.34),
        ("cxr_bert", 109.48),
    ],
)
def test_text_encoders_have_the_published_number_of_parameters(name, millions):
    import transformers

    kind, settings, config = TEXT_ENCODERS[name]
    with torch.device("meta"):
        network = getattr(transformers, kind)(getattr(transformers, settings)(**config))
    assert round(count(network.parameters()) / 1e6, 2) == millions


def test_systems_and_their_tiny_ones_name_networks_that_are_there():
    known = {**NETWORKS, **AUTOENCODERS, **TEXT_ENCODERS}
    assert TINY.keys() == known.keys()
    for name, values in TINY.items():
        # Another architecture would have other keys; a tiny one replaces sizes of the same.
        assert values.keys() <= known[name][-1].keys(), name
    for system in SYSTEMS.values():
        assert {system.network[1], system.autoencoder, *system.texts} <= known.keys()
        assert len(system.texts) == len(system.tokenizers)


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
