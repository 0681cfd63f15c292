"""The real-size networks, built without weights on torch's meta device and counted.

The configuration values (tests/gpu/published.py) are those of the published config.json; the counts
that they must give are the published ones, to all digits that are known. What LoRA adds is worked
out by hand beside it.
"""

import pytest
import torch

from tests.gpu.published import NETWORKS
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
