"""Convert LLaVA-Rad's published files to transformers' layout of a LLaVA.

    python -m workflow_scripts.downstream.report_generation.convert_llava_rad \\
        --published weights/microsoft-llava-rad --language-model weights/vicuna-7b-v1.5 \\
        --output weights/llava-rad

`--published` is the repository `microsoft/llava-rad`: the vision tower (`biomedclipcxr_518.json`,
`biomedclipcxr_518_checkpoint.pt`), the projector of the first stage (`mm_projector.bin`), the
adapter of the second (`adapter_config.json`, `adapter_model.bin`) and its projector
(`non_lora_trainables.bin`). `--language-model` is the repository `lmsys/vicuna-7b-v1.5`. The output
has two folders, each a whole LLaVA that `LlavaForConditionalGeneration.from_pretrained` reads:

- `base/`: tower, Vicuna and the projector of the first stage.
- `released/`: the same with the adapter merged into Vicuna and the projector of the second stage:
  LLaVA-Rad as it was released.

The tower is a timm ViT inside an open_clip checkpoint. It becomes transformers' Dinov2, whose
blocks are the same (a ViT without layer scale is one whose scales are 1). LLaVA-Rad takes the
output of the last block but one, without the class token and without the final norm; so does
transformers with `vision_feature_layer: -2` and the strategy `default`.

Every tensor must find its place: keys that are missing, left over or of another shape are named and
refused. Some tensors are dropped on purpose, by name: open_clip's text tower, logit scale and
projection head; rotary frequencies, which follow from the config; copies of the frozen tower in
`non_lora_trainables.bin`, which LLaVA-Rad's own loader ignores, too. Only tensors are loaded, never
pickled objects.

The names are taken from LLaVA-Rad's code. It has not been verified that the published files hold
what this code writes and reads, because they cannot be read without an account. Preprocessing is
open_clip's: the fields of `preprocess_cfg` in the json if there is one, else open_clip's defaults
for mean, standard deviation and filter.
"""

import argparse
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.checkpoints import load_exactly, load_state
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_folder
from workflow_scripts.downstream.report_generation.layout import (
    IMAGE_TOKEN,
    PUBLISHED,
    check_start,
)
from workflow_scripts.downstream.report_generation.prompts import QUESTION
from workflow_scripts.downstream.report_generation.stages import BASE, RELEASED
from workflow_scripts.features.encoders.layout import need, read_json
from workflow_scripts.features.encoders.transform import SIDECAR

log = logging.getLogger(__name__)

VISION_CONFIG: Final = "biomedclipcxr_518.json"
VISION_CHECKPOINT: Final = "biomedclipcxr_518_checkpoint.pt"
PROJECTOR: Final = "mm_projector.bin"
ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER: Final = "adapter_model.bin"
NON_LORA: Final = "non_lora_trainables.bin"
PUBLISHED_FILES: Final = (
    VISION_CONFIG,
    VISION_CHECKPOINT,
    PROJECTOR,
    ADAPTER_CONFIG,
    ADAPTER,
    NON_LORA,
)
"""The files of microsoft/llava-rad."""

