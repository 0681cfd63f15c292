"""GPU memory of jobs, compared with values by hand, and its refusal if it cannot fit."""

import argparse
import logging
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.generate.conftest import checkpoint  # noqa: F401
from tests.gpu.count import Kept, published_phases
from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.families import get_family
from workflow_scripts.preflight import check
from workflow_scripts.preflight.check import check_model, parse_memory, read_config
from workflow_scripts.preflight.gpu_memory import (
    Activations,
    Parts,
    activations_of,
    check_fits,
    read_counted,
    sampling_phase,
    table,
    training_phases,
)
from workflow_scripts.preflight.profiles import FINETUNE_GPUS, read_profile

ROOT = Path(__file__).resolve().parents[2]
CONFIG = read_config([str(ROOT / "config.yaml")])
PARTS = Parts(1000, {"text_encoder": 100, "text_encoder_2": 300}, 10, 1000)
FULL = {
    "method": "full",
    "mixed_precision": "bf16",
    "per_device_batch_size": 4,
    "batch_size": 128,
}


def test_full_fine_tuning_by_hand():
    encoding, steps = training_phases(PARTS, FULL, False, Activations(1e-9, 2e-9))
    # Text encoders and autoencoder in bf16, the network in float32.
    assert encoding.least == 2 * 400 + 2 * 10 + 4 * 1000
    # The autoencoder has left the GPU; gradients and two moments are added.
    assert steps.certain == {
        "text_encoder": 200, "text_encoder_2": 600, "network": 4000, "gradients": 4000,
        "optimiser": 8000,
    }  # fmt: skip
    assert steps.estimated == pytest.approx({"autocast's copies": 2000, "activations": 9})
    assert steps.whole
    assert not encoding.whole
    (_, came) = training_phases(PARTS, FULL | {"optimiser": "came"}, True)
    assert came.certain["optimiser"] == 4000
    (plain, _) = training_phases(PARTS, FULL | {"mixed_precision": "no"}, True)
    assert plain.least == 4 * (1000 + 400 + 10)


def test_text_encoders_leave_where_captions_are_encoded_ahead():
    one, two, three = training_phases(
        PARTS, FULL, False, Activations(1e-9, 2e-9), captions_ahead=True
    )
    assert one.certain == {"autoencoder": 20, "network": 4000}
    assert two.certain == {
        "text_encoder": 200, "text_encoder_2": 600, "network": 4000, "gradients": 4000,
        "optimiser": 8000,
    }  # fmt: skip
    assert three.certain == {"network": 4000, "gradients": 4000, "optimiser": 8000}
    assert three.estimated == pytest.approx({"autocast's copies": 2000, "activations": 9})


def test_an_adapter_by_hand():
    parts = Parts(1000, {"text_encoder": 100}, 10, 50)
    tuned = FULL | {"method": "lora", "ema_decay": 0.99}
    _, steps = training_phases(parts, tuned, True)
    assert steps.certain == {
        "text_encoder": 200, "network": 2000, "adapter": 200, "gradients": 200, "optimiser": 400,
        "moving average": 200,
    }  # fmt: skip
    assert sampling_phase(parts, "fp16", True).least == 2 * 1100 + 4 * 10


def test_parts_are_counted_in_a_checkpoint(checkpoint):  # noqa: F811
    tuned = dict(CONFIG["models"]["sd_v1_4"]["finetune"], size=32)
    block = {"family": "stable_diffusion", "base": str(checkpoint), "finetune": tuned}

    def numbers(file):
        return sum(value.numel() for value in load_file(checkpoint / file).values())

    unet = numbers("unet/diffusion_pytorch_model.safetensors")
    parts = check_model(checkpoint, block, {"finetune"}).parts
    assert (parts.network, parts.trained) == (unet, unet)
    assert parts.autoencoder == numbers("vae/diffusion_pytorch_model.safetensors")
    assert parts.texts == {"text_encoder": numbers("text_encoder/model.safetensors")}
    lora = {"rank": 2, "alpha": 2, "rslora": True, "targets": ["attention"]}
    adapted = block | {"finetune": tuned | {"method": "lora", "lora": lora}}
    parts = check_model(checkpoint, adapted, {"finetune"}).parts
    assert parts.network == unet
    assert 0 < parts.trained < unet


