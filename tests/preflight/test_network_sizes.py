"""Activations of networks in memory: small ones by hand, and the counts of docs/needs.md."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from tests.gpu.published import NETWORKS
from tests.preflight.network_sizes import parameters, saved_bytes, widest_bytes
from tests.rule_texts import rule_texts
from workflow_scripts.common.resnet import ResNet
from workflow_scripts.downstream.segmentation.network import unet
from workflow_scripts.features.encoders.biovil_t_image import ImageModel
from workflow_scripts.features.encoders.densenet_121 import DenseNet121
from workflow_scripts.features.encoders.inception_v3 import InceptionV3
from workflow_scripts.features.encoders.reid import SiameseNetwork
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.lora import LoraSettings, add_lora
from workflow_scripts.preflight import needs
from workflow_scripts.preflight.check import read_config
from workflow_scripts.preflight.stage_needs import (
    BASE,
    LLAVA_LORA,
    PARAMETERS,
    SAVED,
    WIDEST,
    stage_needs,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIG = read_config([str(ROOT / "config.yaml")])
LAYERS = (3, 4, 6, 3)


class Small(nn.Module):
    """Two blocks of two linear layers; blocks are recomputed if `call` says so."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)) for _ in range(2)
        )
        self.call = lambda block, x: block(x)

    def forward(self, x):
        for block in self.blocks:
            x = self.call(block, x)
        return x.sum()


def small():
    with torch.device("meta"):
        return Small()


def test_what_is_saved_by_hand():
    def step(network):
        return network(torch.ones(7, 3))

    # Of each block its input, for the first layer's gradient, and the ReLU's output once.
    assert saved_bytes(small(), step) == 4 * 7 * 2 * (3 + 5)

    def recompute(network, call):
        network.call = call

    # The inputs of both blocks, and what one of them saves in addition while it is recomputed.
    assert saved_bytes(small(), step, recompute) == 4 * 7 * (2 * 3 + (3 + 5))

    def frozen(network):
        network.requires_grad_(False)
        return step(network)

    assert saved_bytes(small(), frozen) == 0


def test_under_autocast_what_is_saved_is_half_as_wide():
    def step(network):
        with torch.autocast("cpu", torch.bfloat16):
            return network(torch.ones(700, 3))

    # The input's cast, and in bfloat16 the rest; casts of the weights, (3 + 1) x 5 and 5 x 3, too.
    assert saved_bytes(small(), step) == pytest.approx(2 * 700 * 2 * (3 + 5), rel=0.02)


def test_the_widest_module_by_hand():
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
        size = widest_bytes(network, lambda n: n(torch.ones(7, 3)))
        assert size == 4 * 7 * (3 + 5)
        assert parameters(network) == 3 * 5 + 5 + 5 * 2 + 2


def mem_mb_of_rules():
    """Return the memory that each rule requests at its first attempt, in MB."""
    texts = rule_texts(ROOT / "rules")
    asked = re.compile(r"mem_mb=(?:partial\(more_memory, base=)?(\d+)")
    return {name: int(asked.search(text)[1]) for name, text in texts.items() if "mem_mb" in text}


def test_rules_ask_for_the_memory_that_is_needed():
    asked = mem_mb_of_rules()
    assert len(asked) > 30
    for need in [*stage_needs(CONFIG), *needs.attack_needs(CONFIG)]:
        assert need.host <= asked[need.rule] * 1e6, need.stage
    for key, parts in needs.PUBLISHED.items():
        block = CONFIG["models"][key]
        family = get_family(block["family"])
        sampled = block["generate"]["precision"]
        once = needs.sampling_memory(parts, sampled, family.decodes_in_float32)
        assert once + BASE <= asked["generate_sample"] * 1e6, key
        if tuned := block.get("finetune"):
            host = needs.host_memory(parts, tuned, family.encodes_in_float32)
            assert host <= asked["finetune_train"] * 1e6, key


def bert():
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig())


def dinov2():
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(image_size=518, patch_size=14))


def mpnet():
    from transformers import MPNetConfig, MPNetModel

    return MPNetModel(MPNetConfig())


