"""An encoder from outside: one file and its block of the config, and fidelity compares in it."""

import json
import os
import subprocess
import sys

import h5py
import pytest
import yaml

from tests.workflow.checkouts import make_checkout, run
from tests.workflow.plans import Plan
from tests.workflow.stubs import make_stub_sources

ENCODER = '''
"""Mean gray in four quarters, times the weight in a file."""

import numpy as np
import torch

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import Takes


class Quarters:
    name = "quarters"
    reads = "image"
    takes = Takes()
    dimension = 4
    preprocessing = "mean gray in four quarters"
    computes = None

    def __init__(self, weight):
        self.weight = weight
        self.extras = {}

    def prepare(self, source):
        gray = torch.from_numpy(np.asarray(source.convert("L"), dtype=np.float32))
        return torch.nn.functional.adaptive_avg_pool2d(gray[None], 2).flatten()

    def encode(self, batch):
        return torch.stack(list(batch)).numpy() * self.weight


def files(weights):
    return [weights]


def check(weights):
    if not weights.is_file():
        raise InputError("no weights", weights)


def load(weights, device, switches, purpose):
    return Quarters(np.float32(weights.read_text()))
'''


@pytest.mark.full  # it copies the code, plans the paper's config and starts a Python of its own
def test_an_encoder_is_one_file_and_its_block(shards, tmp_path):
    checkout = make_stub_sources(make_checkout(tmp_path / "checkout"))
    (checkout / "workflow_scripts/features/encoders/quarters.py").write_text(ENCODER)
    weights = tmp_path / "quarters.txt"
    weights.write_text("0.5")
    overlay = {
        "encoders": {"quarters": {"weights": str(weights)}},
        "fidelity": {"encoders": ["rad_dino", "quarters"]},
    }
    (checkout / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    flags = ["--dry-run", "--printshellcmds", "--configfile", "config.yaml", "overlay.yaml"]
    plan = Plan(checkout, run(["snakemake", *flags], checkout).stdout)
    assert "results/fidelity/quarters/sana.json" in plan.outputs
    assert "results/features/sana/test/quarters.h5" in plan.outputs
    given = [f"quarters={weights}" in words for words in plan.commands("features.extract")]
    assert any(given)
    assert not all(given)  # privacy's features are none of its business

    out = tmp_path / "features"
    words = ["--collection", "mine", "--shards", *map(str, shards), "--out", str(out)]
    words += ["--encoder", f"quarters={weights}", "--purpose", "fidelity", "--protocol", "sound"]
    words += ["--progress", str(tmp_path / "progress")]
    subprocess.run(
        [sys.executable, "-m", "workflow_scripts.features.extract", *words],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        check=True,
    )
    with h5py.File(out / "quarters.h5") as file:
        assert file["features"].shape[1] == 4
        assert json.dumps(file.attrs["encoder"]) == '"quarters"'
