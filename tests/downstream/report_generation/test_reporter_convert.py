"""Converted published files against a ViT, a LoRA and a LLaVA that are written out by hand."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from workflow_scripts.common.errors import InputError
from workflow_scripts.downstream.report_generation.convert_llava_rad import (
    convert,
    main,
    read_tokenizer,
)
from workflow_scripts.downstream.report_generation.layout import PUBLISHED, check_start, transform
from workflow_scripts.downstream.report_generation.network import load_llava
from workflow_scripts.features.encoders.transform import SIDECAR

WIDTH, HEADS, DEPTH, PATCH, SIDE = 32, 2, 3, 8, 24
TEXT, LAYERS, RANK, ALPHA = 48, 2, 4, 8
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def draw(generator: np.random.Generator, *shape: int, scale: float = 0.2) -> Tensor:
    return torch.from_numpy(generator.normal(0, scale, shape)).float()


def timm_trunk(generator: np.random.Generator, scales: bool = True) -> dict[str, Tensor]:
    """Return random weights with the names of timm's VisionTransformer."""
    state = {
        "cls_token": draw(generator, 1, 1, WIDTH),
        "pos_embed": draw(generator, 1, 1 + (SIDE // PATCH) ** 2, WIDTH),
        "patch_embed.proj.weight": draw(generator, WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": draw(generator, WIDTH),
        "norm.weight": 1 + draw(generator, WIDTH),
        "norm.bias": draw(generator, WIDTH),
    }
    for i in range(DEPTH):
        for k in (1, 2):
            state[f"blocks.{i}.norm{k}.weight"] = 1 + draw(generator, WIDTH)
            state[f"blocks.{i}.norm{k}.bias"] = draw(generator, WIDTH)
            if scales:
                state[f"blocks.{i}.ls{k}.gamma"] = 1 + draw(generator, WIDTH)
        shapes = {
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }
        for name, shape in shapes.items():
            state[f"blocks.{i}.{name}.weight"] = draw(generator, *shape)
            state[f"blocks.{i}.{name}.bias"] = draw(generator, shape[0])
    return state


def vit_blocks(state: dict[str, Tensor], images: Tensor, blocks: int) -> Tensor:
    """Run the first `blocks` blocks of a timm ViT, written out; (n, 1 + patches, width)."""
    stride = {"stride": PATCH}
    x = functional.conv2d(
        images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], **stride
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1) + state["pos_embed"]
    for i in range(blocks):

        def get(name: str, i: int = i) -> Tensor:
            return state[f"blocks.{i}.{name}"]

        def norm(y: Tensor, k: int, get=get) -> Tensor:
            return functional.layer_norm(
                y, (WIDTH,), get(f"norm{k}.weight"), get(f"norm{k}.bias"), 1e-6
            )

        scale = [state.get(f"blocks.{i}.ls{k}.gamma", torch.ones(WIDTH)) for k in (1, 2)]
        qkv = norm(x, 1) @ get("attn.qkv.weight").T + get("attn.qkv.bias")
        n, length, _ = qkv.shape
        q, k, v = qkv.view(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS), -1)
        mixed = (weights @ v).transpose(1, 2).reshape(n, length, WIDTH)
        x = x + scale[0] * (mixed @ get("attn.proj.weight").T + get("attn.proj.bias"))
        hidden = functional.gelu(norm(x, 2) @ get("mlp.fc1.weight").T + get("mlp.fc1.bias"))
        x = x + scale[1] * (hidden @ get("mlp.fc2.weight").T + get("mlp.fc2.bias"))
    return x


def write_tokenizer(folder: Path) -> None:
    written = io.BytesIO()
    lines = [
        f"The heart of patient {i} is normal in size and the lungs are clear." for i in range(9)
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(written.getvalue())


class Files:
    """The published files with random weights, and the parts they were written from."""

    def __init__(self, root: Path, seed: int = 0):
        generator = np.random.default_rng(seed)
        self.published, self.vicuna = root / "llava-rad-files", root / "vicuna"
        self.published.mkdir(parents=True)
        torch.manual_seed(seed)
        self.llama = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=330,
                hidden_size=TEXT,
                intermediate_size=64,
                num_hidden_layers=LAYERS,
                num_attention_heads=3,
                initializer_range=0.2,
            )
        ).eval()
        self.llama.save_pretrained(self.vicuna)
        write_tokenizer(self.vicuna)
        self.trunk = timm_trunk(generator)
        self.projectors = {name: self._projector(generator) for name in ("first", "second")}
        self.factors = {
            f"model.layers.{i}.{part}.{name}": (
                draw(generator, RANK, weight.shape[1]),
                draw(generator, weight.shape[0], RANK),
            )
            for i in range(LAYERS)
            for part, names in (("self_attn", LINEAR[:4]), ("mlp", LINEAR[4:]))
            for name in names
            for weight in [self.llama.get_submodule(f"model.layers.{i}.{part}.{name}").weight]
        }
        self.write()

    def write(self) -> None:
        vision = {"image_size": SIDE, "timm_model_name": "vit_tiny", "head_width": WIDTH // HEADS}
        text = json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": {}})
        (self.published / "biomedclipcxr_518.json").write_text(text)
        state = {f"module.visual.trunk.{key}": value for key, value in self.trunk.items()}
        state["module.visual.head.proj.weight"] = torch.zeros(8, WIDTH)
        state["module.text.transformer.pooler.dense.weight"] = torch.zeros(2, 2)
        state["module.logit_scale"] = torch.zeros(())
        self.save("biomedclipcxr_518_checkpoint.pt", {"epoch": 3, "state_dict": state})
        first, second = self.projectors["first"], self.projectors["second"]
        self.save("mm_projector.bin", {f"model.mm_projector.{k}": v for k, v in first.items()})
        tuned = {f"base_model.model.model.mm_projector.{k}": v for k, v in second.items()}
        tuned["base_model.model.model.vision_tower.vision_tower.vit.cls_token"] = torch.zeros(1)
        self.save("non_lora_trainables.bin", tuned)
        factors = {}
        for name, pair in self.factors.items():
            for letter, factor in zip("AB", pair, strict=True):
                factors[f"base_model.model.{name}.lora_{letter}.weight"] = factor
        self.save("adapter_model.bin", factors)
        config = {"r": RANK, "lora_alpha": ALPHA, "bias": "none", "target_modules": list(LINEAR)}
        (self.published / "adapter_config.json").write_text(json.dumps(config))

    def save(self, name: str, content: object) -> None:
        torch.save(content, self.published / name)

    def logits(self, ids: Tensor, images: Tensor, released: bool) -> Tensor:
        """Run the LLaVA of these files, written out: features, projector, LoRA, embeddings."""
        llama = LlamaForCausalLM(self.llama.config).eval()
        state = {key: value.clone() for key, value in self.llama.state_dict().items()}
        if released:
            for name, (a, b) in self.factors.items():
                state[f"{name}.weight"] += ALPHA / RANK * (b @ a)
        llama.load_state_dict(state)
        projector = self.projectors["second" if released else "first"]
        features = vit_blocks(self.trunk, images, DEPTH - 1)[:, 1:]
        hidden = functional.gelu(features @ projector["0.weight"].T + projector["0.bias"])
        tokens = hidden @ projector["2.weight"].T + projector["2.bias"]
        rows = []
        for row, image in zip(ids, tokens, strict=True):
            place = int((row == 330).nonzero()[0])
            words = [
                self.llama.model.embed_tokens(part) for part in (row[:place], row[place + 9 :])
            ]
            rows.append(torch.cat([words[0], image, words[1]]))
        return llama(inputs_embeds=torch.stack(rows)).logits

    @staticmethod
    def _projector(generator: np.random.Generator) -> dict[str, Tensor]:
        return {
            "0.weight": draw(generator, TEXT, WIDTH),
            "0.bias": draw(generator, TEXT),
            "2.weight": draw(generator, TEXT, TEXT),
            "2.bias": draw(generator, TEXT),
        }


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return Files(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def converted(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "llava-rad"
    flags = ["--published", files.published, "--language-model", files.vicuna, "--output", out]
    main([str(flag) for flag in flags])
    return out


@pytest.fixture
def fresh(tmp_path) -> Files:
    """New files that a test may damage."""
    return Files(tmp_path / "damaged")


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    images = draw(generator, 2, 3, SIDE, SIDE, scale=1.0)
    ids = torch.from_numpy(generator.integers(3, 330, (2, 20)))
    ids[:, 4:13] = 330  # nine patches
    return ids, images


@torch.no_grad()
@pytest.mark.parametrize("name", ["base", "released"])
def test_the_converted_network_computes_what_the_files_say(files, converted, name):
    network = load_llava(converted / name, torch.float32).eval()
    ids, images = inputs(1)
    ours = network(input_ids=ids, pixel_values=images).logits
    theirs = files.logits(ids, images, released=name == "released")
    torch.testing.assert_close(ours[..., :330], theirs, rtol=1e-4, atol=1e-4)
    features = network.model.vision_tower(images, output_hidden_states=True).hidden_states[-2]
    by_hand = vit_blocks(files.trunk, images, DEPTH - 1)
    torch.testing.assert_close(features, by_hand, rtol=1e-4, atol=1e-5)
    last = vit_blocks(files.trunk, images, DEPTH)
    assert (features - last).abs().max() > 0.1  # the choice of block matters


def test_transformers_alone_reads_the_folders(converted):
    for name in ("base", "released"):
        check_start(converted / name)
        network = LlavaForConditionalGeneration.from_pretrained(converted / name)
        assert network.config.image_token_index == 330
        tokenizer = AutoTokenizer.from_pretrained(converted / name)
        assert tokenizer.convert_tokens_to_ids("<image>") == 330


@settings(max_examples=80, deadline=None)
@given(text=st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), min_size=1, max_size=40))
def test_the_tokenizer_cuts_words_as_sentencepiece_does(files, text):
    original = sentencepiece.SentencePieceProcessor(str(files.vicuna / "tokenizer.model"))
    sentence = f"The heart {text} is normal."
    ours = read_tokenizer(files.vicuna)(sentence, add_special_tokens=False).input_ids
    assert ours == original.encode(sentence)


def test_preprocessing_is_open_clips_unless_the_json_says_otherwise(fresh, converted, tmp_path):
    processor = transform(converted / "base")
    assert (processor.size, processor.crop) == (SIDE, (SIDE, SIDE))
    assert (processor.mean, processor.std, processor.resample) == (
        PUBLISHED.mean,
        PUBLISHED.std,
        PUBLISHED.resample,
    )
    path = fresh.published / "biomedclipcxr_518.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"] = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    path.write_text(json.dumps(config))
    convert(fresh.published, fresh.vicuna, tmp_path / "out")
    other = json.loads((tmp_path / "out" / "released" / SIDECAR).read_text())
    assert (other["image_mean"], other["image_std"], other["resample"]) == (
        [0.5] * 3,
        [0.25] * 3,
        2,
    )


