"""Fine-tuning with a guarantee: the account, the unit, what it learns, and what is refused."""

import dataclasses
import hashlib
import json
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import integrate, stats
from torch import nn

from tests.finetune.conftest import SIZE, ToyFamily
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest, write_manifest
from workflow_scripts.finetune import run
from workflow_scripts.finetune.canaries import planted_rows, read_canaries, write_canaries
from workflow_scripts.finetune.private import (
    PrivateSteps,
    clip_to,
    draw_noise,
    draw_patients,
    noise_multiplier,
)
from workflow_scripts.finetune.run import Run
from workflow_scripts.finetune.settings import CANARIES, CanarySettings, PrivacySettings
from workflow_scripts.finetune.train import finetune
from workflow_scripts.privacy.audit import area, exposures
from workflow_scripts.privacy.score_guarantee import attack_values, canary_scores
from workflow_scripts.privacy.tuned_model import TunedModel

EPSILON = 0.5
PRIVACY = PrivacySettings(8.0, 1e-3, "patient", 0.5, noise_seed=3)


def epsilon_by_integration(rate, sigma, steps, delta):
    """Return epsilon of the subsampled Gaussian by integrals of its Renyi divergences.

    Mironov, Talwar and Zhang, 2019, arXiv 1908.10530: the larger one is that of the mixture to the
    normal distribution. From Renyi to epsilon as Balle et al., 2020, arXiv 1905.09982, theorem 21.
    """
    found = []
    for order in [1.25, 1.5, *np.arange(2, 33)]:

        def integrand(z, a=order):
            ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * sigma**2))
            return math.exp(stats.norm.logpdf(z, 0, sigma) + a * ratio)

        top = order * 3 + 12 * sigma
        try:
            moment = integrate.quad(integrand, -12 * sigma, top, limit=400)[0]
        except OverflowError:
            continue  # so high an order is not the best one
        renyi = steps * math.log(moment) / (order - 1)
        found.append(
            renyi
            + math.log((order - 1) / order)
            - (math.log(delta) + math.log(order)) / (order - 1)
        )
    return min(found)


@pytest.mark.parametrize(
    ("rate", "steps", "epsilon"), [(0.02, 500, 8.0), (0.1, 100, 2.0), (0.01, 200, 0.8)]
)
def test_the_account_agrees_with_integrals(rate, steps, epsilon):
    sigma = noise_multiplier(PrivacySettings(epsilon, 1e-5, "patient", 1.0), rate, steps)
    assert epsilon_by_integration(rate, sigma, steps, 1e-5) == pytest.approx(epsilon, rel=0.02)


def test_patients_are_drawn_by_chance_each_alone():
    drawn = np.zeros((2000, 30), bool)
    for step in range(2000):
        drawn[step, draw_patients("ab", step, 30, 0.2)] = True
    assert drawn.mean() == pytest.approx(0.2, abs=0.01)
    counts = drawn.sum(axis=1)
    assert counts.var() == pytest.approx(30 * 0.2 * 0.8, rel=0.15)
    assert not np.array_equal(draw_patients("ab", 1, 30, 0.2), draw_patients("ac", 1, 30, 0.2))


def test_noise_has_the_spread_asked_for_and_differs_by_step():
    first, second = (draw_noise("ab", step, [(200, 100)], 3.0)[0] for step in (0, 1))
    assert float(first.std()) == pytest.approx(3.0, rel=0.02)
    assert abs(float((first * second).mean())) < 0.3


def test_a_gradient_is_clipped_to_the_bound_and_a_small_one_left():
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(4))]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 2.0)
    assert clip_to(parameters, 100.0) == pytest.approx(2 * math.sqrt(7))
    assert parameters[0].grad.tolist() == [2, 2, 2]
    clip_to(parameters, 0.5)
    assert clip_to(parameters, 0.5) == pytest.approx(0.5)


def one_patient(toy):
    """Give images 0 to 7 of the manifest to one patient."""
    frame = read_manifest(toy.manifest)
    frame.loc[:7, "patient_id"] = "patient0"
    write_manifest(frame, toy.manifest)


