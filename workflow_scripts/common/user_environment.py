"""Environment variables that change what jobs compute, whoever set them and for what.

accelerate, cuBLAS, cuDNN, oneDNN and torch read dozens of them, and a shell may have them from
another project: `ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4` divides every gradient by four. What
changes the arithmetic is removed before any library sees it (the package does so when it is
imported); what a site may have reasons for stays, and stands in the provenance of every record.
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Final

_REMOVED_FAMILIES: Final = (
    *("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_"),
    *("PYTORCH_TUNABLEOP_", "DIFFUSERS_ATTN_"),
)
_REMOVED: Final = frozenset(
    {
        "NVIDIA_TF32_OVERRIDE",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "TORCH_BLAS_PREFER_CUBLASLT",
        "DISABLE_ADDMM_CUDA_LT",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "DNNL_DEFAULT_FPMATH_MODE",
        "CUBLAS_EMULATE_SINGLE_PRECISION",
        "CUBLAS_EMULATE_DOUBLE_PRECISION",
        "CUBLAS_EMULATION_STRATEGY",
    }
)
_RECORDED_FAMILIES: Final = ("TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "CUBLAS", "CUDNN_")
_RECORDED_FAMILIES_OF_CPUS: Final = ("ONEDNN_", "DNNL_", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")
_RECORDED: Final = frozenset({"ATEN_CPU_CAPABILITY"})
_SILENT: Final = ("TORCH_HOME", "TORCH_LOGS", "TORCH_NCCL_", "TORCH_CPP_LOG_LEVEL")
"""Of the recorded families, what changes no number: places, logs, and what a launcher sets."""


def remove_from(environment: MutableMapping[str, str]) -> list[str]:
    """Remove the variables that change the arithmetic; return the names to tell, sorted.

    In a process that accelerate's launcher started, its own are not told: it sets some for every
    process, to what they are told anyhow.
    """
    found = sorted(
        name for name in environment if name in _REMOVED or name.startswith(_REMOVED_FAMILIES)
    )
    for name in found:
        del environment[name]
    launched = "TORCHELASTIC_RUN_ID" in environment
    return [name for name in found if not (launched and name.startswith("ACCELERATE_"))]


def recorded_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that may change a last digit and stay; a path is not told."""
    families = (*_RECORDED_FAMILIES, *_RECORDED_FAMILIES_OF_CPUS)
    return {
        name: "a path" if os.sep in value else value
        for name, value in sorted(environment.items())
        if (name in _RECORDED or name.startswith(families)) and not name.startswith(_SILENT)
    }


REMOVED: Final = tuple(remove_from(os.environ))
"""What this process was started with and does without."""

KEPT: Final = recorded_of(os.environ)
"""What it was started with that may change a last digit; libraries set more for themselves."""
