"""A tiny LLaVA-Rad and a tiny Vicuna of the embedded world, in the layouts of the real ones.

`microsoft-llava-rad/` and `vicuna-7b-v1.5/` have the published files' layout, and `llava-rad/` is
the converter's output. The vision tower learns the findings. The language model learns to write
captions and to use its input (a model of seven billion weights has this ability already). A
projector and an adapter that are trained on top make up the released LLaVA-Rad.
"""

import io
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.common.files import write_text
from workflow_scripts.downstream.report_generation import convert_llava_rad as published
from workflow_scripts.downstream.report_generation.convert_llava_rad import convert
from workflow_scripts.downstream.report_generation.images import tower_input
from workflow_scripts.downstream.report_generation.layout import PUBLISHED
from workflow_scripts.downstream.report_generation.network import padded
from workflow_scripts.downstream.report_generation.prompts import (
    OPENING,
    ReportTokenizer,
    question,
)
from workflow_scripts.world.training import jitter, rarity, reproducible, training

log = logging.getLogger(__name__)

LLAVA_RAD: Final = "microsoft-llava-rad"
VICUNA: Final = "vicuna-7b-v1.5"
CONVERTED: Final = "llava-rad"
"""Paths below the folder of weights."""

_SIDE: Final = 64
_PATCH: Final = 16
_WIDTH: Final = 64
_HEAD: Final = 16
_RANK: Final = 8
_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_JITTER: Final = (0.2, 3.0)  # contrast; pixels
_SIZE_PENALTY: Final = 0.02
_COPIES: Final = 5  # augmented copies of each image for the language model


@dataclass(frozen=True)
class _Texts:
    """The texts of each image; see `write_tiny_llava_rad`."""

    wordings: Sequence[Sequence[str]]
    summaries: Sequence[str]
    indications: Sequence[str | None]


def write_tiny_llava_rad(
    images: NDArray[np.uint8],
    wordings: Sequence[Sequence[str]],
    summaries: Sequence[str],
    indications: Sequence[str | None],
    findings: NDArray[np.int8],
    out_dir: Path,
    seed: int,
    effort: float = 1.0,
    pieces: int = 900,
) -> None:
    """Train all networks and write the three folders; deterministic for a seed.

    Args:
        images: radiographs, uint8 (n, side, side).
        wordings: for each image the same number of equivalent captions.
        summaries: each image's findings in a few words.
        indications: each image's indication, which is independent of its findings.
        findings: (n, 14); 1 is positive, all other values are not.
        out_dir: folder for the three folders.
        seed: seed of initialisation and training.
        effort: factor of the training steps.
        pieces: size of the vocabulary, including 259 bytes and special pieces.
    """
    start = time.monotonic()
    folder = out_dir / LLAVA_RAD
    folder.mkdir(parents=True)
    (out_dir / VICUNA).mkdir()
    with reproducible():
        torch.manual_seed(seed)
        squares = np.stack([_square(image) for image in images])
        pixels = tower_input(squares, PUBLISHED, torch.device("cpu"))
        tower = _trained_tower(pixels, torch.from_numpy(findings == 1).float(), effort)
        _write_tower(tower, folder)
        features, texts = _features(tower, pixels), _Texts(wordings, summaries, indications)
        _write_tokenizer(texts, out_dir / VICUNA, pieces)
        tokenizer = published.read_tokenizer(out_dir / VICUNA)
        tokens = ReportTokenizer(tokenizer, len(tokenizer), features.shape[2], 2048)
        language_model = _language_model(len(tokenizer))
        teacher = _projector()
        _learn(language_model, teacher, features, texts, tokens, 600, effort, 8e-3)
        _write_language_model(language_model, out_dir / VICUNA)
        torch.save(_projector_state(teacher, "model."), folder / published.PROJECTOR)
        _add_adapter(language_model)
        _learn(language_model, teacher, features, texts, tokens, 100, effort, 2e-3)
        _write_adapter(language_model, folder)
        torch.save(
            _projector_state(teacher, "base_model.model.model."), folder / published.NON_LORA
        )
    convert(folder, out_dir / VICUNA, out_dir / CONVERTED)
    log.info("%s: %.0f s", out_dir / CONVERTED, time.monotonic() - start)