def test_preflight_refuses_what_no_gpu_can_hold(checkpoint):  # noqa: F811
    tuned = dict(CONFIG["models"]["sd_v1_4"]["finetune"], size=32)
    sampled = dict(CONFIG["models"]["sd_v1_4"]["generate"], size=32)
    block = {"family": "stable_diffusion", "base": str(checkpoint)}
    block |= {"finetune": tuned, "generate": sampled}
    config = {**CONFIG, "models": {"m": block}, "run_models": ["m"]}

    def faults(**memory):
        checks = check.preflight(config, {"finetune", "generate"}, {"m"}, 1, memory)
        named = {one.what: one.fault for one in checks if "memory" in one.what}
        return {what: str(fault) for what, fault in named.items() if fault}, set(named)

    by_place, named = faults(finetune=80, generate=80)
    assert by_place == {}
    assert named == {"models.m.finetune, a GPU's memory", "models.m.generate, a GPU's memory"}
    by_place, _ = faults(finetune=1e-6, generate=80)
    assert list(by_place) == ["models.m.finetune, a GPU's memory"]
    assert "each GPU needs at least" in next(iter(by_place.values()))
    assert faults()[1] == set()  # a profile that does not state the memory of its GPUs


def test_the_check_reads_a_profiles_gpus(tmp_path):
    a100, h200 = (read_profile(ROOT / f"profiles/slurm_{kind}") for kind in ("a100", "h200"))
    assert a100.gpu_memory == {"finetune": 80, "generate": 80}
    assert h200.gpu_memory == {"finetune": 141, "generate": 141}
    rule = (ROOT / "rules/finetune.smk").read_text().split("checkpoint finetune_train:")[1]
    gpus = int(re.search(r"\bgpu=(\d+)", rule)[1])
    assert a100.devices == h200.devices == FINETUNE_GPUS == gpus
    demo = read_profile(ROOT / "profiles/demo")
    assert (demo.gpu_memory, demo.devices) == ({}, None)
    assert demo.config == ("config.yaml", "profiles/demo/overlay.yaml")
    with pytest.raises(InputError, match="the profile does not exist"):
        read_profile(tmp_path)
    (tmp_path / "config.yaml").write_text("__use_yte__: true\nset-resources: ?nothing\n")
    with pytest.raises(InputError, match="not a profile"):
        read_profile(tmp_path)


def test_the_check_compares_models_with_the_profile_that_is_named(monkeypatch):
    asked = []

    def preflight(config, stages, models, devices, memory, prompts):
        asked.append((devices, memory))
        return []

    monkeypatch.setattr(check, "preflight", preflight)
    monkeypatch.chdir(ROOT)
    check.main(["--profile", "profiles/slurm_a100"])
    by_hand = ["--devices", "1", "--gpu-memory", "generate=40"]
    check.main(["--profile", "profiles/slurm_a100", *by_hand])
    check.main([])
    assert asked == [
        (4, {"finetune": 80, "generate": 80}),
        (1, {"finetune": 80, "generate": 40}),
        (None, {}),
    ]


@pytest.mark.parametrize("devices", [1, None])  # none where no fine-tuning is planned
def test_preflight_refuses_switches_that_a_network_cannot_take(devices):
    models = {
        name: dict(CONFIG["models"][name], speed={"finetune": finetune, "generate": generate})
        for name, finetune, generate in (
            ("sana", {"optimiser": "fused"}, {"channels_last": True}),
            ("sd_v1_5", {"attention": "flash", "compile": "blocks"}, {"attention": "flash"}),
        )
    }
    encoders = CONFIG["encoders"] | {
        "reid": {"weights": "none", "speed": {"attention": "math"}},
        "rad_dino": {"weights": "none", "speed": {"compile": "blocks"}},
    }
    config = {**CONFIG, "models": models, "run_models": list(models), "encoders": encoders}
    checks = check.preflight(config, {"finetune", "generate", "features"}, set(models), devices)
    found = {one.what: str(one.fault or "") for one in checks if "speed" in one.what}
    assert "optimiser came_sana does not take" in found["models.sana.speed.finetune"]
    assert "family sana does not take the switch channels" in found["models.sana.speed.generate"]
    assert found["models.sd_v1_5.speed.finetune"] == ""  # trained in bf16, sampled in float32
    assert "bfloat16 and float16 alone" in found["models.sd_v1_5.speed.generate"]
    assert "encoder reid does not take the switch attention" in found["encoders.reid.speed"]
    assert found["encoders.rad_dino.speed"] == ""