@torch.no_grad()
def test_a_tower_without_layer_scale_and_torch_shards_convert_too(fresh, tmp_path):
    fresh.trunk = timm_trunk(np.random.default_rng(9), scales=False)
    fresh.write()
    state = fresh.llama.state_dict()
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    (fresh.vicuna / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"one.bin": names[::2], "two.bin": names[1::2]}
    for shard, keys in shards.items():
        torch.save({key: state[key] for key in keys}, fresh.vicuna / shard)
    places = {key: shard for shard, keys in shards.items() for key in keys}
    index = fresh.vicuna / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    convert(fresh.published, fresh.vicuna, tmp_path / "out")
    ids, images = inputs(2)
    ours = load_llava(tmp_path / "out" / "base", torch.float32)(input_ids=ids, pixel_values=images)
    theirs = fresh.logits(ids, images, released=False)
    torch.testing.assert_close(ours.logits[..., :330], theirs, rtol=1e-4, atol=1e-4)


def spoil(files: Files, fault: str) -> str:
    """Damage the files; return the words that the error must contain."""
    if fault == "lost tower key":
        del files.trunk["blocks.1.mlp.fc1.bias"]
        named = "encoder.layer.1.mlp.fc1.bias"
    elif fault == "unknown tower key":
        files.trunk["blocks.0.attn.q_norm.weight"] = torch.ones(4)
        named = "q_norm"
    elif fault == "misshapen tower key":
        files.trunk["blocks.2.attn.proj.weight"] = torch.ones(WIDTH, WIDTH + 1)
        named = "encoder.layer.2.attention.o_proj.weight"
    elif fault == "other size":
        files.trunk["pos_embed"] = torch.zeros(1, 17, WIDTH)
        named = "17 positions"
    elif fault == "lost projector key":
        del files.projectors["second"]["2.bias"]
        named = "linear_2.bias"
    elif fault == "unknown projector key":
        files.projectors["first"]["4.weight"] = torch.zeros(2)
        named = r"mm_projector\.4\.weight"
    elif fault == "lost adapter layer":
        del files.factors["model.layers.1.mlp.up_proj"]
        named = r"model\.layers\.1\.mlp\.up_proj"
    elif fault == "unknown adapter layer":
        files.factors["model.layers.9.mlp.up_proj"] = files.factors["model.layers.1.mlp.up_proj"]
        named = r"model\.layers\.9\.mlp\.up_proj"
    else:
        a, b = files.factors["model.layers.0.self_attn.q_proj"]
        files.factors["model.layers.0.self_attn.q_proj"] = (a[:2], b)
        named = r"model\.layers\.0\.self_attn\.q_proj"
    files.write()
    return named


