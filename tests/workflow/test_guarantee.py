"""A tiny model is fine-tuned with a guarantee and canaries, audited, and stands in Table 24."""

import json
from importlib.resources import files

import pandas as pd
import pytest

from tests.workflow.checkouts import make_checkout, run, with_world
from workflow_scripts.common.records import read_record

pytestmark = [pytest.mark.workflow, pytest.mark.full]

MODEL = "tiny_private"
RECORD = f"results/privacy/guarantee/{MODEL}.json"
OVERLAYS = ("config.yaml", "profiles/demo/overlay.yaml", "tests/workflow/guarantee.yaml")


def test_the_statement_and_the_attack_stand_in_one_record(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    with_world(make_checkout(checkout))
    command = ["snakemake", "--profile", "profiles/demo", "--configfile", *OVERLAYS, "--"]
    run([*command, RECORD], checkout)
    folder = checkout / f"results/finetune/{MODEL}"
    said = json.loads((folder / "checkpoint/guarantee.json").read_text())
    assert 7.9 < said["epsilon"] <= 8
    assert said["seed_of_noise"] == "forgotten"
    assert not (folder / ".progress").exists(), "the secret is kept"
    canaries = pd.read_csv(folder / "canaries/canaries.csv")
    record = read_record(checkout / RECORD)
    assert record.get("guarantee_epsilon").value == said["epsilon"]
    assert record.get("guarantee_epsilon").n == said["patients"]
    assert record.get("audit_epsilon").value <= said["epsilon"]
    assert record.get("audit_epsilon_largest").n == len(canaries) == 12
    shown = (files("workflow_scripts.tables") / "specs/table24_guarantee.yaml").read_text()
    assert all(value.metric in shown for value in record.values)
