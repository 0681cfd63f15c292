"""Estimates, not measurements, of the least memory and disk of the paper's systems and stages.

    python -m workflow_scripts.preflight.needs --config config.yaml > docs/needs.md

They count what follows from numbers of parameters and the config: weights, gradients, optimiser
state, encoded images and checkpoints, and the activations that a training step saves
(tests/preflight/network_sizes.py). The further memory of a GPU's kernels and allocator must be
measured.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

from workflow_scripts.common.config import prompt_sets_of
from workflow_scripts.finetune.families import get_family
from workflow_scripts.preflight.cost_model import TEST_PROMPTS, TRAINING_IMAGES, prompts_of
from workflow_scripts.preflight.gpu_memory import BYTES, GB, STATE
from workflow_scripts.preflight.stage_needs import (
    BASE,
    StageNeed,
    stage_needs,
)

TRAINING_PATIENTS: Final = 64_586
"""Patients of MIMIC-CXR-JPG's official training split, captioned or not."""

_GRADIENT: Final = 4
PROCESSES: Final = 4
"""Processes of a training job in `rules/finetune.smk`, one for each GPU."""

KEPT: Final = 2
"""Checkpoints of the progress that finetune/resume.py keeps."""


@dataclass(frozen=True)
class Network:
    """A published system.

    Attributes:
        network: millions of parameters of the network that is trained or denoises.
        texts: millions of parameters of all its text encoders.
        vae: millions of parameters of its autoencoder.
        encoded: float32 values of an encoded image at 512 pixels; 0 if nothing is trained.
        lora: millions of parameters of the adapter, rank 32 on the attention; 0 if there is none.
        saved: bytes that a step of fine-tuning saves at the published settings; 0 if there is none.
    """

    network: float
    texts: float
    vae: float
    encoded: int = 0
    lora: float = 0.0
    saved: float = 0.0


_MOMENTS_4: Final = 2 * 4 * 64 * 64
_MOMENTS_16: Final = 2 * 16 * 64 * 64
_CLIP_L, _CLIP_H, _CLIP_G, _T5_XXL, _GEMMA_2 = 123.06, 340.39, 694.66, 4762.31, 2614.34

PUBLISHED: Final[Mapping[str, Network]] = {
    "sd_v1_4": Network(859.52, _CLIP_L, 83.65, _MOMENTS_4, saved=3.97e9),
    "sd_v1_5": Network(859.52, _CLIP_L, 83.65, _MOMENTS_4, saved=3.97e9),
    "sd_v2": Network(865.91, _CLIP_H, 83.65, _MOMENTS_4, saved=3.97e9),
    "sd_v2_1": Network(865.91, _CLIP_H, 83.65, _MOMENTS_4, saved=3.97e9),
    "radedit": Network(859.52, 109.48, 83.65),
    "pixart_sigma": Network(611, _T5_XXL, 83.65, _MOMENTS_4, saved=7.15e9),
    "sana": Network(592, _GEMMA_2, 312, 32 * 16 * 16, saved=2.38e9),
    "sd_v3_5": Network(2240, _CLIP_L + _CLIP_G + _T5_XXL, 83.82, _MOMENTS_16, 17.99, 3.59e9),
    "lumina_2": Network(2610, _GEMMA_2, 83.82, _MOMENTS_16, 10.3, 13.38e9),
    "flux_1_dev": Network(11900, _CLIP_L + _T5_XXL, 83.82, _MOMENTS_16, 44.8, 2.84e9),
    "llm_cxr": Network(2780.33, 0, 0),
}
"""The paper's eleven systems. tests/finetune/test_real_sizes.py checks the networks' counts against
their published configs. The other counts follow from the configs of CLIP, T5 1.1 XXL, Gemma 2 2B,
BERT and the autoencoders. The count of Sana's autoencoder is from its publication. LLM-CXR's VQGAN
is left out."""


def training_memory(parts: Network, tuned: Mapping[str, Any], vae_in_float32: bool) -> float:
    """Return the bytes that fine-tuning needs at least on each GPU, without activations."""
    low = BYTES[tuned["mixed_precision"]]
    trained = parts.lora if tuned["method"] == "lora" else parts.network
    frozen = parts.texts + (parts.network if tuned["method"] == "lora" else 0)
    state = 4 + _GRADIENT + STATE[tuned.get("optimiser", "adamw")]
    state += 4 if tuned.get("ema_decay") else 0
    return 1e6 * (state * trained + low * frozen + (4 if vae_in_float32 else low) * parts.vae)


def host_memory(parts: Network, tuned: Mapping[str, Any], vae_in_float32: bool) -> float:
    """Return the bytes of host memory that fine-tuning's four processes need at least.

    Each process loads the weights through host memory. The first one also holds a checkpoint while
    writing it.
    """
    low = BYTES[tuned["mixed_precision"]]
    full = tuned["method"] == "full"
    vae = 4 if vae_in_float32 else low
    weights = (4 if full else low) * parts.network + low * parts.texts + vae * parts.vae
    trained = 1e6 * (parts.network if full else parts.lora)
    return PROCESSES * (BASE + 1e6 * weights) + checkpoint_bytes(trained, tuned) / (KEPT + 1)


def sampling_memory(parts: Network, precision: str, vae_in_float32: bool) -> float:
    """Return the bytes that sampling needs at least on the GPU, without activations."""
    low = BYTES[precision]
    weights = low * (parts.network + parts.lora + parts.texts)
    return 1e6 * (weights + (4 if vae_in_float32 else low) * parts.vae)