def test_a_patient_of_many_images_moves_the_sum_no_more_than_the_bound(toy, train_toy, monkeypatch):
    """The loophole of the unit: eight images of one patient are clipped together."""
    one_patient(toy)
    moved = []

    def no_noise(secret, step, shapes, scale):
        return [torch.zeros(tuple(shape)) for shape in shapes]

    monkeypatch.setattr("workflow_scripts.finetune.private.draw_noise", no_noise)
    original = Run._step

    def step(self, loss, rate):
        gradient = torch.cat([p.grad.flatten() for p in self._trained().values()])
        drawn = len(self.private.drawn(self.step))
        moved.append((drawn, float(gradient.norm()) * self.private.expected))
        original(self, loss, rate)

    monkeypatch.setattr(Run, "_step", step)
    small = dataclasses.replace(PRIVACY, max_grad_norm=1e-3)
    train_toy(epochs=8, per_device_batch_size=2, privacy=small)
    assert any(drawn for drawn, _ in moved)
    assert all(norm <= drawn * 1e-3 * (1 + 1e-4) for drawn, norm in moved)


def test_what_is_guaranteed_stands_beside_the_weights(toy, train_toy):
    one_patient(toy)
    train_toy(epochs=3, privacy=PRIVACY)
    said = json.loads((toy.folder / "out/checkpoint/guarantee.json").read_text())
    assert 7.9 < said["epsilon"] <= 8
    assert (said["patients"], said["images"], said["steps"]) == (5, 12, 9)
    assert said["seed_of_noise"].startswith("known")
    span = json.loads((toy.folder / "out/span.json").read_text())
    assert span["provenance"]["guarantee"] == said


@pytest.mark.full
def test_stopped_and_started_again_gives_the_same_bits_and_account(toy, train_toy, monkeypatch):
    calm = train_toy("calm", epochs=4, privacy=PRIVACY)
    original = Run._advance_private

    def stop(self, *given):
        if self.step == 7:
            raise KeyboardInterrupt
        original(self, *given)

    monkeypatch.setattr(Run, "_advance_private", stop)
    with pytest.raises(KeyboardInterrupt):
        train_toy("killed", epochs=4, privacy=PRIVACY, checkpoint_every=3)
    monkeypatch.undo()
    # A secret of its own would be drawn here; that of the checkpoint is taken.
    monkeypatch.setattr(run, "read_secret", lambda privacy: "ffff")
    again = train_toy("killed", epochs=4, privacy=PRIVACY, checkpoint_every=3)
    assert all(torch.equal(calm[key], again[key]) for key in calm)
    said = [
        json.loads((toy.folder / name / "checkpoint/guarantee.json").read_text())
        for name in ("calm", "killed")
    ]
    assert said[0] == said[1]


@pytest.mark.full
def test_by_default_the_noise_is_another_in_each_run(train_toy):
    secret = dataclasses.replace(PRIVACY, noise_seed=None)
    first, second = (train_toy(name, privacy=secret) for name in ("first", "second"))
    assert not torch.equal(first["weight"], second["weight"])


@pytest.mark.full
def test_a_tiny_epsilon_learns_nothing(toy, train_toy):
    """What the images say of the gradient drowns: two cohorts give nearly the same weights."""

    def moved_by_images(epsilon):
        privacy = dataclasses.replace(PRIVACY, epsilon=epsilon)
        own = train_toy(f"own{epsilon}", epochs=20, privacy=privacy, learning_rate=1e-2)
        toy.family.encode_images = lambda pipeline, pixels: -5 * pixels.mean(dim=(2, 3))
        other = train_toy(f"other{epsilon}", epochs=20, privacy=privacy, learning_rate=1e-2)
        del toy.family.encode_images
        return sum(float((own[key] - other[key]).norm()) for key in own)

    assert moved_by_images(0.01) < 0.1 * moved_by_images(500.0)


