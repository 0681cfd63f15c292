"""Switches of speed: numbers stay, names of weights stay, and who cannot take one says so."""

import argparse
import dataclasses
import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.finetune.conftest import write_cohort
from tests.gpu.building import pipeline_for_training, train_settings
from tests.gpu.training import make_run
from workflow_scripts.common import speed as switches
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import (
    COMPUTING,
    TRAINING,
    Speed,
    adamw_flags,
    add_speed_flag,
    apply_speed,
    attend_with,
    check_kernel,
    check_speed,
    load_optimiser,
    plain_layout,
    speed_of,
)
from workflow_scripts.common.speed_record import speed_record
from workflow_scripts.finetune import captions
from workflow_scripts.finetune.families import family_names, get_family
from workflow_scripts.finetune.identity import run_identity
from workflow_scripts.finetune.train import finetune

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "allowed", "fault"),
    [
        ({"compil": "blocks"}, TRAINING, "no switch compil"),
        ({"captions_ahead": True}, COMPUTING, "no switch captions_ahead"),
        ({"compile": True}, TRAINING, "the switch compile is True"),
        ({"channels_last": 1}, TRAINING, "the switch channels_last is 1"),
        ({"attention": "fast"}, TRAINING, "the switch attention is 'fast'"),
    ],
)
def test_unknown_switches_and_values_are_refused(given, allowed, fault):
    with pytest.raises(InputError, match=fault):
        speed_of(given, allowed, "speed")
    assert speed_of({"compile": "blocks"}, allowed, "speed").chosen == {"compile": "blocks"}


def test_what_is_recorded_is_what_flags_would_say():
    speed = Speed(compile="blocks", channels_last=True)
    assert speed_record(speed) == {"speed": "channels_last=true compile=blocks"}
    parser = argparse.ArgumentParser()
    add_speed_flag(parser, TRAINING)
    words = [word for one in speed_record(speed)["speed"].split() for word in ("--speed", one)]
    assert speed_of(dict(parser.parse_args(words).speed), TRAINING, "--speed") == speed
    assert speed_record(Speed()) == {}


COMPILES = {"stable_diffusion", "radedit", "flux", "stable_diffusion_3", "pixart_sigma", "sana"}
CONVOLVES = {"stable_diffusion", "radedit"}
UNMASKED = {"stable_diffusion", "radedit", "flux", "stable_diffusion_3"}
ATTENDS = UNMASKED | {"pixart_sigma", "sana", "lumina2"}


@pytest.mark.parametrize("name", family_names())
def test_every_family_says_what_it_takes(name):
    takes = {
        Speed(compile="blocks"): COMPILES,
        Speed(compile="network"): COMPILES,
        Speed(channels_last=True): CONVOLVES,
        Speed(attention="math"): ATTENDS,
        Speed(attention="efficient"): ATTENDS,
        Speed(attention="flash"): UNMASKED,
        Speed(attention="cudnn"): UNMASKED,
    }
    for speed, able in takes.items():
        family = get_family(name)
        if name in able:
            check_speed(speed, family.takes, name, "cuda", "bfloat16")
        else:
            switch = next(iter(speed.chosen))
            with pytest.raises(InputError, match=f"{name} does not take the switch {switch}"):
                check_speed(speed, family.takes, name, "cuda", "bfloat16")


