"""Estimates, not measurements, of the least memory and disk of the paper's systems and stages.

    python -m workflow_scripts.preflight.needs --config config.yaml > docs/needs.md

They count what follows from numbers of parameters and the config: weights, gradients, optimiser
state, encoded images and checkpoints, and the activations that a training step saves
(network_sizes.py). The further memory of a GPU's kernels and allocator must be measured.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workflow_scripts.cohort.stress_prompts import stress_size
from workflow_scripts.common.config import prompt_sets_of
from workflow_scripts.finetune.families import get_family
from workflow_scripts.preflight.stage_needs import (
    BASE,
    CAPTIONED_TRAINING_IMAGES,
    TEST_PROMPTS,
    StageNeed,
    stage_needs,
)

GB: Final = 1e9
TRAINING_IMAGES: Final = 237_388
"""Captioned training images of MIMIC-CXR, according to the paper."""

_BYTES: Final = {"no": 4, "fp32": 4, "bf16": 2, "fp16": 2}
_GRADIENT: Final = 4
PROCESSES: Final = 4
"""Processes of a training job in `rules/finetune.smk`, one for each GPU."""

KEPT: Final = 2
"""Checkpoints of the progress that finetune/resume.py keeps."""

_STATE: Final = {"adamw": 8, "came": 4, "came_sana": 4}
"""Bytes of optimiser state per trained parameter: two moments, or CAME's one (and its factors)."""


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
    low = _BYTES[tuned["mixed_precision"]]
    trained = parts.lora if tuned["method"] == "lora" else parts.network
    frozen = parts.texts + (parts.network if tuned["method"] == "lora" else 0)
    state = 4 + _GRADIENT + _STATE[tuned.get("optimiser", "adamw")]
    state += 4 if tuned.get("ema_decay") else 0
    return 1e6 * (state * trained + low * frozen + (4 if vae_in_float32 else low) * parts.vae)


def host_memory(parts: Network, tuned: Mapping[str, Any], vae_in_float32: bool) -> float:
    """Return the bytes of host memory that fine-tuning's four processes need at least.

    Each process loads the weights through host memory. The first one also holds a checkpoint while
    writing it.
    """
    low = _BYTES[tuned["mixed_precision"]]
    full = tuned["method"] == "full"
    vae = 4 if vae_in_float32 else low
    weights = (4 if full else low) * parts.network + low * parts.texts + vae * parts.vae
    trained = 1e6 * (parts.network if full else parts.lora)
    return PROCESSES * (BASE + 1e6 * weights) + checkpoint_bytes(trained, tuned) / (KEPT + 1)


def sampling_memory(parts: Network, precision: str, vae_in_float32: bool) -> float:
    """Return the bytes that sampling needs at least on the GPU, without activations."""
    low = _BYTES[precision]
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
        family, low = get_family(config["models"][key]["family"]), _BYTES[tuned["mixed_precision"]]
        network = _BYTES["fp32"] if tuned["method"] == "full" else low
        vae = _BYTES["fp32"] if family.encodes_in_float32 else low
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
    each = 4 + _STATE[tuned.get("optimiser", "adamw")] + (4 if tuned.get("ema_decay") else 0)
    return trained * ((KEPT + 1) * each + 4)


def image_bytes(size: int, images: int) -> int:
    """Return the approximate bytes of images as PNG, assuming one byte per pixel."""
    return size * size * images


def images_of(config: Mapping[str, Any], model: str, test_prompts: int) -> int:
    """Return the number of images to sample from a model, over all its prompt sets."""
    sets = config["prompt_sets"]
    numbers = {
        "test": test_prompts,
        "privacy": sets["privacy"]["captions"] * len(sets["privacy"]["seeds"]),
        "augment": sets["augment"]["captions"],
        "stress": stress_size(sets["stress"].get("groups")),
    }
    return sum(numbers[name] for name in prompt_sets_of(dict(config), model))


def table(config: Mapping[str, Any]) -> str:
    """Return the page `docs/needs.md`: the least needs of each of the paper's systems."""
    lines = [_HEAD]
    for key, parts in PUBLISHED.items():
        block = config["models"][key]
        family, sampled, tuned = (
            get_family(block["family"]),
            block["generate"],
            block.get("finetune"),
        )
        memory, saved, together, host, encoded, progress = ("–",) * 6
        if tuned:
            trained = 1e6 * (parts.lora if tuned["method"] == "lora" else parts.network)
            bytes_ = training_memory(parts, tuned, family.encodes_in_float32)
            memory, saved, together = map(_gb, (bytes_, parts.saved, bytes_ + parts.saved))
            host = _gb(host_memory(parts, tuned, family.encodes_in_float32))
            encoded = _gb(encoded_bytes(parts.encoded, TRAINING_IMAGES))
            progress = _gb(checkpoint_bytes(trained, tuned))
        precision = sampled["precision"]
        sampling = _gb(sampling_memory(parts, precision, family.decodes_in_float32))
        images = _gb(image_bytes(sampled["size"], images_of(config, key, TEST_PROMPTS)))
        name = block["display"]["name"]
        cells = [
            name,
            memory,
            saved,
            together,
            host,
            encoded,
            progress,
            f"{sampling} ({precision})",
            images,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _STAGES]
    for need in [*stage_needs(config), *attack_needs(config)]:
        gpu = [need.gpu, need.activations, need.gpu + need.activations]
        sizes = [_gb(size) if sum(gpu) else "–" for size in gpu]
        millions = f"{need.parameters / 1e6:,.1f}" if need.parameters else "–"
        cells = [need.stage, need.network, millions, *sizes, _gb(need.host), _gb(need.disk)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _TAIL])


