"""A system's pipeline with random weights, built where it computes, and its config's settings.

No weight is read or written: a network is built on the device in float32 and then rounded to the
precision that it is used in, one after the other.
"""

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from tests.gpu.published import AUTOENCODERS, NETWORKS, SYSTEMS, TEXT_ENCODERS, System
from tests.gpu.tiny import SIZE, TINY
from workflow_scripts.finetune.checks import PRECISIONS
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.families.base import Family, SampleSettings
from workflow_scripts.finetune.families.sana import LinearAttention
from workflow_scripts.finetune.lora import LoraSettings, add_lora, load_lora, save_lora
from workflow_scripts.finetune.settings import TrainSettings

ROOT: Final = Path(__file__).resolve().parents[2]

CAPTION: Final = (
    "The cardiomediastinal silhouette is mildly enlarged and unchanged. There is a small left "
    "pleural effusion with adjacent atelectasis. No focal consolidation, pneumothorax or overt "
    "pulmonary edema is seen. The right internal jugular line ends in the lower superior vena "
    "cava. Degenerative changes of the thoracic spine are noted."
)
"""Written for this check; about as long as a radiograph's findings are."""


def config_of(model: str) -> dict[str, Any]:
    """Return a model's block of config.yaml."""
    return yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["models"][model]


def train_settings(model: str, tiny: bool) -> TrainSettings:
    """Return a model's settings of training, one pass of the per-device batch a step.

    A tiny model is shown two images of 64 pixels at a time, in the published precision.
    """
    block = config_of(model)["finetune"]
    known = {field.name for field in fields(TrainSettings)} - {"lora"}
    chosen = {name: value for name, value in block.items() if name in known}
    lora = block.get("lora")
    batch = 2 if tiny else block["per_device_batch_size"]
    chosen |= {"batch_size": batch, "per_device_batch_size": batch, "epochs": 1.0}
    if tiny:
        chosen["size"] = SIZE
    return TrainSettings(
        **chosen,
        lora=LoraSettings(**{**lora, "targets": tuple(lora["targets"])}) if lora else None,
    )


def sample_settings(model: str, steps: int, tiny: bool) -> SampleSettings:
    """Return a model's settings of sampling, but with so many steps."""
    block = config_of(model)["generate"]
    size = SIZE if tiny else block["size"]
    return SampleSettings(steps, block["guidance"], size, block.get("options", {}))


def family_of(model: str) -> Family:
    """Return the family that trains and samples a model, with its options of training."""
    block = config_of(model)
    family = get_family(block["family"])
    return family.trained_with(block.get("finetune", {}).get("options", {}))


def pipeline_for_training(model: str, device: torch.device, tiny: bool) -> Any:
    """Return a pipeline in the precisions that `finetune` loads it in."""
    settings, family = train_settings(model, tiny), family_of(model)
    dtype = PRECISIONS[settings.mixed_precision]
    network = torch.float32 if settings.method == "full" else dtype
    autoencoder = torch.float32 if family.encodes_in_float32 else dtype
    return build(SYSTEMS[model], device, tiny, dtype, network, autoencoder)