def deberta():
    from transformers import DebertaV2Config, DebertaV2Model

    return DebertaV2Model(
        DebertaV2Config(
            vocab_size=128100, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
            intermediate_size=3072, relative_attention=True, position_buckets=256,
            norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
            position_biased_input=False, type_vocab_size=0,
        )
    )  # fmt: skip


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig())


def cxas():
    from workflow_scripts.downstream.segmentation.cxas import Cxas

    return Cxas()


def ids(texts, tokens):
    return torch.ones(texts, tokens, dtype=torch.long)


BUILT = {
    "rad_dino": dinov2,
    "biovil_t_image": lambda: ImageModel(ResNet(LAYERS, 64, 1000)),
    "bert_base": bert,
    "siamese": lambda: SiameseNetwork(ResNet(LAYERS, 64, 128)),
    "inception_v3": InceptionV3,
    "densenet_121": DenseNet121,
    "resnet_50": lambda: ResNet(LAYERS, 64, 14),
    "cxas": cxas,
    "unet": lambda: unet([32, 64, 128, 256, 512], 0, 1),
    "llama_7b": llama,
    "deberta_v3_base": deberta,
    "mpnet_base": mpnet,
}
APPLIED = {
    "rad_dino": ("rad_dino", lambda n: n(torch.ones(32, 3, 518, 518))),
    "biovil_t_image": ("biovil_t_image", lambda n: n(torch.ones(32, 3, 448, 448))),
    "bert_base_32": ("bert_base", lambda n: n(ids(32, 512))),
    "siamese": ("siamese", lambda n: n.branch(torch.ones(32, 3, 256, 256))),
    "inception_v3": ("inception_v3", lambda n: n(torch.ones(32, 3, 299, 299))),
    "densenet_121": ("densenet_121", lambda n: n(torch.ones(32, 1, 224, 224))),
    "cxas": ("cxas", lambda n: n(torch.ones(16, 3, 512, 512), [31, 32])),
    "bert_base_64": ("bert_base", lambda n: n(ids(64, 512))),
    "mpnet_base": ("mpnet_base", lambda n: n(ids(16, 128))),
}


def on_meta(name):
    with torch.device("meta"):
        return BUILT[name]()


@pytest.mark.full
@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_networks(name):
    assert parameters(on_meta(name)) == PARAMETERS[name]


@pytest.mark.full
@pytest.mark.parametrize("name", WIDEST)
def test_widest_modules_are_counted_again(name):
    network, step = APPLIED[name]
    with torch.device("meta"):
        assert widest_bytes(on_meta(network).eval(), step) == WIDEST[name]


def classify(network):
    with torch.autocast("cpu", torch.bfloat16):
        return network(torch.ones(256, 3, 224, 224)).float().mean()


def compare(network):
    return network(torch.ones(64, 3, 256, 256), torch.ones(64, 3, 256, 256)).mean()


def segment(network):
    logits = network(torch.ones(16, 1, 256, 256))
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.zeros(16, 1, 256, 256))


TRAINED = {
    "siamese_64": ("siamese", compare),
    "resnet_50_256_bf16": ("resnet_50", classify),
    "unet_16": ("unet", segment),
}


@pytest.mark.full
@pytest.mark.parametrize("name", TRAINED)
def test_what_training_steps_save_is_counted_again(name):
    network, step = TRAINED[name]
    assert saved_bytes(on_meta(network), step) == pytest.approx(SAVED[name], rel=0.01)


