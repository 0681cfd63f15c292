"""The GPU memory that each phase of fine-tuning and sampling needs, and whether it fits.

The sizes of weights, gradients and optimiser state follow from numbers of parameters, which
preflight counts in networks that it builds without memory. These sizes are certain. Activations
follow from what autograd saves in the published networks (`counted.csv`, written by
`python -m tests.gpu.count`). They are an estimate, without the temporary memory of kernels.

While images are encoded, the GPU holds everything but gradients and activations. During the steps
the autoencoder is in the host's memory (`finetune.train`), since all images are encoded by then.
The text encoders stay on the GPU, because captions are encoded in every step. With the switch
`captions_ahead` (`finetune.captions`) they are on the GPU only while captions are encoded, and then
there are no activations.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.preflight.cost_model import COUNTED, measured_as, training_settings

GB: Final = 1e9

MARGIN: Final = 0.08
"""Share of a GPU's memory for its context, other libraries and fragmentation, as in gpu-check."""

BYTES: Final = {"no": 4, "fp32": 4, "bf16": 2, "fp16": 2}
STATE: Final = {"adamw": 8, "came": 4, "came_sana": 4}
"""Bytes of optimiser state per trained parameter; CAME's factors are negligible."""


@dataclass(frozen=True)
class Parts:
    """Numbers of parameters of a model's networks.

    Attributes:
        network: parameters of the network that is trained, or that denoises.
        texts: parameters of each text encoder, by its name in the pipeline.
        autoencoder: parameters of the image autoencoder.
        trained: parameters that fine-tuning trains: the whole network or an adapter.
    """

    network: int
    texts: Mapping[str, int]
    autoencoder: int
    trained: int = 0


@dataclass(frozen=True)
class Activations:
    """What autograd saves in a training step, in GB.

    Attributes:
        fixed: the part that does not depend on the number of images.
        image: the part for each image of the step.
    """

    fixed: float
    image: float


@dataclass(frozen=True)
class Phase:
    """The GPU memory of one phase, in bytes.

    Attributes:
        name: the phase's name.
        certain: memory that is certainly needed, by its use.
        estimated: further memory, as far as it is known, by its use.
        whole: whether the estimates include activations.
    """

    name: str
    certain: Mapping[str, float]
    estimated: Mapping[str, float]
    whole: bool

    @property
    def least(self) -> float:
        """Bytes that are certainly needed."""
        return sum(self.certain.values())

    @property
    def total(self) -> float:
        """Bytes including the estimates."""
        return self.least + sum(self.estimated.values())


def parts_of(pipeline: Any, network: Any, autoencoder: str) -> Parts:
    """Count the parameters of a pipeline's networks, which may be on the meta device.

    Args:
        pipeline: a family's pipeline.
        network: the component that is trained. None for a family that is only sampled; all its
            other networks then count as text encoders.
        autoencoder: the name of the component that encodes images.
    """
    components = getattr(pipeline, "components", None) or vars(pipeline)
    counts = {
        name: sum(value.numel() for value in part.parameters())
        for name, part in components.items()
        if hasattr(part, "parameters")
    }
    trained_name = None
    if network is not None:
        trained_name = next((name for name, part in components.items() if part is network), None)
    texts = {name: n for name, n in counts.items() if name not in (trained_name, autoencoder)}
    return Parts(counts.get(trained_name or "", 0), texts, counts.get(autoencoder, 0))


def training_phases(
    parts: Parts,
    tuned: Mapping[str, Any],
    encodes_in_float32: bool,
    activations: Activations | None = None,
    images: int | None = None,
    captions_ahead: bool = False,
) -> list[Phase]:
    """Return the memory of each GPU while images are encoded, and during the steps.

    Args:
        parts: the model's parameters.
        tuned: the model's block `finetune`.
        encodes_in_float32: whether the autoencoder is in float32 whatever the precision.
        activations: the networks' activations with these settings; None if not counted.
        images: number of images shown at once; by default the per-device batch.
        captions_ahead: whether captions are encoded by themselves, many steps ahead.
    """
    low = BYTES[tuned["mixed_precision"]]
    lora = tuned["method"] == "lora"
    texts = {name: low * n for name, n in parts.texts.items()}
    network = {"network": (low if lora else 4) * parts.network}
    if lora:
        network["adapter"] = 4 * parts.trained
    average = {"moving average": 4 * parts.trained} if tuned.get("ema_decay") else {}
    autoencoder = {"autoencoder": (4 if encodes_in_float32 else low) * parts.autoencoder}
    state = {
        "gradients": 4 * parts.trained,
        "optimiser": STATE[tuned.get("optimiser", "adamw")] * parts.trained,
    }
    # Autocast casts float32 weights for each pass and keeps the copies until it ends.
    copies = {"autocast's copies": low * parts.trained} if low < 4 else {}
    more: dict[str, float] = dict(copies)
    if activations:
        at_once = images or min(tuned["per_device_batch_size"], tuned["batch_size"])
        more["activations"] = GB * (activations.fixed + at_once * activations.image)
    known = activations is not None
    if captions_ahead:
        return [
            Phase("images encoded", {**autoencoder, **network, **average}, {}, False),
            Phase("captions encoded", {**texts, **network, **state, **average}, {}, False),
            Phase("steps", {**network, **state, **average}, more, known),
        ]
    return [
        Phase("images encoded", {**texts, **autoencoder, **network, **average}, {}, False),
        Phase("steps", {**texts, **network, **state, **average}, more, known),
    ]