def test_kernels_are_refused_where_they_do_not_compute():
    takes = get_family("flux").takes
    with pytest.raises(InputError, match="flash: on a GPU this kernel computes in bfloat16"):
        check_speed(Speed(attention="flash"), takes, "flux", "cuda", "float32")
    with pytest.raises(InputError, match="efficient: a CPU has no such kernel"):
        check_speed(Speed(attention="efficient"), takes, "flux", "cpu", "float32")
    check_speed(Speed(attention="flash"), takes, "flux", "cpu", "float32")
    check_kernel(Speed(optimiser="fused"), "adamw")
    with pytest.raises(InputError, match="came does not take the switch optimiser fused"):
        check_kernel(Speed(optimiser="fused"), "came")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return x + torch.tanh(self.linear(x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([Block(), Block(), Block()])

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.full  # to import what draws graphs takes ten seconds
@pytest.mark.parametrize(("what", "graphs"), [("blocks", 1), ("network", 1)])
def test_blocks_are_compiled_once_for_all_and_weights_keep_their_names(what, graphs):
    torch._dynamo.reset()
    seen = []

    def backend(graph, _):
        seen.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    torch.manual_seed(0)
    network, x = Network(), torch.randn(2, 4)
    plain, names = network(x), list(network.state_dict())
    apply_speed(network, Speed(compile=what), backend)
    assert torch.allclose(network(x), plain, rtol=1e-6, atol=1e-7)
    network(x)
    assert len(seen) == graphs
    assert sum("tanh" in str(target) for target in seen[0]) == (1 if what == "blocks" else 3)
    assert list(network.state_dict()) == names
    torch._dynamo.reset()


def test_a_network_without_repeated_blocks_is_refused():
    with pytest.raises(InputError, match="Linear repeats no block"):
        apply_speed(nn.Linear(2, 2), Speed(compile="blocks"))


def test_attention_is_computed_by_the_kernel_that_is_chosen_and_only_there():
    class Attends(nn.Module):
        def forward(self, q):
            flags = torch.backends.cuda
            self.seen = (flags.flash_sdp_enabled(), flags.math_sdp_enabled())
            return nn.functional.scaled_dot_product_attention(q, q, q)

    network, q = Attends(), torch.randn(1, 2, 3, 4)
    plain = network(q)
    attend_with(network, Speed(attention="math"))
    assert torch.allclose(network(q), plain, atol=1e-6)
    assert network.seen == (False, True)
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(("before", "after"), [("auto", "fused"), ("fused", "auto")])
def test_an_optimiser_goes_on_with_another_kernel_and_layout(before, after):
    def made(kernel, layout):
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 3).to(memory_format=layout)
        return network, torch.optim.AdamW(
            network.parameters(), lr=0.1, **adamw_flags(Speed(optimiser=kernel))
        )

    def step(network, optimiser, number):
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(number))
        network(x).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    whole = made("auto", torch.contiguous_format)
    first = made(before, torch.contiguous_format)
    for number in range(4):
        step(*whole, number)
    for number in range(2):
        step(*first, number)
    other = made(after, torch.channels_last)
    other[0].load_state_dict(first[0].state_dict())
    load_optimiser(other[1], first[1].state_dict())
    assert bool(other[1].param_groups[0]["fused"]) == (after == "fused")
    state = other[1].state[other[0].weight]
    assert state["exp_avg"].stride() == other[0].weight.stride()
    for number in (2, 3):
        step(*other, number)
    for ours, theirs in zip(other[0].parameters(), whole[0].parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_captions_are_encoded_in_blocks_and_encoders_are_there_only_then(monkeypatch):
    # A copy on the CPU stands for one on a GPU.
    monkeypatch.setattr(captions, "_copied", lambda tensor, device: tensor.clone())
    encoder = nn.Linear(2, 2)
    host = encoder.weight.data_ptr()
    encoded, places = [], []

    def encode(step):
        encoded.append(step)
        places.append(encoder.weight.data_ptr())
        return [{"text": torch.full((10, 25), float(step))} for _ in range(2)]

    # A step's two passes are 2,000 bytes: two steps reach 4,000, and the run ends with step 7.
    ahead = captions.CaptionsAhead([encoder], encode, 8, CPU, most=4000)
    seen = []
    for step in range(3, 8):
        for number in (0, 1):
            seen.append(float(ahead.of(step, number)["text"][0, 0]))
            assert encoder.weight.data_ptr() == host
        assert len(encoded) == {3: 2, 4: 2, 5: 4, 6: 4, 7: 5}[step]
    assert seen == [3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    assert encoded == [3, 4, 5, 6, 7]
    assert host not in places
    assert ahead.block == 1


def losses_of(model, tmp_path, speed, steps=2, **changed):
    """Return the losses of a tiny model's first steps in float32, and what ran."""
    torch.manual_seed(0)
    settings = dataclasses.replace(
        train_settings(model, tiny=True),
        mixed_precision="no",
        learning_rate=1e-3,
        batch_size=4,
        caption_dropout=0.4,
        speed=speed,
        **changed,
    )
    pipeline = pipeline_for_training(model, CPU, tiny=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.float()
    run = make_run(model, pipeline, settings, CPU, tmp_path, steps=steps)
    for batch in run.batches():
        run.advance(batch)
    run.images.close()
    return [row[2] for row in run.curve], run


@pytest.mark.full
@pytest.mark.parametrize("model", ["flux_1_dev", "sd_v3_5", "pixart_sigma", "sana", "lumina_2"])
def test_captions_of_every_text_encoder_give_the_same_bits_ahead(model, tmp_path):
    whole, _ = losses_of(model, tmp_path, Speed())
    assert losses_of(model, tmp_path, Speed(captions_ahead=True))[0] == whole


@pytest.mark.full
@pytest.mark.parametrize(
    ("model", "speed"),
    [
        ("sd_v1_5", Speed(compile="blocks", channels_last=True, attention="math")),
        ("flux_1_dev", Speed(compile="blocks", attention="flash")),
        ("sd_v3_5", Speed(compile="blocks", attention="flash")),
        ("pixart_sigma", Speed(compile="blocks", attention="math")),
        ("sana", Speed(compile="blocks", attention="math")),
        ("lumina_2", Speed(attention="math")),
    ],
)
def test_losses_stay_where_a_switch_is_on(model, speed, tmp_path, monkeypatch):
    monkeypatch.setattr(switches, "BACKEND", "aot_eager")  # a compiler takes minutes on a CPU
    torch._dynamo.reset()
    whole, _ = losses_of(model, tmp_path, Speed())
    found, _ = losses_of(model, tmp_path, speed)
    assert found == pytest.approx(whole, rel=1e-5)
    torch._dynamo.reset()


@pytest.mark.full
def test_inductor_compiles_where_there_is_a_compiler():
    torch._dynamo.reset()
    network, x = Network(), torch.randn(2, 4)
    plain = network(x)
    apply_speed(network, Speed(compile="blocks"))
    assert torch.allclose(network(x), plain, rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


def test_a_checkpoint_trained_with_switches_is_the_one_without(
    tiny_sd, two_images, settings, tmp_path
):
    """Saved weights lie as they always do; a run's progress is continued whatever the switches."""
    manifest = write_cohort(tmp_path, two_images)
    family, base = get_family("stable_diffusion"), tiny_sd[1]
    fast = Speed(channels_last=True, optimiser="fused", captions_ahead=True, attention="math")
    weights, curves = {}, {}
    for name, speed in (
        ("plain", Speed()),
        ("ahead", Speed(captions_ahead=True)),
        ("fast", fast),
    ):
        chosen = settings(
            epochs=4, batch_size=2, per_device_batch_size=2, caption_dropout=0.4, speed=speed
        )
        finetune(family, base, manifest, tmp_path / name, tmp_path / f"p_{name}", chosen)
        file = tmp_path / name / "checkpoint/unet/diffusion_pytorch_model.safetensors"
        weights[name] = load_file(file)
        curves[name] = (tmp_path / name / "training.csv").read_text()
    weights["start"] = load_file(base.folder / "unet/diffusion_pytorch_model.safetensors")

    def away(name):
        pairs = [(value, weights[name][key]) for key, value in weights["plain"].items()]
        return sum(float((a - b).square().sum()) for a, b in pairs)

    assert away("start") > 0
    assert away("fast") < 1e-6 * away("start")
    kept = {
        name: json.loads((tmp_path / name / "span.json").read_text())["provenance"]
        for name in curves
    }
    on = "attention=math captions_ahead=true channels_last=true optimiser=fused"
    assert kept["fast"]["speed"] == on
    assert kept["plain"].keys() == kept["fast"].keys() - {"speed"}
    assert kept["fast"]["settings_sha256"] == kept["plain"]["settings_sha256"]
    assert away("ahead") == 0  # captions encoded ahead are the same to the last bit
    assert curves["ahead"] == curves["plain"]


def test_a_switch_is_no_part_of_what_a_checkpoint_was_made_with(toy, settings):
    rows = pd.DataFrame({"image_id": ["a"], "path": ["a"], "caption": ["a"]})
    files = toy.family.check(toy.base)

    def identity(speed):
        return run_identity(toy.family, 1, files, toy.base, rows, settings(speed=speed), CPU)

    assert identity(Speed()) == identity(Speed(compile="blocks", optimiser="fused"))
    assert "speed" not in identity(Speed())


def test_training_refuses_a_switch_before_anything_is_loaded(toy, train_toy):
    toy.family.load = None
    with pytest.raises(InputError, match="the family toy does not take the switch compile blocks"):
        train_toy(speed=Speed(compile="blocks"))


def test_what_is_written_lies_as_without_switches():
    speed = Speed(channels_last=True)
    network = nn.Conv2d(3, 4, 3)
    plain = network.weight.detach().clone()
    apply_speed(network, speed)
    assert not network.weight.is_contiguous()
    with plain_layout(network, speed):
        assert network.weight.is_contiguous()
    assert not network.weight.is_contiguous()
    assert torch.equal(network.weight, plain)
