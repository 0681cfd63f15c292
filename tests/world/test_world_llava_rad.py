"""The world's LLaVA-Rad: published layouts, reproducible with any number of threads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from workflow_scripts.common.files import sha256_of
from workflow_scripts.downstream.report_generation.convert_llava_rad import PUBLISHED_FILES
from workflow_scripts.downstream.report_generation.layout import check_start
from workflow_scripts.world.tiny_llava_rad import CONVERTED, LLAVA_RAD, VICUNA, write_tiny_llava_rad


def build(out: Path, seed: int = 5) -> Path:
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (24, 96, 96), np.uint8)
    findings = (generator.random((24, 14)) < 0.3).astype(np.int8)
    wordings = [[f"Opacity number {i} is seen.", f"There is opacity {i}."] for i in range(24)]
    out.mkdir()
    summaries = ["opacity"] * 24
    indications = ["cough", None] * 12
    write_tiny_llava_rad(
        images, wordings, summaries, indications, findings, out, seed, effort=0.01, pieces=400
    )
    return out


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("weights") / "one")


def test_the_published_files_are_there_and_what_is_converted_is_whole(weights):
    assert {file.name for file in (weights / LLAVA_RAD).iterdir()} == set(PUBLISHED_FILES)
    assert {file.name for file in (weights / VICUNA).iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "tokenizer_config.json",
    }
    for name in ("base", "released"):
        check_start(weights / CONVERTED / name)
    assert sha256_of(weights / CONVERTED / "base") != sha256_of(weights / CONVERTED / "released")


def test_the_same_seed_gives_the_same_bytes_on_any_threads(weights, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again, other = build(tmp_path / "again"), build(tmp_path / "other", seed=6)
    finally:
        torch.set_num_threads(threads)
    assert sha256_of(again) == sha256_of(weights)
    assert sha256_of(other) != sha256_of(weights)
