"""The training loop's guarantees: kept checkpoints, continued runs and the weight of a batch."""

import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.seeded_order import epoch_batches
from workflow_scripts.common.training import begin_attempt, train

ROOT = Path(__file__).resolve().parents[2]


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

    def weight(self, rows):
        return len(rows)

    def loss(self, network, rows, epoch):
        x = self.x[rows]
        return ((network(x) - 2 * x) ** 2).mean()

    def validation_loss(self, network):
        if self.scripted is not None:
            return self.scripted.pop(0)
        return float(((network(self.x) - 2 * self.x) ** 2).mean())


def fit(task, progress, epochs=4, rate=0.1, key="k", plateau=True, **changes):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    network = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0) if plateau else None
    history = train(
        network, task, optimizer, scheduler,
        epochs=epochs, batch_size=4, seed=1, attempt=begin_attempt(progress, accelerator), key=key,
        accelerator=accelerator, label="line", **changes,
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


def half_cosine(share):
    return 0.5 * (1 + math.cos(math.pi * share))


class Interrupted(Line):
    """Stops after a given number of losses, as a killed job does."""

    def __init__(self, losses):
        super().__init__()
        self.left = losses

    def loss(self, network, rows, epoch):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().loss(network, rows, epoch)


@pytest.mark.parametrize("losses", [1, 2, 4, 5, 8])
def test_continuing_within_an_epoch_equals_never_stopping(tmp_path, losses):
    """Three steps per epoch, a checkpoint after each, and a rate that decreases with each step."""
    settings = {"plateau": False, "rate": 0.1, "checkpoint_every": 1}

    def run(task, name):
        return fit(task, tmp_path / name, 3, schedule=half_cosine, **settings)

    straight, history = run(Line(), "a")
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(losses), "b")
    rest = Interrupted(9 - losses)  # not one step is done twice
    continued, continued_history = run(rest, "b")
    assert continued == straight
    assert continued_history == history
    assert rest.left == 0


def test_the_rate_follows_the_schedule_by_the_step(tmp_path):
    _, history = fit(Line(), tmp_path, 3, plateau=False, schedule=half_cosine)
    expected = [0.1 * half_cosine(step / 9) for step in (2, 5, 8)]  # of each epoch's last step
    assert [entry.learning_rate for entry in history] == pytest.approx(expected)


def test_accumulated_batches_fit_what_whole_ones_fit(tmp_path):
    whole, history = fit(Line(), tmp_path / "a")
    pieces, piece_history = fit(Line(), tmp_path / "b", per_device_batch_size=3)
    assert pieces == pytest.approx(whole, abs=1e-6)
    assert piece_history[-1].training_loss == pytest.approx(history[-1].training_loss, abs=1e-6)


def test_a_loss_is_a_mean_over_what_the_task_counts(tmp_path):
    """Rows with more tokens weigh more, however the batch is divided."""

    class Tokens(Line):
        tokens = np.arange(12) + 1

        def weight(self, rows):
            return int(self.tokens[rows].sum())

        def loss(self, network, rows, epoch):
            errors = (network(self.x[rows]) - 2 * self.x[rows]).squeeze(1) ** 2
            share = torch.from_numpy(self.tokens[rows] / self.tokens[rows].sum())
            return (errors * share).sum()

    whole, history = fit(Tokens(), tmp_path / "a")
    pieces, piece_history = fit(Tokens(), tmp_path / "b", per_device_batch_size=1)
    assert pieces == pytest.approx(whole, abs=1e-6)
    assert piece_history[0].training_loss == pytest.approx(history[0].training_loss, abs=1e-6)
    assert whole != pytest.approx(fit(Line(), tmp_path / "c")[0], abs=1e-4)


def test_the_last_epoch_is_kept_where_that_is_asked_for(tmp_path):
    kept, _ = fit(Line(validation=[1.0, 3.0, 2.0]), tmp_path / "a", 3, keep_best=False)
    best, _ = fit(Line(validation=[1.0, 3.0, 2.0]), tmp_path / "b", 3)
    last, _ = fit(Line(validation=[3.0, 2.0, 1.0]), tmp_path / "c", 3)
    assert kept != best
    assert abs(kept - 2) < abs(best - 2)
    assert last != best


def test_a_damaged_checkpoint_starts_anew(tmp_path, caplog):
    straight, _ = fit(Line(), tmp_path / "a")
    path = next((tmp_path / "a").glob("*/state.pt"))
    path.write_bytes(path.read_bytes()[:200])
    again, _ = fit(Line(), tmp_path / "a")
    assert again == straight
    assert "is damaged and not continued" in caplog.text


def test_a_run_that_was_given_up_ends_and_its_retry_equals_never_stopping(tmp_path):
    straight, history = fit(Line(), tmp_path / "a", epochs=6)
    retried = []

    class Orphan(Line):
        losses = 0

        def loss(self, network, rows, epoch):
            self.losses += 1
            if self.losses == 8:  # in its third epoch
                retried.append(fit(Line(), tmp_path / "b", epochs=6))
            return super().loss(network, rows, epoch)

    with pytest.raises(InputError, match="has taken over"):
        fit(Orphan(), tmp_path / "b", epochs=6)
    assert retried == [(straight, history)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_loss_that_is_not_finite_stops(tmp_path, value):
    with pytest.raises(InputError, match="validation loss of line") as error:
        fit(Line(validation=[1.0, value]), tmp_path)
    assert error.value.where == "epoch 2"


def test_frozen_weights_stay_out_of_the_checkpoint(tmp_path):
    network = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1))
    network[0].requires_grad_(False)
    optimizer = torch.optim.SGD(network[1].parameters(), lr=0.1)
    attempt = Attempt(tmp_path)
    train(
        network, Line(), optimizer, ReduceLROnPlateau(optimizer),
        epochs=1, batch_size=4, seed=1, attempt=attempt, key="k",
        accelerator=Accelerator(cpu=True), label="frozen",
    )  # fmt: skip
    state = torch.load(attempt.folder / "state.pt", weights_only=True)
    assert set(state["network"]) == {"1.weight", "1.bias"}


@pytest.mark.full
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
