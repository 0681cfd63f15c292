"""The part that the tasks' training scripts share: flags, devices, description of a run."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.devices import accelerator_on, check_bf16, device_name, pick_device
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import provenance
from workflow_scripts.common.settings import add_flags
from workflow_scripts.downstream.outcomes import write_outcomes


def train_parser(
    doc: str | None, arms: Sequence[str], settings: type[Any]
) -> argparse.ArgumentParser:
    """Return a parser of the flags that the `train` of every task has.

    Args:
        doc: the script's docstring.
        arms: the settings that the task has, such as `real_only`.
        settings: the class of the task's settings.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--setting", choices=arms, required=True)
    add("--model", required=True, help="key of the model; `real` without a model's images")
    add("--protocol", choices=PROTOCOLS, required=True)
    add("--manifest", type=Path, required=True)
    add("--prompts", type=Path, required=True, help="the augment prompt set")
    add("--shards", type=Path, nargs="*", default=[], help="the model's images")
    add_flags(parser, settings)
    add("--progress", type=Path, required=True, help="folder; removed at the end")
    add("--gpus", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, help="outcomes, Parquet")
    return parser


def accelerator_of(args: argparse.Namespace, mixed_precision: str = "no") -> Accelerator:
    """Return the accelerator of a training on the GPUs and threads that the job was given.

    Args:
        args: the flags of `train_parser`.
        mixed_precision: `no` or `bf16`.

    Raises:
        InputError: a GPU is missing, or has no bf16.
    """
    device = pick_device(args.gpus)
    torch.set_num_threads(args.threads)
    check_bf16(mixed_precision, device)
    return accelerator_on(device, mixed_precision)


def check_one_process(gpus: int, accelerator: Accelerator) -> None:
    """Check that a training on one GPU was not given several.

    Raises:
        InputError: there are more GPUs than processes.
    """
    if gpus > accelerator.num_processes:
        raise InputError(
            f"{gpus} GPUs were given to one process",
            "--gpus",
            "give --gpus 1: this network trains on one GPU within an hour",
        )


def noted_settings(
    args: argparse.Namespace, settings: Any, left_out: Collection[str]
) -> dict[str, Any]:
    """Return the settings on which a run's weights and outcomes depend, as JSON types.

    Args:
        args: the flags of `train_parser`.
        settings: the task's settings.
        left_out: names of settings that do not change results, or are noted in another way.
    """
    noted = {"setting": args.setting, "model": args.model, "protocol": args.protocol}
    return noted | {k: v for k, v in asdict(settings).items() if k not in left_out}


def described(
    args: argparse.Namespace, noted: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """Return the part of a run's description (see `outcomes.py`) that every task has."""
    return {
        "settings": noted,
        "setting": args.setting,
        "model": args.model,
        "protocol": args.protocol,
        "seed": noted["seed"],
        "provenance": provenance(noted, device_name(device)),
    }


def counted(training: np.ndarray, validation: np.ndarray, n_real: int) -> dict[str, int]:
    """Return the numbers of images of a run.

    Args:
        training: indices of the images to train on; the real ones come first.
        validation: indices of the images to validate on.
        n_real: number of real images in both.
    """
    return {
        "n_train": len(training),
        "n_train_real": int((training < n_real).sum()),
        "n_train_synthetic": int((training >= n_real).sum()),
        "n_validation": len(validation),
    }


def publish(path: Path, columns: Mapping[str, Any], run: dict[str, Any], attempt: Attempt) -> None:
    """Write the outcomes of a finished run and remove its progress.

    Args:
        path: the file to write.
        columns: see `write_outcomes`.
        run: the run's description.
        attempt: this process's attempt.

    Raises:
        InputError: another attempt took over; nothing is written.
    """
    attempt.check()
    write_outcomes(path, columns, run)
    attempt.end()