def attack_needs(config: Mapping[str, Any]) -> list[StageNeed]:
    """Return what measuring losses needs for membership and canaries, at the largest checkpoint.

    It is loaded as training computes with it, fully trained networks in float32. Losses without a
    gradient hold no more than what a training step of as many images saves.
    """
    needs = []
    for key, parts in PUBLISHED.items():
        tuned = config["models"][key].get("finetune")
        if not tuned:
            continue
        family, low = get_family(config["models"][key]["family"]), BYTES[tuned["mixed_precision"]]
        network = BYTES["fp32"] if tuned["method"] == "full" else low
        vae = BYTES["fp32"] if family.encodes_in_float32 else low
        weights = 1e6 * (
            network * (parts.network + parts.lora) + low * parts.texts + vae * parts.vae
        )
        number = 1e6 * (parts.network + parts.lora + parts.texts + parts.vae)
        batch = config["privacy"]["membership"]["batch_size"]
        saved = parts.saved * batch / tuned["per_device_batch_size"]
        name = config["models"][key]["display"]["name"]
        needs.append((name, number, weights, saved))
    name, number, weights, saved = max(needs, key=lambda row: row[2] + row[3])
    return [
        StageNeed(
            f"privacy: losses of {of}", rule, name, number, weights, saved, BASE + weights, disk
        )
        for of, rule, disk in (
            ("membership", "privacy_membership", 1e6),
            ("canaries", "privacy_guarantee", 1e5),
        )
    ]


def encoded_bytes(values: int, images: int) -> int:
    """Return the bytes of encoded images (float32) in `results/finetune/.encoded`."""
    return 4 * values * images


def checkpoint_bytes(trained: float, tuned: Mapping[str, Any]) -> float:
    """Return the most bytes that a model's training keeps on the disk: progress and final weights.

    A checkpoint of the progress holds weights and optimiser state. The kept ones and the one that
    is being written exist at the same time.

    Args:
        trained: number of trained parameters.
        tuned: the model's block `finetune`.
    """
    each = 4 + STATE[tuned.get("optimiser", "adamw")] + (4 if tuned.get("ema_decay") else 0)
    return trained * ((KEPT + 1) * each + 4)


def image_bytes(size: int, images: int) -> int:
    """Return the approximate bytes of images as PNG, assuming one byte per pixel."""
    return size * size * images


def images_of(config: Mapping[str, Any], model: str, test_prompts: int) -> int:
    """Return the number of images to sample from a model, over all its prompt sets."""
    sets = prompt_sets_of(dict(config), model)
    return sum(prompts_of(config, name, test_prompts) or 0 for name in sets)


def table(config: Mapping[str, Any]) -> str:
    """Return the page `docs/needs.md`: the least needs of each of the paper's systems."""
    models = []
    for key, parts in PUBLISHED.items():
        block = config["models"][key]
        family, sampled = get_family(block["family"]), block["generate"]
        to_tune = ["–"] * 6
        if tuned := block.get("finetune"):
            trained = 1e6 * (parts.lora if tuned["method"] == "lora" else parts.network)
            memory = training_memory(parts, tuned, family.encodes_in_float32)
            host = host_memory(parts, tuned, family.encodes_in_float32)
            encoded = encoded_bytes(parts.encoded, TRAINING_IMAGES)
            on_disk = (encoded, checkpoint_bytes(trained, tuned))
            sizes = (memory, parts.saved, memory + parts.saved, host, *on_disk)
            to_tune = [_gb(size) for size in sizes]
        precision = sampled["precision"]
        sampling = _gb(sampling_memory(parts, precision, family.decodes_in_float32))
        images = _gb(image_bytes(sampled["size"], images_of(config, key, TEST_PROMPTS)))
        models.append([block["display"]["name"], *to_tune, f"{sampling} ({precision})", images])
    stages = []
    for need in [*stage_needs(config), *attack_needs(config)]:
        gpu = [need.gpu, need.activations, need.gpu + need.activations]
        on_gpu = [_gb(size) if sum(gpu) else "–" for size in gpu]
        millions = f"{need.parameters / 1e6:,.1f}" if need.parameters else "–"
        rest = (_gb(need.host), _gb(need.disk))
        stages.append([need.stage, need.network, millions, *on_gpu, *rest])
    each = TRAINING_IMAGES / TRAINING_PATIENTS
    page = Path(__file__).with_name("needs_page.md").read_text(encoding="utf-8")
    return Template(page).substitute(
        models="\n".join(f"| {' | '.join(cells)} |" for cells in models),
        stages="\n".join(f"| {' | '.join(cells)} |" for cells in stages),
        patients=f"{TRAINING_PATIENTS:,}",
        captioned=f"{TRAINING_IMAGES:,}",
        each=f"{each:.1f}",
        passes=f"{128 / each:.0f}",
    )


def _gb(number: float) -> str:
    """Format bytes as GB, rounded up, with one decimal below 10."""
    value = number / GB
    return f"{math.ceil(value * 10) / 10:.1f}" if value < 10 else f"{math.ceil(value):,}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the page."""
    from workflow_scripts.preflight.check import read_config

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", nargs="+", default=["config.yaml"])
    print(table(read_config(parser.parse_args(argv).config)), end="")


if __name__ == "__main__":
    main()