# The vision tower


def _square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), PUBLISHED.resample))


def _trained_tower(pixels: Tensor, positive: Tensor, effort: float) -> Any:
    """Train a Dinov2 such that each patch, before the last block, predicts all findings."""
    from transformers import Dinov2Config, Dinov2Model

    tower = Dinov2Model(
        Dinov2Config(
            hidden_size=_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=_WIDTH // _HEAD,
            mlp_ratio=2,
            image_size=_SIDE,
            patch_size=_PATCH,
            use_mask_token=False,
        )
    )
    head = nn.Linear(_WIDTH, positive.shape[1])
    weight = rarity(positive)
    for batch in training([tower, head], 600, effort, len(pixels), 3e-3):
        patches = _patches(tower, jitter(pixels[batch], *_JITTER))
        logits = head(patches)
        wanted = positive[batch][:, None].expand_as(logits)
        loss = functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
        # Features that all images share carry no information, so features are kept small.
        (loss + _SIZE_PENALTY * patches.square().mean()).backward()
    return tower.eval()


def _patches(tower: Any, pixels: Tensor) -> Tensor:
    return tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][:, 1:]


@torch.no_grad()
def _features(tower: Any, pixels: Tensor) -> Tensor:
    """Return the patches' features of each image and its copies, (copies, n, patches, width)."""
    copies = [pixels, *(jitter(pixels, *_JITTER) for _ in range(_COPIES - 1))]
    return torch.stack(
        [torch.cat([_patches(tower, batch) for batch in copy.split(64)]) for copy in copies]
    )


def _write_tower(tower: Any, folder: Path) -> None:
    config = {
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": "vit_tiny_world",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": _SIDE,
            "head_width": _HEAD,
        },
        "text_cfg": {"hf_model_name": "tiny", "context_length": 256},
    }
    _write_json(folder / published.VISION_CONFIG, config)
    state = {f"module.visual.trunk.{key}": value for key, value in timm_state(tower).items()}
    # The other contents of an open_clip training checkpoint.
    state["module.visual.head.proj.weight"] = torch.zeros(32, _WIDTH)
    state["module.text.transformer.embeddings.word_embeddings.weight"] = torch.zeros(8, 32)
    state["module.logit_scale"] = torch.zeros(())
    whole = {"epoch": 1, "name": "tiny", "state_dict": state, "optimizer": {"state": {}}}
    torch.save(whole, folder / published.VISION_CHECKPOINT)


def timm_state(tower: Any) -> dict[str, Tensor]:
    """Return a Dinov2's weights with the names of timm's VisionTransformer."""
    state = {key: value.clone() for key, value in tower.state_dict().items()}
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm": "norm",
    }
    renamed: dict[str, Tensor] = {}
    for i in range(tower.config.num_hidden_layers):
        source, target = f"encoder.layer.{i}", f"blocks.{i}"
        names |= {f"{source}.norm{k}": f"{target}.norm{k}" for k in (1, 2)}
        names |= {f"{source}.mlp.fc{k}": f"{target}.mlp.fc{k}" for k in (1, 2)}
        names |= {f"{source}.layer_scale{k}.lambda1": f"{target}.ls{k}.gamma" for k in (1, 2)}
        names[f"{source}.attention.o_proj"] = f"{target}.attn.proj"
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{source}.attention.{name}_proj.{kind}") for name in "qkv"]
            renamed[f"{target}.attn.qkv.{kind}"] = torch.cat(parts)
    for key, value in state.items():
        old = next(name for name in names if key == name or key.startswith(f"{name}."))
        renamed[names[old] + key[len(old) :]] = value
    return renamed


# The language model


