"""Switches of speed reach the scripts that they are for, and make nothing anew."""

import json
import re

import pytest

from tests.workflow.checkouts import make_checkout, run
from tests.workflow.stubs import make_stub_sources, write_overlay
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import SWITCHES, switches_of_config, switches_said
from workflow_scripts.features.extract import parse_arguments
from workflow_scripts.finetune import train
from workflow_scripts.generate import sample

CONFIG = {
    "models": {
        "sd_v1_5": {"speed": {"finetune": {"optimiser": "fused"}, "generate": {"compile": "x"}}},
        "sd_v1_4": {},
    },
    "encoders": {"rad_dino": {"weights": "w", "speed": {"attention": "math"}}, "reid": {}},
}


def test_the_environment_brings_them_to_whom_they_are_for(monkeypatch):
    monkeypatch.setenv(SWITCHES, switches_of_config(CONFIG))
    assert switches_said("models", "sd_v1_5")["finetune"] == {"optimiser": "fused"}
    assert switches_said("models", "sd_v1_4") == {}
    flags = ["--collection", "real", "--out", "o", "--purpose", "privacy", "--protocol", "sound"]
    flags += ["--progress", "p", "--shards", "m"]
    flags += ["--encoder", "rad_dino=a", "--encoder", "reid=b"]
    assert {name: s.chosen for name, s in parse_arguments(flags).speeds.items()} == {
        "rad_dino": {"attention": "math"}
    }
    by_hand = parse_arguments([*flags, "--speed", "reid.channels_last=true"])
    assert list(by_hand.speeds) == ["reid"]  # what is said by hand comes before
    assert switches_of_config({"models": {"a": {}}, "encoders": {}}) == ""
    monkeypatch.setenv(SWITCHES, "")
    assert switches_said("models", "sd_v1_5") == {}


def test_training_and_sampling_read_them(monkeypatch, tmp_path):
    """Unknown values are refused before anything is read, so the refusal shows who read them."""
    said = {"models": {"m": {"finetune": {"optimiser": "x"}, "generate": {"compile": "y"}}}}
    monkeypatch.setenv(SWITCHES, json.dumps(said))
    files = {"base": tmp_path, "manifest": tmp_path, "output": tmp_path, "progress": tmp_path}
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    numbers = ["--size", "64", "--batch-size", "1"]
    tuned = ["--learning-rate", "1", "--epochs", "1", "--per-device-batch-size", "1"]
    model = ["--model", "m", "--family", "stable_diffusion"]
    with pytest.raises(InputError, match="the switch optimiser is 'x'"):
        train.main([*model, *words, *numbers, *tuned])
    words[2:4] = ["--prompts", str(tmp_path)]
    with pytest.raises(InputError, match="the switch compile is 'y'"):
        sample.main([*model, *words, *numbers])


def test_no_command_changes(tmp_path_factory):
    """Snakemake makes anew what a command or a parameter has changed for: none may change."""
    checkout = make_stub_sources(make_checkout(tmp_path_factory.mktemp("switches")))
    run_models = {"run_models": ["sd_v1_4", "sd_v1_5"]}
    switches = {"finetune": {"compile": "blocks", "captions_ahead": True}}
    chosen = {
        "models": {"sd_v1_5": {"speed": switches}},
        "encoders": {"rad_dino": {"speed": {"attention": "math"}}},
    }
    commands = []
    for overlay in (run_models, run_models | chosen):
        flags = write_overlay(checkout, overlay)
        done = run(["snakemake", "--dry-run", "--printshellcmds", *flags], checkout)
        commands.append(re.findall(r"python -m [^\n]*|accelerate[^\n]*", done.stdout))
    trained = [one for one in commands[0] if "finetune.train" in one]
    assert len(trained) == 2
    kept = [sorted(c for c in found if "tables.report" not in c) for found in commands]
    assert kept[0] == kept[1]