_FILTERS: Final = {"bicubic": 3, "bilinear": 2}
_TIMM: Final = {
    r"cls_token": "embeddings.cls_token",
    r"pos_embed": "embeddings.position_embeddings",
    r"patch_embed\.proj\.(weight|bias)": r"embeddings.patch_embeddings.projection.\1",
    r"blocks\.(\d+)\.norm([12])\.(weight|bias)": r"encoder.layer.\1.norm\2.\3",
    r"blocks\.(\d+)\.attn\.proj\.(weight|bias)": r"encoder.layer.\1.attention.o_proj.\2",
    r"blocks\.(\d+)\.ls([12])\.gamma": r"encoder.layer.\1.layer_scale\2.lambda1",
    r"blocks\.(\d+)\.mlp\.fc([12])\.(weight|bias)": r"encoder.layer.\1.mlp.fc\2.\3",
    r"norm\.(weight|bias)": r"layernorm.\1",
}
_QKV: Final = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_ADAPTED: Final = re.compile(r"base_model\.model\.(model\.layers\.\d+\..+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class Tower:
    """A converted vision tower.

    Attributes:
        config: the arguments of transformers' Dinov2Config.
        state: its weights, by transformers' names.
        preprocessing: the content of `preprocessor_config.json`.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    preprocessing: dict[str, Any]


def convert(published: Path, language_model: Path, output: Path) -> None:
    """Convert the files; `output` appears whole or not at all.

    Args:
        published: folder of PUBLISHED_FILES.
        language_model: folder of a Llama: config.json, weights, tokenizer.json or tokenizer.model.
        output: folder that will hold `base/` and `released/`.

    Raises:
        InputError: a file is missing or damaged, or a tensor is missing, left over or misshapen.
    """
    missing = [name for name in PUBLISHED_FILES if not (published / name).is_file()]
    if missing:
        raise InputError(
            f"missing: {', '.join(missing)}", published, "download the whole repository"
        )
    tower = read_tower(published / VISION_CONFIG, published / VISION_CHECKPOINT)
    tokenizer = read_tokenizer(language_model)
    text_config, text_state = read_language_model(language_model)
    projectors = {name: read_projector(published / name) for name in (PROJECTOR, NON_LORA)}
    network = _assemble(tower, text_config, text_state, len(tokenizer))
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    with whole_folder(output) as folder:
        for name, projector in ((BASE, PROJECTOR), (RELEASED, NON_LORA)):
            target = network.model.multi_modal_projector
            load_exactly(target, projectors[projector], published / projector)
            if name == RELEASED:
                merge_adapter(network, published / ADAPTER_CONFIG, published / ADAPTER)
            network.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
            text = json.dumps(tower.preprocessing, indent=2, sort_keys=True) + "\n"
            (folder / name / SIDECAR).write_text(text, encoding="utf-8")
            check_start(folder / name)
            log.info("%s: %d tensors", output / name, len(network.state_dict()))


def read_tower(config_path: Path, checkpoint: Path) -> Tower:
    """Read the vision tower of an open_clip checkpoint.

    Depth, width and sizes come from the shapes of the weights. The number of attention heads does
    not show in them; it comes from `vision_cfg.head_width`, or timm's default head width of 64.

    Raises:
        InputError: see `convert`.
    """
    config = read_json(config_path)
    vision = config.get("vision_cfg")
    if not isinstance(vision, dict) or "image_size" not in vision:
        raise InputError("no vision_cfg with an image_size", config_path, "use the published file")
    state = _unwrapped(load_state(checkpoint))
    trunk, dropped = {}, {}
    for key, value in state.items():
        if key.startswith("visual.trunk."):
            trunk[key.removeprefix("visual.trunk.")] = value
        elif key.startswith(("visual.head.", "text.")) or key in ("logit_scale", "logit_bias"):
            dropped[key] = value
        else:
            raise InputError(f"1 key(s) left over: {key}", checkpoint, "use the published file")
    log.info("%s: %d tensors of the text tower and the heads dropped", checkpoint, len(dropped))
    renamed = _dinov2_names(trunk, checkpoint)
    patches = need(renamed, "embeddings.patch_embeddings.projection.weight", checkpoint)
    positions = need(renamed, "embeddings.position_embeddings", checkpoint)
    width, _, patch, _ = patches.shape
    side = int(vision["image_size"])
    if (side // patch) ** 2 + 1 != positions.shape[1]:
        raise InputError(
            f"{positions.shape[1]} positions for {side} pixels in patches of {patch}",
            checkpoint,
            "the json and the checkpoint belong to different towers",
        )
    depth = 1 + max(int(found[1]) for key in trunk if (found := re.match(r"blocks\.(\d+)", key)))
    if not any(".layer_scale" in key for key in renamed):
        names = (f"encoder.layer.{i}.layer_scale{k}.lambda1" for i in range(depth) for k in (1, 2))
        renamed |= {name: torch.ones(width) for name in names}
    hidden = need(renamed, "encoder.layer.0.mlp.fc1.weight", checkpoint).shape[0]
    if hidden % width or width % int(vision.get("head_width", 64)):
        raise InputError(
            f"a ViT of width {width} does not fit its heads or its MLP of {hidden}", checkpoint
        )
    tower = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // int(vision.get("head_width", 64)),
        "mlp_ratio": hidden // width,
        "image_size": side,
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
        "use_mask_token": False,
    }
    return Tower(tower, renamed, _preprocessing(config, side, config_path))


def read_projector(path: Path) -> dict[str, Tensor]:
    """Read an `mlp2x_gelu` projector, with the names of transformers' module.

    Raises:
        InputError: see `convert`.
    """
    renamed, dropped = {}, []
    for key, value in load_state(path).items():
        match = re.fullmatch(r"(?:.*\.)?mm_projector\.([02])\.(weight|bias)", key)
        if match:
            renamed[f"linear_{1 + int(match[1]) // 2}.{match[2]}"] = value.float()
        elif ".vision_tower." in key:
            dropped.append(key)
        else:
            raise InputError(f"1 key(s) left over: {key}", path, "use the published file")
    if dropped:
        log.info("%s: %d copies of the frozen vision tower dropped", path, len(dropped))
    return renamed


def read_language_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a Llama's config and weights: one file or shards, safetensors or torch.

    Raises:
        InputError: see `convert`.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "llama":
        raise InputError(f"model_type is {config.get('model_type')!r}, not 'llama'", folder)
    state: dict[str, Tensor] = {}
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(read_json(index)["weight_map"].values()))
        elif (folder / name).is_file():
            shards = [name]
        else:
            continue
        for shard in shards:
            state |= load_state(folder / shard)
        break
    else:
        raise InputError("neither model.safetensors nor pytorch_model.bin", folder)
    return config, {key: v for key, v in state.items() if not key.endswith("rotary_emb.inv_freq")}


def read_tokenizer(folder: Path) -> Any:
    """Read a Llama's tokenizer; a `tokenizer.model` is converted to transformers' format.

    sentencepiece reads the pieces, and their scores give the merges. The converted tokenizer must
    agree with sentencepiece on sample texts.

    Raises:
        InputError: there is no tokenizer, or it cannot be converted.
    """
    from transformers import AutoTokenizer, LlamaTokenizer

    if (folder / "tokenizer.json").is_file():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    path = folder / "tokenizer.model"
    if not path.is_file():
        raise InputError("neither tokenizer.json nor tokenizer.model", folder)
    import sentencepiece

    try:
        original = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise unreadable("cannot read the tokenizer", error, path, "download it again") from None
    vocabulary, merges = _merges(original)
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges)
    for text in (f"\n{QUESTION} ASSISTANT: Übersicht, 3.5 cm.", "The heart is normal in size."):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        if ids != original.encode(text):
            raise InputError("the tokenizer is not a byte-pair encoding of Llama's kind", path)
    return tokenizer


def merge_adapter(network: Any, config_path: Path, path: Path) -> None:
    """Add a LoRA adapter's update, (alpha / r) B A, to the weights that it was trained on.

    Raises:
        InputError: see `convert`; or the adapter is not a plain LoRA without biases.
    """
    config = read_json(config_path)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    plain = not any(config.get(key) for key in ("use_rslora", "use_dora", "fan_in_fan_out"))
    if not rank or not alpha or not plain or config.get("bias", "none") != "none":
        raise InputError("not a plain LoRA without biases", config_path, "use the published file")
    factors: dict[str, dict[str, Tensor]] = {}
    for key, value in load_state(path).items():
        match = _ADAPTED.fullmatch(key)
        if match is None:
            raise InputError(f"1 key(s) left over: {key}", path, "use the published file")
        factors.setdefault(match[1], {})[match[2]] = value
    layers = dict(network.model.language_model.named_modules())
    for name, pair in factors.items():
        layer = layers.get(name.removeprefix("model."))
        if not isinstance(layer, torch.nn.Linear) or set(pair) != {"A", "B"}:
            raise InputError(f"not a linear layer with two factors: {name}", path)
        a, b = pair["A"].float(), pair["B"].float()
        fits = (b.shape[0], a.shape[1]) == tuple(layer.weight.shape)
        if not fits or not a.shape[0] == b.shape[1] == rank:
            raise InputError(
                f"{name}: factors {tuple(a.shape)} and {tuple(b.shape)} of rank {rank} for a "
                f"weight {tuple(layer.weight.shape)}",
                path,
            )
        update = (alpha / rank) * (b @ a)
        layer.weight.data = (layer.weight.data.float() + update).to(layer.weight.dtype)
    kinds = set(config.get("target_modules") or ())
    linear = {n for n, m in layers.items() if isinstance(m, torch.nn.Linear)}
    adapted = {f"model.{name}" for name in linear if name.rpartition(".")[2] in kinds}
    if lacking := sorted(adapted - set(factors)):
        raise InputError(f"{len(lacking)} layer(s) without factors: {lacking[0]}, ...", path)


def _assemble(
    tower: Tower, text_config: Mapping[str, Any], text_state: dict[str, Tensor], vocabulary: int
) -> Any:
    """Build the LLaVA; its vocabulary has one more row, of zeros, for the image's placeholder."""
    from transformers import AutoModelForImageTextToText, Dinov2Config, LlamaConfig, LlavaConfig
    from transformers.initialization import no_init_weights

    rows = int(text_config["vocab_size"])
    if rows != vocabulary:
        raise InputError(
            f"{rows} embeddings for a vocabulary of {vocabulary} tokens",
            "the language model's config.json and tokenizer",
            "use the published files",
        )
    dtype = next(iter(text_state.values())).dtype
    text = LlamaConfig.from_dict({**text_config, "vocab_size": rows + 1, "dtype": None})
    config = LlavaConfig(
        vision_config=Dinov2Config(**tower.config),
        text_config=text,
        image_token_index=rows,
        image_seq_length=(tower.config["image_size"] // tower.config["patch_size"]) ** 2,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    with no_init_weights():  # seven billion weights that are overwritten
        network = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    load_exactly(network.model.vision_tower, tower.state, VISION_CHECKPOINT)
    state = dict(text_state)
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        weight = need(state, key, "the language model's weights")
        state[key] = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
    head = {"weight": state.pop("lm_head.weight")}
    load_exactly(network.lm_head, head, "the language model's head")
    body = {key.removeprefix("model."): value for key, value in state.items()}
    load_exactly(network.model.language_model, body, "the language model's weights")
    return network


def _unwrapped(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a training checkpoint, without data parallelism's key prefix."""
    state = checkpoint.get("state_dict", checkpoint)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _dinov2_names(trunk: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in trunk.items():
        if match := _QKV.fullmatch(key):
            for name, part in zip("qkv", value.chunk(3), strict=True):
                renamed[f"encoder.layer.{match[1]}.attention.{name}_proj.{match[2]}"] = part
            continue
        names = [re.sub(old, new, key) for old, new in _TIMM.items() if re.fullmatch(old, key)]
        if not names:
            raise InputError(
                f"1 key(s) left over: visual.trunk.{key}", path, "use the published file"
            )
        renamed[names[0]] = value
    return renamed


def _preprocessing(config: Mapping[str, Any], side: int, path: Path) -> dict[str, Any]:
    """Return open_clip's evaluation transform as fields of a Hugging Face image processor."""
    given: dict[str, Any] = {**config.get("vision_cfg", {}), **config.get("preprocess_cfg", {})}
    given = {key.removeprefix("image_"): value for key, value in given.items()}
    if given.get("resize_mode", "shortest") != "shortest":
        raise InputError(f"resize_mode {given['resize_mode']!r} is not supported", path)
    if given.get("interpolation", "bicubic") not in _FILTERS:
        raise InputError(f"interpolation {given['interpolation']!r} is not supported", path)
    return {
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "resample": _FILTERS[given.get("interpolation", "bicubic")],
        "rescale_factor": 1 / 255,
        "image_mean": list(given.get("mean") or PUBLISHED.mean),
        "image_std": list(given.get("std") or PUBLISHED.std),
    }


def _merges(original: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a sentencepiece BPE's vocabulary and its merges, in the order of application."""
    size = original.get_piece_size()
    pieces = [original.id_to_piece(i) for i in range(size)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges: list[tuple[float, int, int, str, str]] = []
    for i, piece in enumerate(pieces):
        if original.is_control(i) or original.is_unknown(i) or original.is_byte(i):
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                order = (-original.get_score(i), vocabulary[left], vocabulary[right])
                merges.append((*order, left, right))
    return vocabulary, [(left, right) for *_, left, right in sorted(merges)]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--published", type=Path, required=True, help="files of microsoft/llava-rad"
    )
    parser.add_argument("--language-model", type=Path, required=True, help="Vicuna's folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    convert(args.published, args.language_model, args.output)


if __name__ == "__main__":
    run_script(main)