@pytest.mark.parametrize(
    ("privacy", "others", "fault"),
    [
        ({"images_per_patient": 2}, {}, "images_per_patient caps a patient's images"),
        ({"delta": 0.2}, {}, "guarantees nothing"),
        ({}, {"mixed_precision": "fp16"}, "fp16 scales gradients"),
    ],
)
def test_settings_that_guarantee_nothing_are_refused(privacy, others, fault, train_toy):
    with pytest.raises(InputError, match=fault):
        train_toy(privacy=dataclasses.replace(PRIVACY, **privacy), **others)


def test_canaries_are_unique_and_their_repeats_one_patient(tmp_path, toy, settings):
    write_canaries(tmp_path / "canaries", CanarySettings(6, 1))
    frame = read_canaries(tmp_path / "canaries" / CANARIES)
    assert frame["repeats"].value_counts().to_dict() == {1: 6, 4: 6, 16: 6}
    assert frame["caption"].is_unique
    assert 0 < frame["planted"].sum() < len(frame)
    rows = planted_rows(tmp_path / "canaries" / CANARIES)
    assert len(rows) == frame.loc[frame["planted"], "repeats"].sum()
    assert rows["image_id"].is_unique
    finetune(
        toy.family,
        toy.base,
        toy.manifest,
        tmp_path / "out",
        tmp_path / "progress",
        settings(privacy=PRIVACY, canaries=CanarySettings(6, 1)),
        canaries=tmp_path / "canaries" / CANARIES,
    )
    said = json.loads((tmp_path / "out/checkpoint/guarantee.json").read_text())
    assert said["patients"] == 12 + frame["planted"].sum()
    assert said["images"] == 12 + len(rows)
    with pytest.raises(InputError, match="go together"):
        finetune(
            toy.family,
            toy.base,
            toy.manifest,
            tmp_path / "none",
            tmp_path / "progress",
            settings(canaries=CanarySettings(6, 1)),
        )


def test_all_steps_share_the_patients_among_them(settings):
    steps = PrivateSteps(settings(privacy=PRIVACY), np.array(["a", "b", "a", "c"]), 3, "ab")
    assert steps.sample_rate == 1.0
    assert [rows.tolist() for rows in steps.drawn(0)] == [[0, 2], [1], [3]]
    assert steps.expected == 3


