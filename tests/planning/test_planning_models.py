"""Settings of scripts from a model's block: by hand, and for every model of config.yaml."""

import pytest

from workflow_scripts.planning.models import (
    ablation_settings,
    canonical,
    launcher,
    sampling_settings,
    training_settings,
    tuning,
)
from workflow_scripts.preflight.check import read_config

LORA = {
    "family": "sana",
    "base": "weights/sana",
    "parts": {"vae": "weights/vae"},
    "finetune": {
        "method": "lora",
        "learning_rate": 1e-4,
        "lora": {"rank": 32, "targets": ["q"]},
        "options": {"flow_shift": 3.0},
    },
    "generate": {"steps": 20, "options": {"solver": "dpm"}},
}
FULL = {
    "family": "stable_diffusion",
    "base": "weights/sd",
    "finetune": {"method": "full", "epochs": 2},
    "generate": {"steps": 50},
}
PUBLISHED = {"family": "radedit", "base": "weights/radedit", "generate": {"steps": 50}}


def test_training_has_the_base_and_lora_on_one_level():
    assert training_settings(LORA) == {
        "family": "sana",
        "base": "weights/sana",
        "part": {"vae": "weights/vae"},
        "method": "lora",
        "learning_rate": 1e-4,
        "lora_rank": 32,
        "lora_targets": ["q"],
        "option": {"flow_shift": 3.0},
    }
    assert training_settings(FULL)["method"] == "full"
    assert "option" not in training_settings(FULL)


def test_an_adapter_is_sampled_over_its_base_and_a_full_checkpoint_instead_of_it():
    adapted = sampling_settings(LORA, "tuned")
    assert (adapted["base"], adapted["lora"]) == ("weights/sana", "tuned")
    assert adapted["part"] == {"vae": "weights/vae"}
    assert (adapted["steps"], adapted["option"]) == (20, {"solver": "dpm"})
    assert "options" not in adapted
    whole = sampling_settings({**FULL, "parts": {"vae": "weights/vae"}}, "tuned")
    assert (whole["base"], whole["part"]) == ("tuned", {})
    assert "lora" not in whole
    for none in (None, []):
        assert sampling_settings(PUBLISHED, none)["base"] == "weights/radedit"


def test_models_that_differ_in_one_setting_are_an_ablation():
    lora = {**LORA["finetune"], "lora": {"rank": 64, "targets": ["q"]}}
    one = ablation_settings(LORA, "llava_rad")
    other = ablation_settings({**LORA, "finetune": lora}, "llava_rad")
    assert {name for name in one if one[name] != other[name]} == {"lora_rank"}
    assert "finetune" in one
    assert LORA["finetune"]["lora"] == {"rank": 32, "targets": ["q"]}, "the config is left as it is"
    assert ablation_settings({"family": "control", "control": {"kind": "noise"}}, "x") == {
        "control": "noise"
    }
    assert ablation_settings({"family": "external", "external": {}}, "x") == {}


def test_settings_compare_whatever_the_order_of_their_keys():
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical({"a": 1}) != canonical({"a": 1.5})


def test_tuning_is_written_as_in_table_11():
    assert [tuning(block) for block in (LORA, FULL, PUBLISHED)] == ["LoRA (r=32)", "FFT", "N/A"]
    assert tuning({"family": "control"}) == tuning({"family": "external"}) == "-"


def test_several_processes_start_through_accelerate_and_one_does_not():
    assert launcher(1) == "python -m"
    assert "--num_processes 4 " in launcher(4)
    assert launcher(4).endswith(" -m")


@pytest.mark.parametrize("model", read_config(["config.yaml"])["models"])
def test_every_model_of_the_paper_can_be_planned(model):
    block = read_config(["config.yaml"])["models"][model]
    ablation_settings(block, "llava_rad")
    if block.get("finetune"):
        assert training_settings(block)["family"] == block["family"]
    if block.get("generate"):
        assert sampling_settings(block, None)["base"] == block["base"]