@pytest.mark.parametrize(
    "fault",
    [
        "lost tower key",
        "unknown tower key",
        "misshapen tower key",
        "other size",
        "lost projector key",
        "unknown projector key",
        "lost adapter layer",
        "unknown adapter layer",
        "misshapen adapter",
    ],
)
def test_a_key_that_does_not_fit_is_named_and_nothing_is_written(fresh, tmp_path, fault):
    with pytest.raises(InputError, match=spoil(fresh, fault)):
        convert(fresh.published, fresh.vicuna, tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []


def test_missing_files_and_pickled_objects_are_refused(fresh, tmp_path):
    fresh.save("mm_projector.bin", {"model.mm_projector.0.weight": Path("an object")})
    with pytest.raises(InputError, match="plain state dict"):
        convert(fresh.published, fresh.vicuna, tmp_path / "out")
    (fresh.published / "mm_projector.bin").unlink()
    with pytest.raises(InputError, match=r"missing: mm_projector\.bin"):
        convert(fresh.published, fresh.vicuna, tmp_path / "out")


def test_damage_to_a_converted_folder_is_found(converted, tmp_path):
    import shutil

    whole = tmp_path / "whole"
    shutil.copytree(converted / "base", whole)
    weights = whole / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged safetensors"):
        check_start(whole)
    weights.unlink()
    with pytest.raises(InputError, match="weights are missing"):
        check_start(whole)
    with pytest.raises(InputError, match="not a converted LLaVA"):
        check_start(tmp_path)
