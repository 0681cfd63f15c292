"""Nearer to the prompts' radiographs or to unseen ones: what memorisation moves and what not."""

from dataclasses import replace

import numpy as np
import pytest

from tests.feature_files import changed
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import read_record
from workflow_scripts.privacy.score_novelty import (
    Generated,
    Radiographs,
    main,
    nearness,
    novelty_values,
)

DIMENSIONS = 6


def population(rng, patients, images, name, share=0.5):
    """Patients of different looks, each with several radiographs alike, some with a finding."""
    findings = (rng.random(patients) < share).astype(np.uint16)
    centres = rng.standard_normal((patients, DIMENSIONS)) + 2 * findings[:, None]
    points = np.repeat(centres, images, axis=0)
    points = points + 0.2 * rng.standard_normal(points.shape)
    names = np.repeat([f"{name}{i}" for i in range(patients)], images)
    return Radiographs(points, np.arange(len(points)), names, np.repeat(findings, images))


def sets(seed=3, held_out=80, shares=(0.5, 0.5, 0.5)):
    """The prompts' radiographs, held-out ones (many of a patient, as in MIMIC), and others."""
    rng = np.random.default_rng(seed)
    sizes = ((60, 1, "o"), (held_out, 8, "h"), (300, 2, "t"))
    return [population(rng, *size, share) for size, share in zip(sizes, shares, strict=True)]


def images_like(own, rng, copies=()):
    """Images of each prompt's finding, of nobody; of the prompts in `copies` near-copies."""
    prompts = np.repeat(np.arange(len(own.patients)), 2)
    points = rng.standard_normal((len(prompts), DIMENSIONS)) + 2 * own.findings[prompts, None]
    copied = np.isin(prompts, copies)
    near = own.features[prompts] + 0.05 * rng.standard_normal(points.shape)
    points[copied] = near[copied]
    return Generated(points, prompts, np.repeat("", len(prompts)))


def test_images_of_nobody_and_the_third_set_are_near_to_neither():
    own, held_out, others = sets()
    generated = images_like(own, np.random.default_rng(4))
    values = novelty_values(nearness(generated, own, held_out, others), 120)
    for value in values[:2]:
        assert value.interval[0] < 0.5 < value.interval[1]
        assert value.value == pytest.approx(0.5, abs=0.12)
    assert values[2].interval[0] < 0 < values[2].interval[1]
    assert values[0].n_reference == 30  # half of the fewest patients


@pytest.mark.parametrize("runs", [10, pytest.param(40, marks=pytest.mark.full)])
def test_the_interval_covers_one_half_when_nothing_is_memorised(runs):
    covered = np.zeros(2)
    for seed in range(runs):
        own, held_out, others = sets(seed)
        generated = images_like(own, np.random.default_rng(100 + seed))
        values = novelty_values(nearness(generated, own, held_out, others, draws=60), 120)
        covered += [v.interval[0] <= 0.5 <= v.interval[1] for v in values[:2]]
    assert (covered >= 0.85 * runs).all(), covered


def test_copies_are_nearer_to_training():
    own, held_out, others = sets()
    rng = np.random.default_rng(4)
    every = nearness(images_like(own, rng, np.arange(60)), own, held_out, others)
    assert every.generated.mean() > 0.98
    assert every.third.mean() < 0.65
    some = novelty_values(
        nearness(images_like(own, rng, np.arange(0, 60, 2)), own, held_out, others), 120
    )
    assert some[2].interval[0] > 0  # half of the prompts copied: more than the third set shows


def test_findings_alone_do_not_draw_images_to_training():
    """Held-out patients mostly without the finding: unmatched, the prompts' are nearer."""
    own, held_out, others = sets(held_out=400, shares=(0.95, 0.25, 0.5))
    generated = images_like(own, np.random.default_rng(4))
    matched = nearness(generated, own, held_out, others).generated.mean()
    blind = [replace(kind, findings=np.zeros_like(kind.findings)) for kind in (held_out, others)]
    unmatched = nearness(generated, own, *blind).generated.mean()
    assert abs(matched - 0.5) < 0.08
    assert unmatched > 0.6


def test_a_control_that_shows_a_held_out_patient_is_not_nearest_to_itself():
    own, held_out, others = sets()
    rows = np.random.default_rng(6).choice(len(held_out.patients), 60)
    shown = Generated(held_out.features[rows], np.arange(60), held_out.patients[rows])
    unnamed = replace(shown, shown=np.repeat("", 60))
    assert nearness(shown, own, held_out, others).generated.mean() > 0.4
    assert nearness(unnamed, own, held_out, others).generated.mean() < 0.4


def test_an_image_as_near_to_both_counts_half():
    kinds = [
        Radiographs(
            np.zeros((4, 3)),
            np.arange(4),
            np.array([f"{name}{i}" for i in range(4)]),
            np.zeros(4, "u2"),
        )
        for name in "oht"
    ]
    images = Generated(np.ones((4, 3)), np.arange(4), np.repeat("", 4))
    assert (nearness(images, *kinds).generated == 0.5).all()


def test_what_cannot_be_compared_is_refused():
    own, held_out, others = sets()
    images = images_like(own, np.random.default_rng(4))
    with pytest.raises(ValueError, match="in two of the sets"):
        nearness(images, own, held_out, held_out)
    with pytest.raises(ValueError, match="fewer than 4"):
        nearness(images, own, held_out.take(np.arange(16)), others)


def run(world, held_out):
    output = world.root / "novelty.json"
    flags = world.flags
    main(
        [
            *("--model", "model", "--protocol", "sound", "--manifest", str(flags.manifest)),
            *("--prompts", str(flags.prompts), "--real", str(flags.real)),
            *("--held-out", str(held_out), "--generated", str(flags.generated)),
            *("--output", str(output)),
        ]
    )
    return read_record(output)


def test_the_record_holds_the_share_and_what_real_images_show(world):
    world.give_copies()
    world.train_on([f"t{i}" for i in range(6)])
    record = run(world, world.hold_out([f"h{i}" for i in range(8)]))
    assert record.family == "novelty"
    share, real, excess = (record.get(f"nearer_to_training{of}") for of in ("", "_real", "_excess"))
    assert share.value == 1  # each copy is at distance 0 of its own
    assert excess.value == pytest.approx(share.value - real.value)
    assert share.interval[0] <= share.value <= share.interval[1]
    assert share.n_reference == record.details["patients"] == 3


@pytest.mark.parametrize("attribute", ["weights_sha256", "collection", "purpose"])
def test_held_out_features_of_another_origin_are_refused(world, attribute):
    world.give_copies()
    folder = world.hold_out([f"h{i}" for i in range(8)])
    with changed(folder / "rad_dino.h5") as file:
        file.attrs[attribute] = "another"
    with pytest.raises(InputError, match=attribute):
        run(world, folder)


@pytest.mark.parametrize(
    ("patients", "others", "reason"),
    [
        (["h0", "h0", "h1"], 6, "fewer than 4 held-out patients"),
        (["h0", "h1", "h2", "h3"], 0, "fewer than 4 further training patients"),
    ],
)
def test_too_few_patients_leave_the_reason(world, patients, others, reason):
    world.give_copies()
    world.train_on([f"t{i}" for i in range(others)])
    record = run(world, world.hold_out(patients))
    assert {value.reason for value in record.values} == {reason}


def test_training_patients_never_count_as_held_out(world):
    world.give_copies()
    with pytest.raises(InputError, match="share 1 patient"):
        world.hold_out(["pi0", "h1", "h2", "h3"])
