"""Environment variables of a user's shell change no number of a job."""

import os
import subprocess
import sys

import torch

from workflow_scripts.common.devices import accelerator_on
from workflow_scripts.common.user_environment import remove_from

SET = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "NVIDIA_TF32_OVERRIDE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
}
KEPT = {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":16:8"}


def test_what_changes_the_arithmetic_is_gone_before_any_library_is_imported():
    code = (
        "import os, sys, workflow_scripts\n"
        "found = sorted(os.environ)\n"  # a script may import torch before anything of the package
        "assert 'torch' not in sys.modules\n"
        "from workflow_scripts.common.errors import run_script\n"
        "from workflow_scripts.common.records import provenance\n"
        "run_script(lambda: print(found, provenance({})['environment']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **SET, **KEPT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not any(name in done.stdout for name in SET)
    assert all(name in done.stdout for name in KEPT)
    assert "{'CUBLAS_WORKSPACE_CONFIG': ':16:8'" in done.stdout
    assert all(name in done.stderr for name in SET)  # and it is told what is not used
    assert not any(name in done.stderr for name in KEPT)


def test_what_accelerates_launcher_sets_is_removed_and_not_told():
    launched = {**SET, "TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}
    removed = remove_from(launched)
    assert launched == {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}
    assert removed == sorted(name for name in SET if not name.startswith("ACCELERATE_"))


def test_accelerate_is_set_by_its_arguments_alone(monkeypatch):
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    accelerator = accelerator_on(torch.device("cpu"))
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.mixed_precision == "no"
