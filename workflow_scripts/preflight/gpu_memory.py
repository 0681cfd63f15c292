"""What lies on a GPU in each phase of fine-tuning and sampling, and whether it fits.

Weights, gradients and the optimiser's state follow from numbers of parameters, which preflight
counts in the networks that it builds without memory: what they take is certain. Activations follow
from what autograd saves of the published networks (`counted.csv`, written by
`python -m tests.gpu.count`): an estimate, without what kernels need while they work.

While images are encoded, everything but gradients and activations is there. During the steps the
autoencoder is in the host's memory (`finetune.train`), since all images are encoded by then. The
text encoders stay, for captions are encoded in every step, unless the switch `captions_ahead` is on
(`finetune.captions`): then they are there while captions are encoded, without activations.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.errors import InputError
from workflow_scripts.preflight.cost_model import measured_as, training_settings

GB: Final = 1e9
COUNTED: Final = Path(__file__).with_name("counted.csv")
COUNTED_COLUMNS: Final = (
    "model", "settings", "fixed_gb", "image_gb", "forward_flop_per_image", "torch",
)  # fmt: skip

MARGIN: Final = 0.08
"""Share of a GPU's memory that its context, other libraries and fragments take, as in gpu-check."""

_BYTES: Final = {"no": 4, "fp32": 4, "bf16": 2, "fp16": 2}
_STATE: Final = {"adamw": 8, "came": 4, "came_sana": 4}
"""Bytes of the optimiser's state per trained parameter; CAME's factors are small beside them."""


@dataclass(frozen=True)
class Parts:
    """Numbers of parameters of a model's networks.

    Attributes:
        network: of the one that is trained or denoises.
        texts: of each text encoder, by the pipeline's name.
        autoencoder: of what encodes and decodes images.
        trained: that fine-tuning trains: all of the network, or an adapter beside it.
    """

    network: int
    texts: Mapping[str, int]
    autoencoder: int
    trained: int = 0


@dataclass(frozen=True)
class Activations:
    """What autograd keeps of a training step, in GB.

    Attributes:
        fixed: whatever the number of images.
        image: for each image that is shown at once.
    """

    fixed: float
    image: float


@dataclass(frozen=True)
class Phase:
    """What lies on the GPU at a time, in bytes.

    Attributes:
        name: of the phase.
        certain: by what it is; nothing of it can be spared.
        estimated: what comes on top, as far as it is known.
        whole: whether activations are among the estimates.
    """

    name: str
    certain: Mapping[str, float]
    estimated: Mapping[str, float]
    whole: bool

    @property
    def least(self) -> float:
        """Bytes that are taken for certain."""
        return sum(self.certain.values())

    @property
    def total(self) -> float:
        """Bytes with the estimates."""
        return self.least + sum(self.estimated.values())


def parts_of(pipeline: Any, network: Any, autoencoder: str) -> Parts:
    """Count the parameters of a pipeline's networks, also of one on the meta device.

    Args:
        pipeline: of a family.
        network: its component that is trained; None of a family that is only sampled, whose
            networks all count among the texts.
        autoencoder: the name of the component that encodes images.
    """
    components = getattr(pipeline, "components", None) or vars(pipeline)
    counts = {
        name: sum(value.numel() for value in part.parameters())
        for name, part in components.items()
        if hasattr(part, "parameters")
    }
    own = None
    if network is not None:
        own = next((name for name, part in components.items() if part is network), None)
    texts = {name: n for name, n in counts.items() if name not in (own, autoencoder)}
    return Parts(counts.get(own or "", 0), texts, counts.get(autoencoder, 0))


def training_phases(
    parts: Parts,
    tuned: Mapping[str, Any],
    encodes_in_float32: bool,
    activations: Activations | None = None,
    images: int | None = None,
    captions_ahead: bool = False,
) -> list[Phase]:
    """Return what lies on each GPU while images are encoded, and during the steps.

    Args:
        parts: of the model.
        tuned: its block `finetune`.
        encodes_in_float32: whether the autoencoder is in float32 whatever the precision.
        activations: of its networks with these settings, where they were counted.
        images: that are shown at once; by default the per-device batch.
        captions_ahead: whether captions are encoded by themselves, many steps ahead.
    """
    low = _BYTES[tuned["mixed_precision"]]
    lora = tuned["method"] == "lora"
    texts = {name: low * n for name, n in parts.texts.items()}
    network = {"network": (low if lora else 4) * parts.network}
    if lora:
        network["adapter"] = 4 * parts.trained
    average = {"moving average": 4 * parts.trained} if tuned.get("ema_decay") else {}
    autoencoder = {"autoencoder": (4 if encodes_in_float32 else low) * parts.autoencoder}
    state = {
        "gradients": 4 * parts.trained,
        "optimiser": _STATE[tuned.get("optimiser", "adamw")] * parts.trained,
    }
    # Autocast casts float32 weights for each pass and keeps the copies until it ends.
    copies = {"autocast's copies": low * parts.trained} if low < 4 else {}
    more: dict[str, float] = dict(copies)
    if activations:
        shown = images or min(tuned["per_device_batch_size"], tuned["batch_size"])
        more["activations"] = GB * (activations.fixed + shown * activations.image)
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
    """Return what lies on the GPU while images are sampled, without activations."""
    low = _BYTES[precision]
    certain = {name: low * n for name, n in parts.texts.items()}
    certain["network"] = low * parts.network
    certain["autoencoder"] = (4 if decodes_in_float32 else low) * parts.autoencoder
    return Phase("sampling", certain, {}, False)


def read_counted(file: Path = COUNTED) -> dict[tuple[str, str], Activations]:
    """Return the activations that were counted, by gpu-check's model and settings.

    The settings are without the number of images: memory grows with it in a line.
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
    """Return the activations of a model's training, where its network and settings were counted.

    Args:
        block: the model's block of the config.
        key: the model.
        counted: of `read_counted`.
    """
    found = read_counted() if counted is None else counted
    settings = _any_images(training_settings(block["finetune"], 0))
    return found.get((measured_as(block, key), settings))


def _any_images(settings: str) -> str:
    return ", ".join(part for part in settings.split(", ") if not part.endswith(" images"))


def check_fits(phases: Iterable[Phase], gigabytes: float, where: str) -> list[str]:
    """Refuse what cannot fit a GPU; return what may not fit it, as sentences.

    Args:
        phases: of one job.
        gigabytes: of the GPU as its name says, 80 or 141.
        where: the key of the config that decides.

    Raises:
        InputError: what is there for certain is more than the GPU has.
    """
    doubts = []
    for phase in phases:
        has = gigabytes * 2**30  # cards have that many GiB, or a little less
        largest = ", ".join(
            f"{name} {size / GB:.1f}"
            for name, size in sorted(phase.certain.items(), key=lambda item: -item[1])[:4]
        )
        if phase.least > has:
            raise InputError(
                f"{phase.name}: {phase.least / GB:.0f} GB lie on each GPU at least ({largest}), "
                f"and it has {gigabytes:g} GB",
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
    found: dict[str, float] = {}
    for name, size in sizes.items():
        label = name if name in _LABELS else "text encoders"
        found[label] = found.get(label, 0) + size
    return found