def adapted_llama(adapter):
    """Return Llama 7B, frozen in bfloat16, and the number of parameters of its float32 adapter."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import LlamaConfig, LlamaModel

    with torch.device("meta"):
        network = LlamaModel(LlamaConfig(vocab_size=32001)).to(torch.bfloat16)
        network.requires_grad_(False)
        if adapter:
            linear = [k for k, m in network.named_modules() if isinstance(m, nn.Linear)]
            lora = LoraConfig(r=64, lora_alpha=128, lora_dropout=0.05, target_modules=linear)
            inject_adapter_in_model(lora, network)
    factors = [p for name, p in network.named_parameters() if ".lora_" in name]
    for factor in factors:
        factor.data = factor.data.float()
        factor.requires_grad_(True)
    return network.train(), sum(factor.numel() for factor in factors)


def read_texts(network):
    """Run the network on 16 texts of 2,048 tokens, whose embeddings need gradients."""
    given = torch.ones(16, 2048, 4096, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        return network(inputs_embeds=given, use_cache=False).last_hidden_state.float().mean()


def recompute_layers(network, call):
    for module in network.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing, module._gradient_checkpointing_func = True, call


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "adapter"), [("llava_projector_16", False), ("llava_adapter_16", True)]
)
def test_what_report_generators_save_is_counted_again(name, adapter):
    network, factors = adapted_llama(adapter)
    assert factors == (LLAVA_LORA if adapter else 0)
    size = saved_bytes(network, read_texts, recompute_layers)
    assert size == pytest.approx(SAVED[name], rel=0.01)


def noised(channels, side, words, width, **more):
    """Make the inputs for `n` latents and texts; each of `more` is a function of `n`."""

    def make(n):
        given = {
            "hidden_states": torch.ones(n, channels, side, side),
            "timestep": torch.ones(n),
            "encoder_hidden_states": torch.ones(n, words, width),
        }
        return given | {name: of(n) for name, of in more.items()}

    return make


def of_unet(width):
    def make(n):
        given = noised(4, 64, 77, width)(n)
        return {"sample": given.pop("hidden_states"), **given}

    return make


def of_flux(n):
    given = noised(16, 64, 512, 4096, pooled_projections=lambda n: torch.ones(n, 768))(n)
    given |= {"hidden_states": torch.ones(n, 1024, 64), "guidance": torch.ones(n)}
    return given | {"img_ids": torch.zeros(1024, 3), "txt_ids": torch.zeros(512, 3)}


INPUTS = {
    "sd_v1_4": ("sd1", of_unet(768)),
    "sd_v2": ("sd2", of_unet(1024)),
    "pixart_sigma": (
        "pixart_sigma",
        noised(4, 64, 300, 4096, encoder_attention_mask=lambda n: torch.ones(n, 300),
               added_cond_kwargs=lambda n: {"resolution": None, "aspect_ratio": None}),
    ),
    "sana": (
        "sana",
        noised(32, 16, 300, 2304, encoder_attention_mask=lambda n: torch.ones(n, 300)),
    ),
    "sd_v3_5": (
        "stable_diffusion_3",
        noised(16, 64, 333, 4096, pooled_projections=lambda n: torch.ones(n, 2048)),
    ),
    "lumina_2": (
        "lumina2",
        noised(16, 64, 256, 2304,
               encoder_attention_mask=lambda n: torch.ones(n, 256, dtype=torch.bool)),
    ),
    "flux_1_dev": ("flux", of_flux),
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("key", INPUTS)
def test_what_text_to_image_trainings_save_is_counted_again(key, monkeypatch):
    import diffusers

    name, inputs = INPUTS[key]
    kind, values = NETWORKS[name]
    block = CONFIG["models"][key]
    tuned = block["finetune"]
    with torch.device("meta"):
        network = getattr(diffusers, kind)(**values)
        if "lora" in tuned:
            network.to(torch.bfloat16)
            settings = {**tuned["lora"], "targets": tuple(tuned["lora"]["targets"])}
            add_lora(network, get_family(block["family"]), LoraSettings(**settings))

    # Lumina reads the lengths of captions, which a fake tensor lacks: take all 256 tokens.
    images = tuned["per_device_batch_size"]
    monkeypatch.setattr(FakeTensor, "tolist", lambda self: [256] * images)

    def step(network):
        given = inputs(images)
        with torch.autocast("cpu", torch.bfloat16):
            return network(**given, return_dict=False)[0].float().square().mean()

    def recompute(network, call):
        network.enable_gradient_checkpointing(call)

    size = saved_bytes(network.train(), step, recompute)
    assert size == pytest.approx(needs.PUBLISHED[key].saved, rel=0.01)
