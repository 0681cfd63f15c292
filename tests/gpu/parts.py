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

ADAPTED: Final = ("flux_1_dev", "sd_v3_5", "lumina_2")


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
    """

    name: str
    limit: float
    needs: tuple[str, ...]
    module: str
    work: str
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()

    def missing(self) -> list[str]:
        """Return the packages that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def load(self) -> Callable[..., None]:
        """Return what does the work on (device, tiny, say)."""
        found = getattr(importlib.import_module(f"tests.gpu.{self.module}"), self.work)

        @functools.wraps(found)
        def work(device: Any, tiny: bool, say: Any) -> None:
            found(*self.before, device, tiny, say, *self.after)

        return work


def _training(model: str, limit: float) -> Part:
    needs = _LORA if model in ADAPTED else _TRAINING
    return Part(f"train:{model}", limit, needs, "training", "time_training", (model,))


def _sampling(model: str, limit: float, precision: str | None = None) -> Part:
    needs = _LORA if model in ADAPTED else _TRAINING
    name = f"sample:{model}" + (f":{precision}" if precision else "")
    after = (precision,) if precision else ()
    return Part(name, limit, needs, "sampling", "time_sampling", (model,), after)


def _encoding(name: str, limit: float = 40) -> Part:
    return Part(f"encode:{name}", limit, _ENCODING, "encoding", "time_encoding", (name,))


def _reporting(stage: str) -> Part:
    return Part(f"report:{stage}", 60, _LORA, "reporting", "time_report_training", (stage,))


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
    Part("encode:biovil_t_text", 20, _ENCODING, "encoding", "time_captions"),
    Part("read:chexbert", 30, _TRAINING, "downstream", "time_chexbert"),
    Part("report:write", 75, _TRAINING, "reporting", "time_report_writing"),
    _reporting("adapter"),
    _reporting("projector"),
    *(_training(model, 60) for model in ("sd_v3_5", "pixart_sigma", "sana", "lumina_2")),
    *(_sampling(model, 60) for model in ("sd_v3_5", "pixart_sigma", "sana", "lumina_2")),
    _training("sd_v2_1", 60),
    _sampling("sd_v2_1", 75),
    _sampling("radedit", 75),
    Part("sample:llm_cxr", 75, _TRAINING, "answering", "time_llm_cxr"),
    Part("read:green", 90, _TRAINING, "downstream", "time_green"),
    Part("judge", 30, _STEPS, "looking", "time_judging"),
    Part("reid", 30, _STEPS, "looking", "time_reid_training"),
    # DenseNet-121 judges, too.
    _encoding("densenet_121"),
    Part("search", 60, _SCORES, "searching", "time_search"),
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
    _sampling("sd_v1_5", 40, "bf16"),
    _sampling("sd_v1_5", 40, "fp16"),
    _sampling("pixart_sigma", 40, "bf16"),
    _sampling("flux_1_dev", 60, "fp16"),
    Part("together", 120, _TRAINING, "together", "compare_together"),
    Part("together:sampling", 120, _TRAINING, "together", "compare_sampling"),
)
