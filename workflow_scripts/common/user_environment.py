"""Environment variables that change what jobs compute, whoever set them and why.

accelerate, cuBLAS, cuDNN, oneDNN and torch read dozens of them, and a shell may have some from
another project: `ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4` divides every gradient by four.
Variables that change the arithmetic are removed before any library reads them (the package does so
when it is imported). Variables that a site may need are kept and recorded in the provenance of
every record.
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
"""Variables of the recorded families that change no number: paths, logs, a launcher's settings."""


def remove_from(environment: MutableMapping[str, str]) -> list[str]:
    """Remove the variables that change the arithmetic; return the names to report, sorted.

    In a process that accelerate's launcher started, the launcher's own variables are removed but
    not reported: the scripts set the same values by arguments.
    """
    found = sorted(
        name for name in environment if name in _REMOVED or name.startswith(_REMOVED_FAMILIES)
    )
    for name in found:
        del environment[name]
    launched = "TORCHELASTIC_RUN_ID" in environment
    return [name for name in found if not (launched and name.startswith("ACCELERATE_"))]


def recorded_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to record: they may change a last digit. Paths are left out."""
    families = (*_RECORDED_FAMILIES, *_RECORDED_FAMILIES_OF_CPUS)
    return {
        name: "a path" if os.sep in value else value
        for name, value in sorted(environment.items())
        if (name in _RECORDED or name.startswith(families)) and not name.startswith(_SILENT)
    }


REMOVED: Final = tuple(remove_from(os.environ))
"""Variables that were set when this process started and have been removed."""

KEPT: Final = recorded_of(os.environ)
"""Variables that were set at the start and may change a last digit; libraries set more later."""
