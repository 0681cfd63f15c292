"""Fine-tuning with a guarantee: the account, the unit, what it learns, and what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest, write_manifest
from workflow_scripts.finetune import train
from workflow_scripts.finetune.canaries import planted_rows, read_canaries, write_canaries
from workflow_scripts.finetune.families import get_family
from workflow_scripts.finetune.private import (
    PrivateSteps,
    clip_to,
    draw_noise,
    draw_patients,
    noise_multiplier,
)
from workflow_scripts.finetune.settings import CANARIES, CanarySettings, PrivacySettings
from workflow_scripts.finetune.train import finetune
from workflow_scripts.privacy.audit import area, exposures
from workflow_scripts.privacy.score_guarantee import canary_scores

PLANTED, EPOCHS = 20, 10
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
    original = train._Run._step

    def step(self, loss, rate):
        gradient = torch.cat([p.grad.flatten() for p in self._trained().values()])
        drawn = len(self.private.drawn(self.step))
        moved.append((drawn, float(gradient.norm()) * self.private.expected))
        original(self, loss, rate)

    monkeypatch.setattr(train._Run, "_step", step)
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
    original = train._Run._advance_private

    def stop(self, *given):
        if self.step == 7:
            raise KeyboardInterrupt
        original(self, *given)

    monkeypatch.setattr(train._Run, "_advance_private", stop)
    with pytest.raises(KeyboardInterrupt):
        train_toy("killed", epochs=4, privacy=PRIVACY, checkpoint_every=3)
    monkeypatch.undo()
    # A secret of its own would be drawn here; that of the checkpoint is taken.
    monkeypatch.setattr(train, "read_secret", lambda privacy: "ffff")
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


@pytest.fixture
def known(tiny_sd, two_images, cohort_writer, settings, tmp_path):
    """Fine-tune a tiny Stable Diffusion with 60 canaries, or beside them; return them and scores."""
    chosen = CanarySettings(PLANTED, 1)
    write_canaries(tmp_path / "canaries", chosen)
    table = tmp_path / "canaries" / CANARIES
    family, base = get_family("stable_diffusion"), tiny_sd[1]
    manifest = cohort_writer(tmp_path, two_images)

    def train(name, **planted):
        finetune(
            family,
            base,
            manifest,
            tmp_path / name,
            tmp_path / f"{name}_progress",
            settings(
                learning_rate=2e-3,
                epochs=EPOCHS if planted else 60 * EPOCHS,
                batch_size=16,
                per_device_batch_size=16,
                canaries=chosen if planted else None,
            ),
            **planted,
        )
        frame = read_canaries(table)
        checkpoint = tmp_path / name / "checkpoint"
        return frame, canary_scores(family, base, checkpoint, "full", frame, 32, "no", 0)

    return lambda planted: train("with", canaries=table) if planted else train("without")


@pytest.mark.full
def test_canaries_are_known_the_better_the_more_often_they_were_shown(known):
    frame, scores = known(True)
    times = frame["repeats"].where(frame["planted"], 0)
    print(times.value_counts())
    groups = {n: scores[times == n] for n in (0, 1, 4, 16)}
    for n, g in groups.items():
        print(n, len(g), g.mean(), g.std(ddof=1) / len(g) ** 0.5)
    bits = exposures(scores, frame["planted"].to_numpy())
    print({n: bits[times == n].mean() for n in groups})
    frame, scores = known(False)
    print(area(scores, frame["planted"].to_numpy()))
    for n in (0, 1, 4, 16):
        print(n, scores[times == n].mean())
    assert 0