def pipeline_for_sampling(
    model: str, device: torch.device, tiny: bool, precision: str | None = None
) -> Any:
    """Return a pipeline as a shard is sampled with: in its precision, with an adapter where it has.

    Args:
        model: its block in config.yaml.
        device: where it is built.
        tiny: whether with tiny networks.
        precision: `fp32`, `fp16` or `bf16`; by default that of config.yaml.
    """
    names = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    block, family = config_of(model), family_of(model)
    dtype = names[precision or block["generate"]["precision"]]
    autoencoder = torch.float32 if family.decodes_in_float32 else dtype
    pipeline = build(SYSTEMS[model], device, tiny, dtype, dtype, autoencoder)
    if block.get("finetune", {}).get("method") == "lora":
        settings = train_settings(model, tiny).lora
        assert settings is not None
        network: Any = family.network(pipeline)
        add_lora(network, family, settings)
        with tempfile.TemporaryDirectory() as name:  # the adapter alone, as sampling loads it
            save_lora(family, pipeline, Path(name))
            network.delete_adapters("default")
            load_lora(family, pipeline, Path(name))
        network.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build(
    system: System,
    device: torch.device,
    tiny: bool,
    dtype: torch.dtype,
    network_dtype: torch.dtype,
    autoencoder_dtype: torch.dtype,
) -> Any:
    """Return a system's pipeline with random weights, frozen and in eval mode.

    Args:
        system: what it is put together from.
        device: where it is built.
        tiny: whether with the values of `TINY`.
        dtype: of the text encoders.
        network_dtype: of the network that is trained or denoises.
        autoencoder_dtype: of the autoencoder.
    """
    import diffusers
    import transformers

    torch.manual_seed(0)
    component, name = system.network
    kind, config = NETWORKS[name]
    parts = {component: _built(diffusers, kind, _values(name, config, tiny), device, network_dtype)}
    if system.pipeline == "SanaPipeline":
        for block in parts["transformer"].transformer_blocks:
            block.attn1.set_processor(LinearAttention())
    kind, config = AUTOENCODERS[system.autoencoder]
    values = _values(system.autoencoder, config, tiny)
    parts["vae"] = _built(diffusers, kind, values, device, autoencoder_dtype)
    for i, (name, (tokens, most)) in enumerate(zip(system.texts, system.tokenizers, strict=True)):
        suffix = f"_{i + 1}" if i else ""
        short = tiny and tokens != "clip"  # CLIP's positions are as many as its tokens
        tokenizer = _tokenizer(tokens, min(most, SIZE) if short else most)
        kind, of_config, config = TEXT_ENCODERS[name]
        values = _values(name, config, tiny)
        if tokens == "clip":  # the pooled vector is that of the end token
            ids = ("bos_token_id", "eos_token_id", "pad_token_id")
            values |= {key: getattr(tokenizer, key) for key in ids}
        settings = getattr(transformers, of_config)(**values)
        more = {"add_pooling_layer": False} if tokens == "bert" else {}
        parts[f"text_encoder{suffix}"] = _placed(
            lambda kind=kind, settings=settings, more=more: getattr(transformers, kind)(
                settings, **more
            ),
            device,
            dtype,
        )
        parts[f"tokenizer{suffix}"] = tokenizer
    schedule, values = system.scheduler
    parts["scheduler"] = _scheduler(schedule, values)
    if system.pipeline == "StableDiffusionPipeline":
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    return getattr(diffusers, system.pipeline)(**parts)


def _values(name: str, config: dict[str, Any], tiny: bool) -> dict[str, Any]:
    return {**config, **(TINY[name] if tiny else {})}


def _built(library: Any, kind: str, values: dict[str, Any], device: Any, dtype: Any) -> Any:
    return _placed(lambda: getattr(library, kind)(**values), device, dtype)


def _scheduler(kind: str, values: dict[str, Any]) -> Any:
    import diffusers

    return getattr(diffusers, kind)(**values)


def _placed(make: Any, device: torch.device, dtype: torch.dtype) -> Any:
    with torch.device(device):
        network = make()
    network = network.to(device, dtype).requires_grad_(False).eval()
    # As `from_pretrained` does: T5's output products overflow in float16.
    kept = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    if dtype == torch.float16:
        for name, module in network.named_modules():
            if kept & set(name.split(".")):
                module.float()
    return network


def _tokenizer(kind: str, most: int) -> Any:
    """Return a tokenizer of a kind that knows `CAPTION`; padding makes its sequences full length.

    The published vocabularies cannot be fetched. What a text encoder costs follows from the length
    of its sequence and its own vocabulary, which are the published ones.
    """
    from workflow_scripts.world.diffusion import clip_tokenizer_files, write_clip_tokenizer
    from workflow_scripts.world.tiny_lumina2 import _SYSTEM_PROMPT
    from workflow_scripts.world.tiny_text import gemma_tokenizer, t5_tokenizer

    words = [f" {word}" for word in CAPTION.split()]
    if kind == "clip":
        with tempfile.TemporaryDirectory() as name:
            return write_clip_tokenizer(clip_tokenizer_files([CAPTION], 200), Path(name) / "clip")
    if kind == "t5":
        return t5_tokenizer(words, 120, max_length=most)
    if kind == "gemma":
        # Lumina 2 is shown the caption's tokens alone, without padding: about one a word.
        words += [f" {word}" for word in _SYSTEM_PROMPT.split()]
        return gemma_tokenizer(words, tokens=900, max_length=most)
    return _bert_tokenizer(words, most)


def _bert_tokenizer(words: list[str], most: int) -> Any:
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = [*special, *dict.fromkeys(word.strip(" .,").lower() for word in words), ".", ","]
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "vocab.txt"
        file.write_text("\n".join(dict.fromkeys(known)) + "\n", encoding="utf-8")
        return BertTokenizer.from_pretrained(name, local_files_only=True, model_max_length=most)
