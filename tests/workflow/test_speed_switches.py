"""Switches of speed reach the scripts that they are for, and no other."""

import re

import pytest

from tests.workflow.checkouts import make_checkout, run
from tests.workflow.stubs import make_stub_sources, write_overlay


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """What a dry run of two models would run, the switches of one of them set."""
    checkout = make_stub_sources(make_checkout(tmp_path_factory.mktemp("switches")))
    switches = {
        "finetune": {"compile": "blocks", "optimiser": "fused"},
        "generate": {"channels_last": True},
    }
    overlay = {
        "run_models": ["sd_v1_4", "sd_v1_5"],
        "models": {"sd_v1_5": {"speed": switches}},
        "encoders": {"rad_dino": {"speed": {"attention": "math"}}},
    }
    flags = write_overlay(checkout, overlay)
    done = run(["snakemake", "--dry-run", "--printshellcmds", *flags], checkout)
    return re.findall(r"python -m [^\n]*|accelerate[^\n]*", done.stdout)


def of(commands, script, what):
    return [one for one in commands if script in one and what in one]


def test_switches_reach_their_scripts(commands):
    for model, tuned, sampled in (
        ("sd_v1_5", "--speed compile=blocks --speed optimiser=fused", "--speed channels_last=true"),
        ("sd_v1_4", None, None),
    ):
        for script, wanted in (("finetune.train", tuned), ("generate.sample", sampled)):
            found = of(commands, script, f"--model {model} ")
            assert found, (script, model)
            assert all((wanted in one) if wanted else ("--speed" not in one) for one in found)
    embedding = of(commands, "features.extract", "--encoder rad_dino=")
    assert embedding
    assert all("--speed rad_dino.attention=math" in one for one in embedding)
