"""Initial weights and augmentation."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.pixels import mirror, rotate
from workflow_scripts.common.resnet import check_pretrained as check
from workflow_scripts.common.resnet import pretrained_resnet
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