def test_certain_is_refused_and_estimated_is_told():
    gibibyte = 2**30
    (steps,) = training_phases(Parts(gibibyte, {}, 0, gibibyte), FULL, False)[1:]
    assert steps.least == 16 * gibibyte
    assert check_fits([steps], 20, "models.x.finetune") == []  # 18 of 18.4
    (doubt,) = check_fits([steps], 19, "models.x.finetune")
    assert "models.x.finetune, steps: about 19 GB of a GPU's 19 GB" in doubt
    check_fits([steps], 16, "x")
    with pytest.raises(InputError, match="steps: each GPU needs at least 17 GB"):
        check_fits([steps], 15.9, "x")


def test_activations_hold_for_the_settings_they_were_counted_with():
    block = CONFIG["models"]["sd_v1_5"]
    activations = activations_of(block, "sd_v1_5")
    assert activations is not None
    fewer = block | {"finetune": block["finetune"] | {"per_device_batch_size": 2}}
    assert activations_of(fewer, "sd_v1_5") == activations  # they are per image
    for change in ({"gradient_checkpointing": False}, {"size": 1024}, {"mixed_precision": "no"}):
        other = block | {"finetune": block["finetune"] | change}
        assert activations_of(other, "sd_v1_5") is None
    assert all(one.fixed >= 0 and one.image > 0 for one in read_counted().values())


def test_flux_with_an_adapter_fits_80_gb_and_not_when_trained_in_full(caplog):
    phases = published_phases("flux_1_dev")
    _, steps, sampling = phases
    # 11.90 and 4.88 billion parameters in bf16, and 44.8 million of an adapter under training.
    assert steps.least / 1e9 == pytest.approx(2 * (11.90 + 4.885) + 0.0448 * 20, abs=0.05)
    assert steps.total < 0.92 * 80 * 2**30
    with caplog.at_level(logging.WARNING):
        assert check_fits(phases, 80, "x") == []
    assert "text_encoder" in sampling.certain
    assert "| adapter |" in table([("FLUX", phases)])
    parts = Parts(11_900_000_000, {}, 0, 11_900_000_000)
    with pytest.raises(InputError, match="each GPU needs at least 190 GB"):
        check_fits(training_phases(parts, FULL, False), 141, "x")


def test_kept_tensors_are_counted_once_and_blocks_one_at_a_time():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    kept = Kept([weight])
    x = torch.ones(2, 4)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda value: value):
        hidden = kept.block(lambda value: (value @ weight).sigmoid().sigmoid(), x)
        kept.block(lambda value: (value @ weight).sigmoid(), hidden)
    # Inputs of both blocks: 2 x 4 float32 each, kept in any case. The first block keeps the output
    # of its first sigmoid as well (that of its last is the second's input), the second its own.
    assert kept.peak(checkpointing=True) == 2 * 32 + 32
    assert kept.peak(checkpointing=False) == 2 * 32 + 32 + 32


@pytest.mark.parametrize("text", ["finetune", "finetune=", "train=80", "generate=-1", "generate=x"])
def test_memory_flags_are_checked(text):
    with pytest.raises(argparse.ArgumentTypeError, match="write finetune=GB"):
        parse_memory(text)
    assert parse_memory("generate=80") == ("generate", 80.0)


def test_the_encoder_leaves_once_all_images_are_encoded(tmp_path, monkeypatch):
    from accelerate.state import AcceleratorState

    from tests.gpu.building import pipeline_for_training, train_settings
    from tests.gpu.training import make_run
    from workflow_scripts.finetune import data

    AcceleratorState._reset_state(True)  # a process has one precision
    settings = train_settings("sd_v1_5", tiny=True)
    for memory, moved in ((2**30, ["cpu"]), (0, [])):
        pipeline = pipeline_for_training("sd_v1_5", torch.device("cpu"), tiny=True)
        monkeypatch.setattr(data, "ENCODED_IN_MEMORY", memory)
        places, plain = [], pipeline.vae.to
        get_family("stable_diffusion").place(pipeline, torch.device("cpu"))

        def note(*args, plain=plain, places=places, **named):
            places.append(args[0])
            return plain(*args, **named)

        monkeypatch.setattr(pipeline.vae, "to", note)
        monkeypatch.setattr(
            type(pipeline), "to", lambda self, *_: self
        )  # placing, which is no leaving
        run = make_run("sd_v1_5", pipeline, settings, torch.device("cpu"), tmp_path)
        assert places == moved
        run.advance(next(run.batches()))
        run.images.close()
    AcceleratorState._reset_state(True)
