"""Switches of speed of encoders: features stay, and who cannot take one says so."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.gpu.encoding import make_encoder
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.speed import Speed
from workflow_scripts.features.encoders import ENCODERS, check_encoder_speed, hasten
from workflow_scripts.features.extract import parse_arguments, speeds_of

CPU = torch.device("cpu")


def features(name, speed):
    torch.manual_seed(0)
    encoder = make_encoder(name, CPU, tiny=True)
    hasten(encoder, speed, "cpu")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (90, 80), dtype=np.uint8)) for _ in range(2)]
    return encoder.encode([encoder.prepare(image) for image in images])


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("rad_dino", Speed(attention="math")),
        ("rad_dino", Speed(attention="flash")),
        ("reid", Speed(channels_last=True)),
        ("biovil_t_image", Speed(channels_last=True)),
    ],
)
def test_features_stay_where_a_switch_is_on(name, speed):
    plain = features(name, Speed())
    away = np.linalg.norm(features(name, speed) - plain, axis=1)
    assert (away <= 1e-5 * np.linalg.norm(plain, axis=1)).all()


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "what"), [("rad_dino", "blocks"), ("reid", "network"), ("biovil_t_image", "network")]
)
def test_features_stay_where_a_network_is_compiled(name, what, monkeypatch):
    from workflow_scripts.common import speed

    monkeypatch.setattr(speed, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    plain = features(name, Speed())
    away = np.linalg.norm(features(name, Speed(compile=what)) - plain, axis=1)
    assert (away <= 1e-5 * np.linalg.norm(plain, axis=1)).all()
    torch._dynamo.reset()


CONVOLVE = {"biovil_t_image", "reid", "inception_v3", "densenet_121"}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_says_what_it_takes(name):
    able = {
        Speed(compile="network"): CONVOLVE | {"rad_dino"},
        Speed(compile="blocks"): {"rad_dino"},
        Speed(channels_last=True): CONVOLVE,
        Speed(attention="math"): {"rad_dino"},
    }
    for speed, names in able.items():
        if name in names:
            check_encoder_speed(name, speed, "cuda")
        else:
            with pytest.raises(InputError, match=f"encoder {name} does not take the switch"):
                check_encoder_speed(name, speed, "cuda")


def test_flags_name_the_encoder_that_a_switch_is_for(tmp_path):
    words = ["--shards", "a", "--encoder", "rad_dino=x", "--encoder", "reid=y", "--purpose",
             "privacy", "--collection", "c", "--out", "o", "--progress", "p"]  # fmt: skip
    given = ["--speed", "rad_dino.compile=blocks", "--speed", "reid.channels_last=true"]
    assert parse_arguments([*words, *given]).speeds == {
        "rad_dino": Speed(compile="blocks"),
        "reid": Speed(channels_last=True),
    }
    assert parse_arguments(words).speeds == {}
    with pytest.raises(InputError, match="a switch of 'cxas', which is not among the encoders"):
        speeds_of([("cxas.compile", "blocks")], ["reid"])
    with pytest.raises(InputError, match="no switch optimiser here"):
        speeds_of([("reid.optimiser", "fused")], ["reid"])