class RememberingFamily(ToyFamily):
    """A network of two layers that learns 64 grey values from noise and a caption, and overfits."""

    @staticmethod
    def _net():
        return nn.Sequential(nn.Linear(64 + 32, 256), nn.SiLU(), nn.Linear(256, 64))

    def load(self, base, dtype=None, network_dtype=None):
        net = self._net()
        net.load_state_dict(torch.load(base.folder / "weights.pt", weights_only=True))
        return SimpleNamespace(net=net, to=net.to)

    def encoded_shape(self, pipeline, size):
        return (64,)

    def encode_images(self, pipeline, pixels):
        return nn.functional.adaptive_avg_pool2d(pixels[:, :1], 8).flatten(1)

    def encode_captions(self, pipeline, captions):
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in captions]
        return {"said": torch.stack([torch.randn(32, generator=seeded(seed)) for seed in seeds])}

    def loss(self, pipeline, network, encoded, conditions, draws):
        noise = draws.normal((64,))
        shown = torch.cat([encoded + noise, conditions["said"]], dim=1)
        return (network(shown) - noise).square().mean(dim=1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def known(toy, settings, tmp_path):
    """Return a training with or without the canaries, and then the canaries with their scores."""
    chosen = CanarySettings(20, 1)
    write_canaries(tmp_path / "canaries", chosen)
    table = tmp_path / "canaries" / CANARIES
    family = RememberingFamily()
    torch.manual_seed(0)
    torch.save(family._net().state_dict(), toy.base.folder / "weights.pt")

    def train(planted):
        name = f"planted_{planted}"
        epochs = 25 if planted else 500  # about as many steps
        finetune(
            family,
            toy.base,
            toy.manifest,
            tmp_path / name,
            tmp_path / f"{name}_progress",
            settings(
                epochs=epochs,
                batch_size=16,
                per_device_batch_size=16,
                learning_rate=3e-3,
                canaries=chosen if planted else None,
            ),
            canaries=table if planted else None,
        )
        frame = read_canaries(table)
        checkpoint = tmp_path / name / "checkpoint"
        model = TunedModel(family, toy.base, checkpoint, "full", SIZE, "no")
        scores = canary_scores(model, frame, 0)
        return frame["repeats"].where(frame["planted"], 0).to_numpy(), scores

    return train


@pytest.mark.full
def test_canaries_are_known_the_better_the_more_often_they_were_shown(known):
    times, scores = known(planted=True)
    groups = [scores[times == repeats] for repeats in (0, 1, 4, 16)]
    for rarer, oftener in pairwise(groups):
        error = math.hypot(*(group.std(ddof=1) / len(group) ** 0.5 for group in (rarer, oftener)))
        # By chance a step up is so large once in 700 times: means of nine canaries or more.
        assert oftener.mean() - rarer.mean() > 3 * error
    bits = exposures(scores, times > 0)
    means = [bits[times == repeats].mean() for repeats in (0, 1, 4, 16)]
    assert min(means[1:]) > means[0] + 2


@pytest.mark.full
def test_canaries_that_no_training_showed_are_at_chance(known):
    """Scores by which the coins cannot be told: 99% of such areas lie so near one half."""
    times, scores = known(planted=False)
    shown = int((times > 0).sum())
    spread = math.sqrt((len(times) + 1) / (12 * shown * (len(times) - shown)))
    assert abs(area(scores, times > 0) - 0.5) < 2.58 * spread


@pytest.fixture
def audited(toy, settings, tmp_path, monkeypatch):
    """Train with a stated `EPSILON`, with noise or none, and return it beside what is shown.

    Sixty canaries, each a patient; the coins, the patients drawn and the noise follow the number.
    """
    chosen = CanarySettings(20, 1)
    write_canaries(tmp_path / "canaries", chosen)
    table = tmp_path / "canaries" / CANARIES
    canaries = read_canaries(table)
    for path in canaries["path"]:  # as large as the network sees them: decoding takes the time
        with Image.open(path) as image:
            image.resize((SIZE, SIZE)).save(path)
    family = RememberingFamily()
    torch.manual_seed(0)
    torch.save(family._net().state_dict(), toy.base.folder / "weights.pt")

    def run(number, noisy):
        coins = np.random.default_rng([3, number]).random(len(canaries)) < 0.5
        flipped = canaries.assign(planted=coins)
        flipped.drop(columns="path").to_csv(table, index=False)
        out = tmp_path / f"{number}_{noisy}"
        with monkeypatch.context() as patch:
            if not noisy:
                patch.setattr(
                    "workflow_scripts.finetune.private.draw_noise",
                    lambda secret, step, shapes, scale: [torch.zeros(tuple(s)) for s in shapes],
                )
            finetune(
                family,
                toy.base,
                toy.manifest,
                out,
                tmp_path / f"{out.name}_progress",
                settings(
                    epochs=12,
                    batch_size=60,
                    per_device_batch_size=60,
                    learning_rate=3e-3,
                    privacy=PrivacySettings(EPSILON, 1e-6, "patient", 1.0, noise_seed=number),
                    canaries=chosen,
                ),
                canaries=table,
            )
        said = json.loads((out / "checkpoint/guarantee.json").read_text())
        model = TunedModel(family, toy.base, out / "checkpoint", "full", SIZE, "no")
        scores = canary_scores(model, flipped, 0)
        found = {value.metric: value.value for value in attack_values(flipped, scores, 1e-6)}
        return said["epsilon"], found["audit_epsilon"]

    return run


@pytest.mark.full
def test_the_audit_of_a_training_seldom_exceeds_its_statement_and_does_without_its_noise(audited):
    """The bound's confidence is 95%; the noise is switched off behind the accountant's back."""
    stated, shown = zip(*[audited(number, noisy=True) for number in range(20)], strict=True)
    without, found = zip(*[audited(number, noisy=False) for number in range(5)], strict=True)
    assert all(0.99 * EPSILON < said <= EPSILON for said in stated)
    assert sum(bound > EPSILON for bound in shown) <= 1
    assert without == stated[:5], "the account knows nothing of it"
    assert min(found) > EPSILON