def _write_tokenizer(texts: _Texts, folder: Path, pieces: int) -> None:
    """Write `tokenizer.model`: byte-pair encoding with byte fallback, like Llama's."""
    import sentencepiece

    written = io.BytesIO()
    captions = [caption for one in texts.wordings for caption in one]
    asked = [*map(question, texts.indications), *[OPENING] * len(texts.indications)]
    # One thread, because with several the pieces differ from run to run.
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*captions, *asked]),
        model_writer=written,
        vocab_size=pieces,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": False,
        "model_max_length": 4096,
        "tokenizer_class": "LlamaTokenizer",
    }
    _write_json(folder / "tokenizer_config.json", config)


def _language_model(vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_hidden_layers=2,
            num_attention_heads=_WIDTH // _HEAD,
            max_position_embeddings=4096,
            bos_token_id=1,
            eos_token_id=2,
            rms_norm_eps=1e-5,
        )
    )


def _projector() -> nn.Sequential:
    return nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, _WIDTH))


def _projector_state(projector: nn.Sequential, prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}mm_projector.{key}": value.clone()
        for key, value in projector.state_dict().items()
    }


def _learn(
    language_model: Any,
    projector: nn.Sequential,
    features: Tensor,
    texts: _Texts,
    tokens: ReportTokenizer,
    steps: int,
    effort: float,
    learning_rate: float,
) -> None:
    """Train all trainable parameters to write each image's caption, in both forms of the prompt.

    While the language model itself is trained, the image's positions hold the summary as text in
    every other step. So the model learns to report its input, in either form.
    """
    written = {
        form: [
            tokens.write(captions, texts.indications, form)
            for captions in zip(*texts.wordings, strict=True)
        ]
        for form in ("plain", "v1")
    }
    width = features.shape[2]
    summaries = tokens.write(texts.summaries, texts.indications, "plain").answers
    words = torch.from_numpy(np.stack([np.resize(summary, width) for summary in summaries]))
    modules = [language_model, projector]
    batches = training(modules, steps, effort, len(words), learning_rate, 16)
    for step, batch in enumerate(batches):
        chosen = written["v1" if step % 4 else "plain"][step % len(texts.wordings[0])]
        answers = [chosen.answers[int(i)] for i in batch]
        rows = padded(chosen.prompts.of(batch.tolist()), answers, tokens.eos)
        ids, mask = torch.from_numpy(rows.ids), torch.from_numpy(rows.mask)
        shown = ids == tokens.image_token
        embed = language_model.model.embed_tokens
        in_words = embed.weight.requires_grad and step % 2
        image = embed(words[batch]) if in_words else projector(features[step % _COPIES, batch])
        embedded = embed(ids.masked_fill(shown, 0)).masked_scatter(shown[..., None], image)
        keep = ids.shape[1] - rows.start + 1
        logits = language_model(
            inputs_embeds=embedded, attention_mask=mask, logits_to_keep=keep, use_cache=False
        ).logits
        row, column = (torch.from_numpy(part) for part in rows.answered)
        loss = functional.cross_entropy(logits[row, column - rows.start], ids[row, column])
        loss.backward()
        if step % 50 in (0, 1):
            log.info("language model: step %d, loss %.3f", step, loss.item())


def _write_language_model(language_model: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    config = {
        key: getattr(language_model.config, key)
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
            "rms_norm_eps",
            "bos_token_id",
            "eos_token_id",
        )
    }
    config |= {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    _write_json(folder / "config.json", config)
    state = {key: value.contiguous() for key, value in language_model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def _add_adapter(language_model: Any) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules=list(_LINEAR))
    inject_adapter_in_model(config, language_model)
    for name, parameter in language_model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def _write_adapter(language_model: Any, folder: Path) -> None:
    factors = {
        f"base_model.model.{name.replace('.default.', '.')}": value.detach().clone()
        for name, value in language_model.named_parameters()
        if ".lora_" in name
    }
    torch.save(factors, folder / published.ADAPTER)
    settings = {
        "bias": "none",
        "fan_in_fan_out": False,
        "lora_alpha": 2 * _RANK,
        "lora_dropout": 0.05,
        "peft_type": "LORA",
        "r": _RANK,
        "target_modules": list(_LINEAR),
        "task_type": "CAUSAL_LM",
    }
    _write_json(folder / published.ADAPTER_CONFIG, settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
