"""Initial weights and augmentation."""

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import nn

from workflow_scripts.common.devices import accelerator_on
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.pixels import mirror, rotate
from workflow_scripts.common.resnet import check_pretrained as check
from workflow_scripts.common.resnet import pretrained_resnet
from workflow_scripts.common.training import begin_attempt, train
from workflow_scripts.downstream.classification.network import ClassificationTask


def network_from(path, seed):
    return pretrained_resnet(path, len(FINDINGS), seed)


def test_everything_but_the_last_layer_comes_from_the_file(world):
    state = load_file(world.weights)
    assert check(world.weights) == f"ResNet-14, {len(state)} tensors"
    one, same, other = (network_from(world.weights, seed).state_dict() for seed in (1, 1, 2))
    for key in one:
        if not key.startswith("fc."):
            assert torch.equal(one[key], state[key]), key
    assert one["fc.weight"].shape[0] == 14
    assert torch.equal(one["fc.weight"], same["fc.weight"])
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_files_without_last_layer_or_counters_and_torch_files_load(world, tmp_path):
    state = load_file(world.weights)
    lean = {
        key: value
        for key, value in state.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    torch.save(lean, tmp_path / "lean.pth")
    assert check(tmp_path / "lean.pth") == f"ResNet-14, {len(lean)} tensors"
    loaded = network_from(tmp_path / "lean.pth", 0).state_dict()
    assert torch.equal(loaded["layer4.0.conv3.weight"], state["layer4.0.conv3.weight"])


@pytest.mark.parametrize("refuse", [check, lambda path: network_from(path, 0)])
@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("layer2.0.bn2.weight", None, "layer2.0.bn2.weight"),
        ("layer3.0.conv3.weight", None, "layer3.0.conv3.weight"),
        ("conv1.weight", None, "conv1.weight"),
        ("layer1.0.conv2.weight", torch.zeros(3, 3), "layer1.0.conv2.weight"),
        ("layer1.0.surplus", torch.zeros(1), "layer1.0.surplus"),
    ],
)
def test_wrong_weights_are_refused_and_the_key_named(world, tmp_path, refuse, key, change, named):
    state = load_file(world.weights)
    if change is None:
        del state[key]
    else:
        state[key] = change
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        refuse(tmp_path / "wrong.safetensors")


def test_quarter_turn_and_mirror():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    turned = rotate(image, torch.tensor([90.0]))
    torch.testing.assert_close(turned, torch.rot90(image, 1, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(rotate(image, torch.tensor([0.0])), image, atol=1e-4, rtol=0)
    both = mirror(image.repeat(2, 1, 1, 1), torch.tensor([True, False]))
    assert torch.equal(both[0], image[0].flip(-1))
    assert torch.equal(both[1], image[0])


def test_augmentation_depends_on_epoch_and_image_not_on_the_batch():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8)
    labels = np.zeros((8, 14), np.float32)
    rows = np.arange(8)
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 14)

    task = ClassificationTask(
        pixels, labels, rows, rows,
        batch_size=8, rotation_degrees=10, flip=True, seed=1, device=torch.device("cpu"),
    )  # fmt: skip
    task.loss(Spy(), rows, epoch=3)
    task.loss(Spy(), rows[[5, 2]], epoch=3)
    task.loss(Spy(), rows, epoch=4)
    torch.testing.assert_close(seen[1], seen[0][[5, 2]])
    assert not torch.allclose(seen[2], seen[0])


class Pooled(nn.Module):
    """A convolution, optional batch normalisation, and a linear layer."""

    def __init__(self, norm):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU())
        self.head = nn.Linear(4, 14)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def trained(norm, tmp_path, at_once, precision="no"):
    """Return a network's state after three steps of 12 images, in pieces of `at_once`."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 16, 16), dtype=np.uint8)
    labels = rng.integers(0, 2, (12, 14)).astype(np.float32)
    rows = np.arange(12)
    task = ClassificationTask(
        pixels, labels, rows, rows,
        batch_size=12, rotation_degrees=10, flip=True, seed=1, device=torch.device("cpu"),
    )  # fmt: skip
    AcceleratorState._reset_state(True)  # a process has one precision
    accelerator = accelerator_on(torch.device("cpu"), precision)
    network = Pooled(norm)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    attempt = begin_attempt(tmp_path / f"{norm}{at_once}{precision}", accelerator)
    train(
        network, task, optimizer, None, epochs=3, batch_size=12, seed=1, attempt=attempt, key="k",
        accelerator=accelerator, label="x", per_device_batch_size=at_once, keep_best=False,
    )  # fmt: skip
    return network, {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("at_once", [1, 4, 5])
def test_pieces_of_a_batch_train_as_the_whole_batch_does(tmp_path, at_once):
    _, whole = trained(nn.Identity(), tmp_path, 12)
    _, pieces = trained(nn.Identity(), tmp_path, at_once)
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, atol=1e-6, rtol=1e-5)


def test_batch_normalisation_alone_sees_the_pieces(tmp_path):
    """Its statistics are those of a piece and are updated once per piece, as config.yaml states."""
    _, whole = trained(nn.BatchNorm2d(4), tmp_path, 12)
    _, pieces = trained(nn.BatchNorm2d(4), tmp_path, 4)
    assert (whole["body.1.num_batches_tracked"], pieces["body.1.num_batches_tracked"]) == (3, 9)
    assert not torch.allclose(pieces["body.0.weight"], whole["body.0.weight"], atol=1e-6)


def test_bf16_trains_near_float32_and_keeps_weights_and_test_passes_in_float32(tmp_path):
    _, full = trained(nn.Identity(), tmp_path, 4)
    network, half = trained(nn.Identity(), tmp_path, 4, "bf16")
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert not torch.equal(half["head.weight"], full["head.weight"])
    torch.testing.assert_close(half["head.weight"], full["head.weight"], atol=5e-3, rtol=0)
    images = torch.rand(2, 3, 16, 16)
    accelerator = accelerator_on(torch.device("cpu"), "bf16")
    plain = accelerator.unwrap_model(network, keep_fp32_wrapper=False)
    again = Pooled(nn.Identity())
    again.load_state_dict(half)
    assert torch.equal(plain(images), again(images))
    AcceleratorState._reset_state(True)
