"""The parts of the check, the most valuable first, and what each needs."""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_MODELS: Final = ("torch", "diffusers", "transformers", "accelerate", "sentencepiece")
_FILES: Final = ("pandas", "pyarrow", "h5py", "PIL")
_TRAINING: Final = (*_MODELS, *_FILES, "tokenizers", "safetensors", "psutil", "yaml")
_LORA: Final = (*_TRAINING, "peft")
_SCORES: Final = ("torch", "scipy", "numpy")
_AGREEMENT: Final = (*_SCORES, *_FILES, "accelerate", "safetensors", "psutil", "yaml")
_STEPS: Final = ("torch", "numpy", "scipy", "accelerate", *_TRAINING)
_ENCODING: Final = ("torch", "transformers", "scipy", *_FILES)

SAMPLED_IN: Final = {
    "sd_v1_5": "fp32", "sd_v2_1": "fp32", "radedit": "fp32", "llm_cxr": "fp32",
    "pixart_sigma": "fp16", "sana": "fp16", "sd_v3_5": "fp16",
    "lumina_2": "bf16", "flux_1_dev": "bf16",
}  # fmt: skip
"""The precision of config.yaml that `sample:MODEL` measures; the others have parts of their own."""

TRAINING_GIB: Final = {
    "sd_v1_5": 12.5, "sd_v2_1": 13, "pixart_sigma": 15, "sana": 11, "sd_v3_5": 14.5,
    "lumina_2": 9.5, "flux_1_dev": 32,
}  # fmt: skip
"""Weights, gradients and optimiser states of training, rounded down (`tests.gpu.count --table`)."""

HALF_GIB: Final = {
    "sd_v1_5": 1.8, "sd_v2_1": 2.2, "radedit": 1.8, "llm_cxr": 5, "pixart_sigma": 10, "sana": 6,
    "sd_v3_5": 14, "lumina_2": 9.5, "flux_1_dev": 31,
}  # fmt: skip
"""Weights of sampling in half precision, rounded down; float32 takes twice as much."""

PRECISIONS: Final = ("fp32", "fp16", "bf16")
ENCODERS: Final = (
    "rad_dino", "reid", "cxas", "biovil_t_image", "biovil_t_text", "densenet_121", "inception_v3",
)  # fmt: skip

ADAPTED: Final = ("flux_1_dev", "sd_v3_5", "lumina_2")


@dataclass(frozen=True)
class Machine:
    """What a machine has that parts may need.

    Attributes:
        gpus: how many GPUs there are.
        memory_gib: memory of the smallest of them.
    """

    gpus: int
    memory_gib: float


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        name: `subject` or `subject:model`.
        limit: seconds after which it is ended.
        needs: packages without which it is left out.
        module: of `tests.gpu`, imported in the part's own process.
        work: function there, called with `before`, device, tiny, say, `after`.
        before: first arguments.
        after: last arguments.
        gpus: how many GPUs it needs.
        memory_gib: GPU memory that it certainly takes: weights, and in training gradients and
            optimiser states, by preflight/gpu_memory.py. Activations come on top.
    """

    name: str
    limit: float
    needs: tuple[str, ...]
    module: str
    work: str
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()
    gpus: int = 1
    memory_gib: float = 0

    def missing(self) -> list[str]:
        """Return the packages that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def lacking(self, machine: Machine | None) -> list[str]:
        """Return all that it needs and lacks, for readers.

        Args:
            machine: what there is; None on a CPU, where the networks are tiny and gloo connects
                processes.
        """
        found = [f"no {name}" for name in self.missing()]
        if machine is not None and machine.gpus < self.gpus:
            found.append(f"needs {self.gpus} GPUs, and there is {machine.gpus}")
        if machine is not None and machine.memory_gib < self.memory_gib:
            found.append(
                f"needs {self.memory_gib:g} GiB of a GPU's memory at least, and it has "
                f"{machine.memory_gib:.0f}"
            )
        return found

    def load(self) -> Callable[..., None]:
        """Return what does the work on (device, tiny, say)."""
        found = getattr(importlib.import_module(f"tests.gpu.{self.module}"), self.work)

        @functools.wraps(found)
        def work(device: Any, tiny: bool, say: Any) -> None:
            found(*self.before, device, tiny, say, *self.after)

        return work


def _training(model: str, limit: float) -> Part:
    needs = _LORA if model in ADAPTED else _TRAINING
    name, memory = f"train:{model}", TRAINING_GIB[model]
    return Part(name, limit, needs, "training", "time_training", (model,), memory_gib=memory)