def _gb(number: float) -> str:
    """Format bytes as GB, rounded up, with one decimal below 10."""
    value = number / GB
    return f"{math.ceil(value * 10) / 10:.1f}" if value < 10 else f"{math.ceil(value):,}"


_HEAD: Final = """\
# What the paper's systems and stages need at least

`python -m workflow_scripts.preflight.needs > docs/needs.md` computes this page from numbers of
parameters and `config.yaml`. **Nothing on it is measured.** For each number it says whether it is
counted or estimated. GB are 10^9 bytes. `make gpu-check` measures what a job really takes.

## Fine-tuning and sampling

- Weights, state, counted: weights, gradients and optimiser state of what is trained, in float32;
  all else in `mixed_precision`; on each GPU.
- Saved, counted without a GPU: what autograd saves in a step of `per_device_batch_size` images with
  gradient checkpointing, and what the largest recomputed block saves. Copies of weights that
  autocast makes are included if they are saved. Each storage counts once.
- GPU, an estimate: the sum of the two. It leaves out gradients of activations, the kernels' own
  memory and what the allocator rounds up. Where a GPU is too small, lower `per_device_batch_size`
  (the total batch stays) or sampling's `batch_size`.
- Host, an estimate, for all four processes: each holds 4 GB of libraries (assumed) and the weights
  as they are loaded, and the first also holds the checkpoint that it writes.
- Encoded, counted: `results/finetune/.encoded` for 237,388 images at 512 pixels. Models with the
  same autoencoder's weights share them.
- Progress, counted: the checkpoints that an unfinished training keeps at the same time, and the
  trained weights. A model that is trained in full gets a copy of its base's other components, too.
- GPU, sampling, counted: weights alone, without activations.
- Images, an estimate: one byte for each pixel; all prompt sets, with 5,034 test prompts.

All in GB:

| model | weights, state | saved | GPU | host | encoded | progress | GPU, sampling | images |
|---|---|---|---|---|---|---|---|---|"""

_STAGES: Final = """\
The base checkpoints themselves are not included.

## The other stages

Each job takes one GPU. Training a report generator takes four, and each needs what the row says.
Scores of fidelity and privacy are computed on the CPU.

- Parameters, in millions, counted.
- Weights and state, counted: weights in float32 (networks of 7 billion parameters in 16 bits); in
  training also the gradients and Adam's state of what is trained; images that are kept on the GPU.
- Activations, estimates. In training what autograd saves (counted, as above) with the settings of
  `config.yaml`; report generators with their longest texts, 2,048 tokens. Otherwise the inputs
  and outputs of the widest module (counted), or a language model's cache of the tokens that it has
  read and written.
- Host, an estimate: 4 GB of libraries (assumed), weights, images and features in memory. The rules
  request more than that (a test compares them).
- Disk, an estimate: what the job writes, its progress included. Features of RAD-DINO and
  re-identification are those of 237,388 training images, of the other encoders those of 5,034 test
  images. A published radiograph counts as 1.5 MB. Re-identification is trained only where
  `encoders.reid.train` asks for it; the row has 64 pairs of 256 pixels.

Sizes in GB:

| stage | network | parameters | weights and state | activations | GPU | host | disk |
|---|---|---|---|---|---|---|---|"""

TRAINING_PATIENTS: Final = 64_586
"""Patients of MIMIC-CXR-JPG's official training split, captioned or not."""


def _private() -> str:
    """Return how often a step with a guarantee passes through a network."""
    each = CAPTIONED_TRAINING_IMAGES / TRAINING_PATIENTS
    images, patients = f"{CAPTIONED_TRAINING_IMAGES:,}", f"{TRAINING_PATIENTS:,}"
    mean, passes = f"{each:.1f}", f"{128 / each:.0f}"
    return f"""\
Fine-tuning with a guarantee (`finetune.privacy`) goes through the network once for every patient
drawn, not once for a batch. MIMIC-CXR-JPG's training split has {patients} patients: {images}
captioned radiographs are at least {mean} per patient on average. A batch of 128 images is then
some {passes} patients, and as many passes, where 16 images at once take 8. A guarantee needs one
more copy of the trained weights' gradient, which LoRA makes small, and none per image. The extra
time was not measured on a GPU.
"""


_TAIL: Final = (
    """\
All encoders of a job are on the GPU at the same time. ResNet-50 saves 0.086 GB for each image of
224 pixels in float32: 768 at once take 66 GB, so that `per_device_batch_size` is 256, in bf16. A
report generator on a GPU of 40 GB needs `per_device_batch_size: 8` and `generate_batch_size: 16`.

Losses for attacks on membership and on canaries are measured under every fine-tuned model, and
for membership under LLM-CXR; the rows are for the model that needs most. Their activations are
those that a training step of as many images saves; losses without a gradient need less.

A curated set is made on request, and its rows are for one model. Three jobs write large temporary
files: the pool with planted leaks, each also mirrored, is removed when the lenses have looked; the
gray values of the radiographs, when the search has ended; a second copy of the set's images, when
the set is written. Their time on a GPU was not measured;
`make plan PLAN="--curate sana"` lists the work.

"""
    + _private()
    + """
Every run compares the free disk with what its planned fine-tuning and sampling will write, before
its first job. Features, records and controls are not counted there.
"""
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the page."""
    from workflow_scripts.preflight.check import read_config

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", nargs="+", default=["config.yaml"])
    print(table(read_config(parser.parse_args(argv).config)), end="")


if __name__ == "__main__":
    main()
