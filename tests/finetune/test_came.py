"""CAME against a transcription of the paper's algorithm, on matrices, vectors and convolutions.

In PixArt's trainer and in Sana's, which treat convolutions each in a way of its own.
"""

import io

import numpy as np
import pytest
import torch

from workflow_scripts.finetune.came import Came

SHAPES = {"matrix": (5, 7), "vector": (6,), "convolution": (4, 3, 3, 2), "scalar": ()}


class PaperCame:
    """Algorithm 2 for one matrix, with its letters; in float64, with the sums as written."""

    def __init__(self, theta, eta, b1=0.9, b2=0.999, b3=0.9999, e1=1e-30, e2=1e-16, d=1.0, wd=0.0):
        n, m = theta.shape
        self.theta, self.eta, self.betas, self.eps, self.d, self.wd = (
            theta.astype(np.float64),
            eta,
            (b1, b2, b3),
            (e1, e2),
            d,
            wd,
        )
        self.m = np.zeros((n, m))
        self.r, self.R = np.zeros((n, 1)), np.zeros((n, 1))
        self.c, self.C = np.zeros((1, m)), np.zeros((1, m))

    def normalised(self, g):
        (_, b2, _), (e1, _) = self.betas, self.eps
        n, m = g.shape
        V = g**2 + e1 * np.ones((n, m))
        self.r = b2 * self.r + (1 - b2) * V @ np.ones((m, 1))
        self.c = b2 * self.c + (1 - b2) * np.ones((1, n)) @ V
        return g / np.sqrt(self.r @ self.c / self.r.sum())

    def step(self, u, clip_by):
        (b1, _, b3), (_, e2) = self.betas, self.eps
        n, m = u.shape
        u_hat = u / max(1.0, clip_by / self.d)
        self.m = b1 * self.m + (1 - b1) * u_hat
        U = (u_hat - self.m) ** 2 + e2 * np.ones((n, m))
        self.R = b3 * self.R + (1 - b3) * U @ np.ones((m, 1))
        self.C = b3 * self.C + (1 - b3) * np.ones((1, n)) @ U
        S = self.R @ self.C / self.R.sum()
        self.theta = self.theta - self.eta * self.wd * self.theta
        self.theta = self.theta - self.eta / np.sqrt(S) * self.m


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def by_the_paper(start, gradients, lr, **settings):
    """Follow the paper: matrix by matrix over the last two dimensions, clipped as one weight."""
    if start.ndim < 2:
        return vector_by_the_paper(start, gradients, lr, **settings)
    matrices = [PaperCame(theta, lr, **settings) for theta in start.reshape(-1, *start.shape[-2:])]
    for gradient in gradients:
        parts = gradient.reshape(-1, *start.shape[-2:]).astype(np.float64)
        updates = [matrix.normalised(g) for matrix, g in zip(matrices, parts, strict=True)]
        for matrix, update in zip(matrices, updates, strict=True):
            matrix.step(update, rms(updates))
    return np.stack([matrix.theta for matrix in matrices]).reshape(start.shape)


def vector_by_the_paper(start, gradients, lr, b1=0.9, b2=0.999, e1=1e-30, d=1.0, wd=0.0, **_):
    theta, m, v = start.astype(np.float64), 0.0, 0.0
    for g in gradients:
        v = b2 * v + (1 - b2) * (g.astype(np.float64) ** 2 + e1)
        u = g / np.sqrt(v)
        m = b1 * m + (1 - b1) * u / max(1.0, rms(u) / d)
        theta = theta - lr * wd * theta - lr * m
    return theta


def draw(shape, steps=6):
    rng = np.random.default_rng(len(shape))
    # Gradients that keep a direction, so that momentum and instability are both at work.
    drift = rng.normal(size=shape)
    return rng.normal(size=shape), [drift + 0.5 * rng.normal(size=shape) for _ in range(steps)]


def run(optimiser, weight, gradients):
    for gradient in gradients:
        weight.grad = torch.from_numpy(np.asarray(gradient)).to(weight.dtype)
        optimiser.step()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("ours", "paper"),
    [
        ({}, {}),
        (
            {
                "betas": (0.8, 0.9, 0.95),
                "eps": (1e-3, 1e-2),
                "clip_threshold": 0.5,
                "weight_decay": 0.1,
            },
            {"b1": 0.8, "b2": 0.9, "b3": 0.95, "e1": 1e-3, "e2": 1e-2, "d": 0.5, "wd": 0.1},
        ),
    ],
    ids=["defaults", "all settings changed"],
)
def test_follows_the_papers_algorithm(name, ours, paper):
    start, gradients = draw(SHAPES[name])
    weight = torch.nn.Parameter(torch.tensor(start))
    run(Came([weight], lr=0.01, **ours), weight, gradients)
    expected = by_the_paper(start, gradients, 0.01, **paper)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def draw_many(shape, steps):
    rng = np.random.default_rng(sum(shape))
    drift = 0.1 * rng.normal(size=shape)
    # Rows, columns and steps of unlike size: what is taken together shows.
    size = np.exp(rng.normal(size=shape[:1] + (1,) * (len(shape) - 1)))
    return rng.normal(size=shape), [
        size * np.exp(0.3 * rng.normal()) * (drift + rng.normal(size=shape)) for _ in range(steps)
    ]


def moved(shape, gradients, layout):
    weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimiser = Came([weight], lr=0.01, layout=layout)
    run(optimiser, weight, gradients)
    return weight.detach().numpy(), sum(value.numel() for value in optimiser.state[weight].values())


