"""InceptionV3 and DenseNet-121, compared with functional forms after the papers' tables."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from tests.benchmarks.bench_preparing import scipy_gray
from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.errors import InputError
from workflow_scripts.features.convert_torchxrayvision import main as convert
from workflow_scripts.features.encoders import check_encoder, load_encoder
from workflow_scripts.features.encoders.densenet_121 import DenseNet121, prepare_gray
from workflow_scripts.features.encoders.inception_v3 import InceptionV3, resize_bilinear

CPU = torch.device("cpu")
NETWORKS = {"inception_v3": InceptionV3, "densenet_121": DenseNet121}


def randomised(name):
    """Return a network with random weights and random running statistics."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


@pytest.fixture(scope="module")
def states():
    return {name: randomised(name).state_dict() for name in NETWORKS}


@pytest.fixture(scope="module")
def weights(states, tmp_path_factory):
    """Both networks' files in the published layouts."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {"inception_v3": folder / "pt_inception.pth"}
    torch.save(states["inception_v3"], paths["inception_v3"])
    paths["densenet_121"] = folder / "densenet.safetensors"
    save_file(states["densenet_121"], paths["densenet_121"])
    return paths


def normalised(state, name, x, eps):
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, *parts, eps=eps)


def inception(state, x):
    def conv(name, x, stride=1, padding=0):
        y = functional.conv2d(x, state[f"{name}.conv.weight"], None, stride, padding)
        return normalised(state, f"{name}.bn", y, 0.001).relu()

    def average(x):  # of the places inside the image only
        inside = functional.avg_pool2d(torch.ones_like(x[:, :1]), 3, 1, 1)
        return functional.avg_pool2d(x, 3, 1, 1) / inside

    def a(n, x):
        return torch.cat(
            [
                conv(f"{n}.branch1x1", x),
                conv(f"{n}.branch5x5_2", conv(f"{n}.branch5x5_1", x), padding=2),
                conv(
                    f"{n}.branch3x3dbl_3",
                    conv(f"{n}.branch3x3dbl_2", conv(f"{n}.branch3x3dbl_1", x), padding=1),
                    padding=1,
                ),
                conv(f"{n}.branch_pool", average(x)),
            ],
            1,
        )

    def c(n, x):
        y = conv(f"{n}.branch7x7_1", x)
        y = conv(f"{n}.branch7x7_2", y, padding=(0, 3))
        y = conv(f"{n}.branch7x7_3", y, padding=(3, 0))
        z = conv(f"{n}.branch7x7dbl_1", x)
        for i, padding in zip((2, 3, 4, 5), ((3, 0), (0, 3), (3, 0), (0, 3)), strict=True):
            z = conv(f"{n}.branch7x7dbl_{i}", z, padding=padding)
        return torch.cat([conv(f"{n}.branch1x1", x), y, z, conv(f"{n}.branch_pool", average(x))], 1)

    def e(n, x, pooled):
        y = conv(f"{n}.branch3x3_1", x)
        z = conv(f"{n}.branch3x3dbl_2", conv(f"{n}.branch3x3dbl_1", x), padding=1)
        return torch.cat(
            [
                conv(f"{n}.branch1x1", x),
                conv(f"{n}.branch3x3_2a", y, padding=(0, 1)),
                conv(f"{n}.branch3x3_2b", y, padding=(1, 0)),
                conv(f"{n}.branch3x3dbl_3a", z, padding=(0, 1)),
                conv(f"{n}.branch3x3dbl_3b", z, padding=(1, 0)),
                conv(f"{n}.branch_pool", pooled),
            ],
            1,
        )

    x = conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", x, 2))
    x = functional.max_pool2d(conv("Conv2d_2b_3x3", x, padding=1), 3, 2)
    x = functional.max_pool2d(conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", x)), 3, 2)
    for n in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = a(n, x)
    z = conv("Mixed_6a.branch3x3dbl_2", conv("Mixed_6a.branch3x3dbl_1", x), padding=1)
    z = conv("Mixed_6a.branch3x3dbl_3", z, 2)
    x = torch.cat([conv("Mixed_6a.branch3x3", x, 2), z, functional.max_pool2d(x, 3, 2)], 1)
    for n in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = c(n, x)
    y = conv("Mixed_7a.branch3x3_2", conv("Mixed_7a.branch3x3_1", x), 2)
    z = conv("Mixed_7a.branch7x7x3_2", conv("Mixed_7a.branch7x7x3_1", x), padding=(0, 3))
    z = conv("Mixed_7a.branch7x7x3_4", conv("Mixed_7a.branch7x7x3_3", z, padding=(3, 0)), 2)
    x = torch.cat([y, z, functional.max_pool2d(x, 3, 2)], 1)
    x = e("Mixed_7b", x, average(x))
    x = e("Mixed_7c", x, functional.max_pool2d(x, 3, 1, 1))
    return functional.adaptive_avg_pool2d(x, 1).flatten(1)


def densenet(state, x):
    def conv(name, x, stride=1, padding=0):
        return functional.conv2d(x, state[f"{name}.weight"], None, stride, padding)

    def relu_of(name, x):
        return normalised(state, name, x, 1e-5).relu()

    x = functional.max_pool2d(relu_of("features.norm0", conv("features.conv0", x, 2, 3)), 3, 2, 1)
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, layers + 1):
            n = f"features.denseblock{block}.denselayer{layer}"
            y = conv(f"{n}.conv1", relu_of(f"{n}.norm1", x))
            x = torch.cat([x, conv(f"{n}.conv2", relu_of(f"{n}.norm2", y), 1, 1)], 1)
        if block < 4:
            n = f"features.transition{block}"
            x = functional.avg_pool2d(conv(f"{n}.conv", relu_of(f"{n}.norm", x)), 2, 2)
    return functional.adaptive_avg_pool2d(relu_of("features.norm5", x), 1).flatten(1)


def test_layouts_have_the_published_number_of_tensors(states):
    assert len(states["inception_v3"]) == 566
    assert states["inception_v3"]["fc.weight"].shape == (1008, 2048)
    assert len(states["densenet_121"]) == 727
    assert states["densenet_121"]["features.conv0.weight"].shape == (64, 1, 7, 7)


@pytest.mark.parametrize(
    ("name", "form", "shape", "width"),
    [
        ("inception_v3", inception, (2, 3, 299, 299), 2048),
        ("densenet_121", densenet, (2, 1, 224, 224), 1024),
    ],
)
def test_networks_are_their_functional_forms(name, form, shape, width, weights):
    encoder = load_encoder(name, weights[name], CPU, deviations("sound"), "fidelity")
    pixels = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, shape)).float()
    state = torch.load(weights[name]) if name == "inception_v3" else load_file(weights[name])
    with torch.inference_mode():
        expected = form(state, pixels).numpy()
    features = encoder.encode(list(pixels))
    assert features.shape == (2, width)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_tensorflows_bilinear_by_hand():
    pixels = np.array([[0, 10], [20, 30]], np.uint8)[..., None]
    # Rows and columns at 0, 0.5, 1, 1.5 of the input; the last pixel repeats beyond the edge.
    rows = [[0, 5, 10, 10], [10, 15, 20, 20], [20, 25, 30, 30], [20, 25, 30, 30]]
    assert np.array_equal(resize_bilinear(pixels, 4)[..., 0], rows)
    large = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    assert np.array_equal(resize_bilinear(large, 4)[..., 0], large[::2, ::2, 0])  # not averaged


def test_gray_levels_and_squares_of_densenet():
    image = Image.fromarray(np.full((900, 1000), 255, np.uint8)).convert("RGB")
    prepared = prepare_gray(image)
    assert prepared.shape == (224, 224)
    np.testing.assert_allclose(prepared[20:-20, 20:-20], 1024, rtol=1e-5)
    assert prepared[0, 0] < 1000  # outside the image lies 0, and the border blends with it
    half = np.zeros((224, 448), np.uint8)
    half[:, 112:336] = np.arange(224)
    exact = prepare_gray(Image.fromarray(half))
    np.testing.assert_allclose(
        exact[5], (np.arange(224) / 255 * 2 - 1) * 1024, rtol=1e-4, atol=0.01
    )


@pytest.mark.parametrize("size", [(224, 224), (100, 150), (225, 300), (299, 299), (700, 512)])
def test_densenets_input_is_that_of_scipys_blur_and_zoom(size):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, size[::-1], dtype=np.uint8))
    away = np.abs(prepare_gray(image) - scipy_gray(image))
    assert away.max() < 0.01  # of -1024..1024


@pytest.mark.parametrize("name", NETWORKS)
def test_as_published_squashes_first_and_says_so(name, weights):
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (320, 500, 3), dtype=np.uint8)
    )
    encoders = {
        protocol: load_encoder(name, weights[name], CPU, deviations(protocol), "fidelity")
        for protocol in ("sound", "as_published")
    }
    assert "squash 299x299" in encoders["as_published"].preprocessing
    prepared = encoders["sound"].prepare(image)
    assert prepared.dtype == torch.float32
    assert np.isfinite(encoders["sound"].encode([prepared])).all()
    squashed = image.resize((299, 299), Image.Resampling.BILINEAR)
    expected = encoders["sound"].prepare(squashed)
    assert torch.equal(encoders["as_published"].prepare(image), expected)
    assert not torch.equal(encoders["sound"].prepare(image), expected)


@pytest.mark.parametrize("protocol", ["sound", "as_published"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_gray_image_is_the_same_with_one_channel_and_with_three(name, protocol, weights):
    encoder = load_encoder(name, weights[name], CPU, deviations(protocol), "fidelity")
    gray = Image.fromarray(np.random.default_rng(0).integers(0, 256, (320, 500), dtype=np.uint8))
    one, three = encoder.prepare(gray), encoder.prepare(gray.convert("RGB"))
    assert torch.equal(one, three)
    assert np.array_equal(encoder.encode([one]), encoder.encode([three]))


@pytest.mark.parametrize("name", NETWORKS)
def test_faulty_weights_are_named(name, states, tmp_path):
    state = dict(states[name])
    key = "fc.bias" if name == "inception_v3" else "classifier.bias"
    state["renamed"] = state.pop(key)
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    with pytest.raises(InputError, match=rf"missing: {key}.*unexpected: renamed"):
        check_encoder(name, path)


def test_batch_counters_of_inception_may_be_absent(states, tmp_path):
    state = {k: v for k, v in states["inception_v3"].items() if "num_batches" not in k}
    save_file(state, tmp_path / "short.safetensors")
    check_encoder("inception_v3", tmp_path / "short.safetensors")


# Conversion


def pickled_model(path, legacy):
    """Write a model object as torchxrayvision publishes it, of a class that no longer exists."""
    module = types.ModuleType("torchxrayvision_stand_in")
    module.DenseNet = type("DenseNet", (DenseNet121,), {"__module__": module.__name__})
    sys.modules[module.__name__] = module
    try:
        torch.manual_seed(0)
        model = module.DenseNet()
        model.pathologies = ["Edema", "Fracture"]
        torch.save(model, path, _use_new_zipfile_serialization=not legacy)
    finally:
        del sys.modules[module.__name__]
    return model.state_dict()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_model_is_refused_and_converted_without_its_class(legacy, tmp_path):
    path, output = tmp_path / "model.pt", tmp_path / "model.safetensors"
    expected = pickled_model(path, legacy)
    with pytest.raises(InputError, match="convert_torchxrayvision"):
        check_encoder("densenet_121", path)
    convert(["--input", str(path), "--output", str(output)])
    check_encoder("densenet_121", output)
    tensors = load_file(output)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)


class Malicious:
    def __reduce__(self):
        return print, ("code of the file ran",)


def test_conversion_runs_no_code_of_the_file(tmp_path, capsys):
    path = tmp_path / "model.pt"
    torch.save({"model": Malicious()}, path)
    assert pickle.loads(pickle.dumps(Malicious())) is None
    assert "code of the file ran" in capsys.readouterr().out
    with pytest.raises(InputError, match="no model with parameters"):
        convert(["--input", str(path), "--output", str(tmp_path / "out.safetensors")])
    assert "code of the file ran" not in capsys.readouterr().out
    assert not (tmp_path / "out.safetensors").exists()