def sampling_phase(parts: Parts, precision: str, decodes_in_float32: bool) -> Phase:
    """Return the GPU memory while images are sampled, without activations."""
    low = BYTES[precision]
    certain = {name: low * n for name, n in parts.texts.items()}
    certain["network"] = low * parts.network
    certain["autoencoder"] = (4 if decodes_in_float32 else low) * parts.autoencoder
    return Phase("sampling", certain, {}, False)


def read_counted(file: Path = COUNTED) -> dict[tuple[str, str], Activations]:
    """Return the counted activations, by gpu-check's model and settings.

    The settings leave out the number of images, because memory grows linearly with it.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        return {
            (row["model"], _any_images(row["settings"])): Activations(
                float(row["fixed_gb"]), float(row["image_gb"])
            )
            for row in csv.DictReader(stream)
        }


def activations_of(
    block: Mapping[str, Any], key: str, counted: Mapping[tuple[str, str], Activations] | None = None
) -> Activations | None:
    """Return the activations of a model's training; None if they were not counted.

    Args:
        block: the model's block of the config.
        key: the model's key.
        counted: result of `read_counted`, which is called if it is None.
    """
    by_model = read_counted() if counted is None else counted
    settings = _any_images(training_settings(block["finetune"], 0))
    return by_model.get((measured_as(block, key), settings))


def _any_images(settings: str) -> str:
    return ", ".join(part for part in settings.split(", ") if not part.endswith(" images"))


def check_fits(phases: Iterable[Phase], gigabytes: float, where: str) -> list[str]:
    """Raise if a phase cannot fit on a GPU; return warnings of phases that may not fit.

    Args:
        phases: the phases of one job.
        gigabytes: the GPU's memory as in its name, such as 80 or 141.
        where: the key of the config that decides.

    Raises:
        InputError: a phase certainly needs more memory than the GPU has.
    """
    doubts = []
    for phase in phases:
        has = gigabytes * 2**30  # a card has this many GiB or slightly less
        largest = ", ".join(
            f"{name} {size / GB:.1f}"
            for name, size in sorted(phase.certain.items(), key=lambda item: -item[1])[:4]
        )
        if phase.least > has:
            raise InputError(
                f"{phase.name}: each GPU needs at least {phase.least / GB:.0f} GB ({largest}), "
                f"but has {gigabytes:g} GB",
                f"{where}, the profile's gpu_memory_gb",
                "ask for larger GPUs in the profile, use LoRA or a lower precision, or leave the "
                "model out of run_models",
            )
        if phase.total > (1 - MARGIN) * has:
            doubts.append(
                f"{where}, {phase.name}: about {phase.total / GB:.0f} GB of a GPU's {gigabytes:g} "
                f"GB (activations {phase.estimated.get('activations', 0) / GB:.0f}); if it runs "
                "out of memory, lower per_device_batch_size: the total batch stays"
            )
    return doubts


def table(rows: Sequence[tuple[str, Sequence[Phase]]]) -> str:
    """Return the phases of models as a Markdown table, in GB."""
    lines = [
        "| model | phase | " + " | ".join(_LABELS) + " | sum |",
        "|---|---|" + "---|" * (len(_LABELS) + 1),
    ]
    for name, phases in rows:
        for phase in phases:
            sizes = _by_label({**phase.certain, **phase.estimated})
            cells = [f"{sizes[label] / GB:.1f}" if label in sizes else "–" for label in _LABELS]
            more = "" if phase.whole else " + activations"
            lines.append(
                f"| {name} | {phase.name} | {' | '.join(cells)} | {phase.total / GB:.1f}{more} |"
            )
    return "\n".join(lines) + "\n"


_LABELS: Final = (
    "text encoders", "autoencoder", "network", "adapter", "gradients", "optimiser",
    "moving average", "autocast's copies", "activations",
)  # fmt: skip


def _by_label(sizes: Mapping[str, float]) -> dict[str, float]:
    by_label: dict[str, float] = {}
    for name, size in sizes.items():
        label = name if name in _LABELS else "text encoders"
        by_label[label] = by_label.get(label, 0) + size
    return by_label
