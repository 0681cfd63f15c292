"""Whether a disturbed run has the same results as an undisturbed one."""

from pathlib import Path
from typing import Final

import h5py
import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from tests.cluster.cluster import Cluster
from tests.cluster.snakemake_runs import Job, Run

MODEL: Final = "tiny_sd_lora"
TUNED: Final = f"results/finetune/{MODEL}/training.csv"
SHARD: Final = f"results/generate/{MODEL}/test/part-00000-of-00001.parquet"
FEATURES: Final = f"results/features/{MODEL}/test/rad_dino.h5"


def start_training(cluster: Cluster, folder: Path, *flags: str) -> tuple[Run, Job]:
    """Start fine-tuning anew; return once it has written a checkpoint."""
    run = Run(cluster, folder, Path("fitted"), TUNED, flags=flags)
    job = run.job("finetune_train")
    progress = folder / f"results/finetune/{MODEL}/.progress"
    run.until(lambda: any(progress.glob("attempt-*/step-*")), 600, "a checkpoint")
    return run, job


def assert_same_tuning(folder: Path, reference: Path) -> None:
    name = "pytorch_lora_weights.safetensors"  # its header lists in any order
    left, right = (
        load_file(root / f"results/finetune/{MODEL}/checkpoint" / name)
        for root in (folder, reference)
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert (folder / TUNED).read_bytes() == (reference / TUNED).read_bytes()


def assert_same_images(folder: Path, reference: Path, name: str) -> None:
    """Compare images and captions byte for byte; a shard's metadata may name another job."""
    assert pq.read_table(folder / name).equals(pq.read_table(reference / name))


def assert_same_features(folder: Path, reference: Path, name: str) -> None:
    with h5py.File(folder / name) as left, h5py.File(reference / name) as right:
        assert set(left) == set(right)
        for key in left:
            assert np.array_equal(left[key][()], right[key][()]), key


def assert_went_on(folder: Path, reference: Path) -> None:
    """Assert that fine-tuning continued, with the result of an undisturbed run."""
    assert "continuing at" in (folder / f"logs/finetune/{MODEL}/span_1.log").read_text()
    assert_same_tuning(folder, reference)
