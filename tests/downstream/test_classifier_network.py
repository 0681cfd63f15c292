"""Initial weights, augmentation and the loop's own promises."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.pixels import mirror, rotate
from workflow_scripts.common.resnet import check_pretrained as check
from workflow_scripts.common.resnet import pretrained_resnet
from workflow_scripts.common.training import epoch_batches, train
from workflow_scripts.downstream.classifier import ClassificationTask

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize(("n", "size"), [(65, 32), (10, 768), (33, 32), (7, 1)])
def test_an_epoch_uses_every_row_once_in_a_seeded_order(n, size):
    batches = epoch_batches(n, size, seed=3, epoch=1)
    assert sorted(np.concatenate(batches)) == list(range(n))
    assert max(map(len, batches)) <= size
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    again, later = epoch_batches(n, size, 3, 1), epoch_batches(n, size, 3, 2)
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(again))
    assert np.concatenate(batches).tolist() != np.concatenate(later).tolist()


class Line:
    """Fit y = 2x with one weight; `validation` may be scripted."""

    def __init__(self, n: int = 12, validation: list[float] | None = None):
        self.n_train, self.scripted = n, validation
        self.x = torch.linspace(-1, 1, n).unsqueeze(1)

    def loss(self, network, rows, epoch):
        x = self.x[rows]
        return ((network(x) - 2 * x) ** 2).mean()

    def validation_loss(self, network):
        if self.scripted is not None:
            return self.scripted.pop(0)
        return float(((network(self.x) - 2 * self.x) ** 2).mean())


def fit(task, progress, epochs=4, rate=0.1, key="k"):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    network = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    history = train(
        network, task, optimizer, scheduler,
        epochs=epochs, batch_size=4, seed=1, progress=progress, key=key,
        accelerator=accelerator, label="line",
    )  # fmt: skip
    return network.weight.item(), history


def test_the_best_epoch_is_kept_and_the_rate_falls_on_a_plateau(tmp_path):
    one_epoch, _ = fit(Line(validation=[1.0]), tmp_path / "a", epochs=1)
    kept, history = fit(Line(validation=[1.0, 3.0, 2.0, 1.0]), tmp_path / "b")
    assert kept == one_epoch
    assert [entry.learning_rate for entry in history] == [0.1, 0.1, 0.05, 0.025]


def test_continuing_equals_never_stopping(tmp_path):
    straight, history = fit(Line(), tmp_path / "a", epochs=6)
    fit(Line(), tmp_path / "b", epochs=3)
    continued, continued_history = fit(Line(), tmp_path / "b", epochs=6)
    assert continued == straight
    assert continued_history == history


def test_a_damaged_checkpoint_starts_anew(tmp_path, caplog):
    straight, _ = fit(Line(), tmp_path / "a")
    path = tmp_path / "a" / "state.pt"
    path.write_bytes(path.read_bytes()[:200])
    again, _ = fit(Line(), tmp_path / "a")
    assert again == straight
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_loss_that_is_not_finite_stops(tmp_path, value):
    with pytest.raises(InputError, match="validation loss of line") as error:
        fit(Line(validation=[1.0, value]), tmp_path)
    assert error.value.where == "epoch 2"


def test_frozen_weights_stay_out_of_the_checkpoint(tmp_path):
    network = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1))
    network[0].requires_grad_(False)
    optimizer = torch.optim.SGD(network[1].parameters(), lr=0.1)
    train(
        network, Line(), optimizer, ReduceLROnPlateau(optimizer),
        epochs=1, batch_size=4, seed=1, progress=tmp_path, key="k",
        accelerator=Accelerator(cpu=True), label="frozen",
    )  # fmt: skip
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert set(state["network"]) == {"1.weight", "1.bias"}


def test_two_processes_fit_what_one_fits(tmp_path):
    single, _ = fit(Line(), tmp_path / "one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, runpy; sys.argv = ['x']\n"
        f"test = runpy.run_path({str(Path(__file__))!r})\n"
        "from pathlib import Path\n"
        f"print(repr(test['fit'](test['Line'](), Path({str(tmp_path / 'two')!r}))[0]))"
    )
    shared = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = [float(process.communicate(timeout=100)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert results[0] == results[1]
    assert results[0] == pytest.approx(single, abs=1e-6)