def test_in_sanas_layout_a_convolution_of_one_pixel_moves_as_its_matrix():
    _, gradients = draw_many((48, 32), 300)
    pixels = [gradient[:, :, None, None] for gradient in gradients]
    found, kept = moved((48, 32, 1, 1), pixels, "matrices")
    as_matrix, kept_of_matrix = moved((48, 32), gradients, "matrices")
    np.testing.assert_array_equal(found[:, :, 0, 0], as_matrix)
    assert kept == kept_of_matrix == 48 * 32 + 2 * (48 + 32)
    expected = by_the_paper(np.zeros((48, 32)), gradients, 0.01)
    np.testing.assert_allclose(as_matrix, expected, rtol=1e-8, atol=1e-12)
    # In the other layout it is a stack of matrices of one weight each, and goes elsewhere.
    other, kept_by_other = moved((48, 32, 1, 1), pixels, "stacks")
    away = np.linalg.norm(other[:, :, 0, 0] - as_matrix) / np.linalg.norm(as_matrix)
    assert away > 0.1
    assert kept_by_other == 5 * 48 * 32


@pytest.mark.parametrize("shape", [(48, 1, 3, 3), (48, 4, 2, 2), (6, 5, 4), (6,), (2, 3, 1, 2)])
def test_in_sanas_layout_no_other_weight_is_factored(shape):
    _, gradients = draw_many(shape, 300)
    found, kept = moved(shape, gradients, "matrices")
    expected = vector_by_the_paper(np.zeros(shape), gradients, 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
    assert kept == 2 * found.size


def test_weights_of_a_convolution_may_lie_in_any_order():
    _, gradients = draw_many((8, 6, 1, 1), 5)
    weight = torch.nn.Parameter(torch.zeros(8, 6, 1, 1, dtype=torch.float64))
    weight.data = weight.data.to(memory_format=torch.channels_last)
    optimiser = Came([weight], lr=0.01, layout="matrices")
    for gradient in gradients:
        weight.grad = torch.tensor(gradient).to(memory_format=torch.channels_last)
        optimiser.step()
    np.testing.assert_array_equal(
        weight.detach().numpy(), moved((8, 6, 1, 1), gradients, "matrices")[0]
    )


@pytest.mark.parametrize("name", SHAPES)
def test_float32_stays_close_for_gradients_of_any_size(name):
    start, gradients = draw(SHAPES[name])
    for scale in (1e-7, 1e4):
        weight = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
        scaled = [scale * gradient for gradient in gradients]
        run(Came([weight], lr=0.01), weight, scaled)
        expected = by_the_paper(start, scaled, 0.01)
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=2e-4, atol=1e-5)


def test_zero_gradients_leave_the_weight():
    weight = torch.nn.Parameter(torch.ones(3, 4))
    optimiser = Came([weight], lr=0.1)
    run(optimiser, weight, [np.zeros((3, 4))] * 3)
    assert torch.equal(weight.detach(), torch.ones(3, 4))


def test_a_matrix_costs_its_rows_and_columns_beside_the_momentum():
    weight = torch.nn.Parameter(torch.ones(50, 70))
    optimiser = Came([weight], lr=0.1)
    run(optimiser, weight, [np.ones((50, 70))])
    assert sum(value.numel() for value in optimiser.state[weight].values()) == 50 * 70 + 2 * 120


def test_finds_the_minimum_of_a_quadratic():
    torch.manual_seed(0)
    target = torch.randn(8, 6)
    scales = torch.logspace(-1, 1, 6)
    weight = torch.nn.Parameter(torch.zeros(8, 6))
    bias = torch.nn.Parameter(torch.zeros(6))
    optimiser = Came([weight, bias], lr=0.01)
    losses = []
    for step in range(600):
        optimiser.param_groups[0]["lr"] = 0.01 * min(1, (step + 1) / 50) * (1 - step / 600)
        optimiser.zero_grad()
        loss = (scales * (weight - target).square()).mean() + (bias - 1).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-4 * losses[0]


def test_continues_from_its_state_to_the_same_bits():
    starts = [draw(shape) for shape in SHAPES.values()]

    def steps(optimiser, weights, first, last):
        for i in range(first, last):
            for weight, (_, gradients) in zip(weights, starts, strict=True):
                weight.grad = torch.tensor(gradients[i], dtype=torch.float32)
            optimiser.step()

    def fresh(values):
        weights = [torch.nn.Parameter(torch.tensor(value, dtype=torch.float32)) for value in values]
        return weights, Came(weights, lr=0.01, weight_decay=0.1)

    whole, optimiser = fresh([start for start, _ in starts])
    steps(optimiser, whole, 0, 6)

    part, optimiser = fresh([start for start, _ in starts])
    steps(optimiser, part, 0, 3)
    kept = io.BytesIO()
    torch.save(optimiser.state_dict(), kept)
    kept.seek(0)
    part, optimiser = fresh([weight.detach().numpy() for weight in part])
    optimiser.load_state_dict(torch.load(kept, weights_only=True))
    steps(optimiser, part, 3, 6)

    for one, other in zip(whole, part, strict=True):
        assert torch.equal(one, other)


def test_closure_and_weights_without_gradient():
    used, unused = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    optimiser = Came([used, unused], lr=0.1)

    def closure():
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimiser.step(closure).item() == 4.0
    assert (used < 1).all()
    assert torch.equal(unused.detach(), torch.ones(2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1.0},
        {"lr": 0.1, "betas": (0.9, 1.0, 0.9)},
        {"lr": 0.1, "clip_threshold": 0.0},
        {"lr": 0.1, "eps": (-1e-9, 0.0)},
        {"lr": 0.1, "layout": "rows"},
    ],
)
def test_refuses_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=r"betas|clip_threshold|layout"):
        Came([torch.nn.Parameter(torch.ones(2))], **wrong)


def test_refuses_half_precision():
    with pytest.raises(ValueError, match="bfloat16"):
        Came([torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))], lr=0.1)