def _sampling(model: str, limit: float, precision: str | None = None) -> Part:
    needs = _LORA if model in ADAPTED else _TRAINING
    name = f"sample:{model}" + (f":{precision}" if precision else "")
    after = (precision,) if precision else ()
    memory = HALF_GIB[model] * (2 if (precision or SAMPLED_IN[model]) == "fp32" else 1)
    if model == "llm_cxr":
        work = ("answering", "time_llm_cxr")
        return Part(name, limit, needs, *work, after=after, memory_gib=memory)
    work = ("sampling", "time_sampling")
    return Part(name, limit, needs, *work, (model,), after, memory_gib=memory)


def _encoding(name: str, limit: float = 40, precision: str | None = None) -> Part:
    named = f"encode:{name}" + (f":{precision}" if precision else "")
    after = (precision,) if precision else ()
    if name == "biovil_t_text":
        return Part(named, 20, _ENCODING, "encoding", "time_captions", after=after)
    return Part(named, limit, _ENCODING, "encoding", "time_encoding", (name,), after)


def _reporting(stage: str) -> Part:
    work = ("reporting", "time_report_training")
    return Part(f"report:{stage}", 60, _LORA, *work, (stage,), memory_gib=13)


def _switches(kind: str, subject: str, limit: float) -> Part:
    """Switches of speed of `train`, `sample` or `encode`, beside none."""
    work = {"train": "training", "sample": "sampling", "encode": "encoding"}[kind]
    needs = (*_ENCODING, *_LORA)
    name = f"switch:{kind}:{subject}"
    return Part(name, limit, needs, "switching", f"time_{work}_switches", (subject,))


PARTS: Final = (
    Part("hardware", 20, ("torch",), "hardware", "measure_ceilings"),
    # The rates of the plan: first those that most of a run's hours hang on, and those that are
    # measured in seconds and stand in every model's row.
    _training("sd_v1_5", 60),
    _sampling("sd_v1_5", 75),
    _training("flux_1_dev", 90),
    _sampling("flux_1_dev", 75),
    Part("classify", 30, _STEPS, "downstream", "time_classifier"),
    Part("unet", 30, (*_STEPS, "monai"), "downstream", "time_segmenter"),
    _encoding("rad_dino"),
    _encoding("reid"),
    _encoding("cxas"),
    _encoding("biovil_t_image"),
    _encoding("biovil_t_text"),
    Part("read:chexbert", 30, _TRAINING, "downstream", "time_chexbert"),
    Part("report:write", 75, _TRAINING, "reporting", "time_report_writing", memory_gib=13),
    _reporting("adapter"),
    _reporting("projector"),
    *(_training(model, 60) for model in ("sd_v3_5", "pixart_sigma", "sana", "lumina_2")),
    *(_sampling(model, 60) for model in ("sd_v3_5", "pixart_sigma", "sana", "lumina_2")),
    _training("sd_v2_1", 60),
    _sampling("sd_v2_1", 75),
    _sampling("radedit", 75),
    _sampling("llm_cxr", 75),
    Part("read:green", 90, _TRAINING, "downstream", "time_green", memory_gib=12.5),
    Part("judge", 30, _STEPS, "looking", "time_judging"),
    Part("reid", 30, _STEPS, "looking", "time_reid_training"),
    # DenseNet-121 judges, too.
    _encoding("densenet_121"),
    Part("search", 60, _SCORES, "searching", "time_search"),
    Part("likeness", 40, (*_SCORES, *_FILES), "searching", "time_likeness", memory_gib=3.6),
    # Whether the GPU's numbers are the CPU's.
    Part("agree:scores", 60, _AGREEMENT, "agreement", "compare_scores"),
    Part("agree:losses", 40, _TRAINING, "agreement", "compare_losses"),
    Part("agree:features", 40, (*_AGREEMENT, "transformers"), "agreement", "compare_features"),
    Part("resume", 40, _TRAINING, "resuming", "compare_resumed"),
    # What could be faster.
    _switches("train", "sd_v1_5", 240),
    _switches("train", "flux_1_dev", 240),
    _switches("sample", "sd_v1_5", 240),
    _switches("sample", "flux_1_dev", 240),
    _switches("train", "sana", 180),
    *(_switches("encode", name, 90) for name in ("rad_dino", "densenet_121", "reid")),
    _encoding("inception_v3"),
    # Sampling and extraction in the precisions that config.yaml does not have.
    *(
        _sampling(model, 60, precision)
        for model, own in SAMPLED_IN.items()
        for precision in PRECISIONS
        if precision != own
    ),
    *(_encoding(name, 40, precision) for name in ENCODERS for precision in PRECISIONS[1:]),
    Part("together", 120, _TRAINING, "together", "compare_together", gpus=2),
    Part("together:sampling", 120, _TRAINING, "together", "compare_sampling", gpus=2),
)
