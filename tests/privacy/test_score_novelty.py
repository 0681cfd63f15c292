"""Nearer to training or to unseen radiographs: what memorisation moves and what it must not."""

import numpy as np
import pandas as pd
import pytest

from tests.privacy.conftest import write_h5
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS, write_manifest
from workflow_scripts.common.records import read_record
from workflow_scripts.privacy.score_novelty import main, nearness

DIMENSIONS = 6


def population(rng, patients, images, name):
    """Patients of different looks, each with several radiographs alike."""
    centres = rng.standard_normal((patients, DIMENSIONS))
    points = np.repeat(centres, images, axis=0)
    points = points + 0.2 * rng.standard_normal(points.shape)
    return points, np.repeat([f"{name}{i}" for i in range(patients)], images)


@pytest.fixture
def references():
    rng = np.random.default_rng(3)
    # Many training patients with few radiographs each, few held-out ones with many, as in MIMIC.
    return (*population(rng, 400, 2, "t"), *population(rng, 60, 12, "h"))


def test_images_of_the_same_distribution_are_near_to_neither(references):
    rng = np.random.default_rng(4)
    images, prompts = population(rng, 150, 2, "g")
    found = nearness(images, prompts, *references)
    assert found.patients == 30
    assert found.third.mean() == pytest.approx(0.5, abs=0.05)
    low, high = np.quantile(found.resampled, [0.025, 0.975])
    assert low < 0.5 < high
    assert abs(found.generated.mean() - 0.5) < 0.06


def test_copies_of_training_images_are_nearer_to_training_and_of_unseen_ones_are_not(references):
    training, patients, held_out, unseen = references
    # A small training set, so that its references hold a good part of it.
    few = np.isin(patients, [f"t{i}" for i in range(40)])
    arguments = training[few], patients[few], held_out, unseen
    copies = nearness(training[few], patients[few], *arguments)
    assert copies.generated.mean() > 0.7
    assert np.quantile(copies.resampled, 0.025) > 0.5
    other = nearness(held_out, unseen, *arguments)
    assert other.generated.mean() < 0.4


def test_without_equal_sizes_the_training_set_would_win_by_its_size(references):
    training, _, held_out, _ = references
    rng = np.random.default_rng(5)
    images, _ = population(rng, 300, 1, "g")

    def nearest(points):
        return np.linalg.norm(images[:, None] - points[None], axis=2).min(axis=1)

    assert (nearest(training) < nearest(held_out)).mean() > 0.6


def test_an_image_as_near_to_both_counts_half():
    points = np.zeros((4, DIMENSIONS))
    found = nearness(
        np.ones((3, DIMENSIONS)), np.arange(3), points, np.arange(4), points, np.arange(4, 8)
    )
    assert (found.generated == 0.5).all()


def test_a_patient_in_both_references_is_refused():
    points = np.zeros((4, DIMENSIONS))
    with pytest.raises(ValueError, match="both references"):
        nearness(points, np.arange(4), points, np.arange(4), points, np.arange(3, 7))


def held_out_of(world, patients):
    """Add held-out radiographs of these patients to the manifest and write their features."""
    manifest = pd.read_parquet(world.flags.manifest)
    ids = [f"h{i}" for i in range(len(patients))]
    more = pd.DataFrame(
        {
            "image_id": ids,
            "patient_id": patients,
            "study_id": ids,
            "path": [f"{name}.png" for name in ids],
            "view": "PA",
            "split": "test",
            "caption": None,
            "caption_source": None,
        }
    )
    for finding in FINDINGS:
        more[finding] = pd.array([0] * len(ids), dtype="Int8")
    write_manifest(pd.concat([manifest, more], ignore_index=True), world.flags.manifest)
    rng = np.random.default_rng(8)
    folder = world.root / "features/held_out"
    write_h5(folder, "rad_dino", rng.standard_normal((len(ids), 8)), ids)
    return folder


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
    record = run(world, held_out_of(world, [f"h{i}" for i in range(8)]))
    assert record.family == "novelty"
    share, real = (record.get(f"nearer_to_training{of}") for of in ("", "_real"))
    assert share.interval[0] <= share.value <= share.interval[1]
    assert share.value > 0.7  # four of the six training radiographs are in every reference
    assert share.n_reference == real.n_reference == record.details["patients"] == 4


def test_too_few_held_out_patients_leave_the_reason_and_a_shared_one_stops(world):
    world.give_copies()
    record = run(world, held_out_of(world, ["h0", "h0", "h1"]))
    assert record.get("nearer_to_training").value is None
    assert "fewer than 4 held-out patients" in record.get("nearer_to_training").reason


def test_a_patient_in_training_and_held_out_stops(world):
    world.give_copies()
    with pytest.raises(InputError, match="pi0"):
        run(world, held_out_of(world, ["pi0", "h1", "h2", "h3"]))
