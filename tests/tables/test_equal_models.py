"""Models that are equally good, measured on features of patients with many images."""

import numpy as np
import pytest

from tests.clustered import World, binomial_bound
from workflow_scripts.common.records import Record, Value
from workflow_scripts.fidelity.comparison import replicates
from workflow_scripts.fidelity.jackknife import corrected_distance
from workflow_scripts.fidelity.kernel import kernel_distance
from workflow_scripts.fidelity.manifold import manifold_overlap
from workflow_scripts.fidelity.metrics import manifolds
from workflow_scripts.fidelity.resample import draw_resamples, means_without, units_of
from workflow_scripts.tables.all_tables import RANKED
from workflow_scripts.tables.derive.leaderboard import better_beyond_noise
from workflow_scripts.tables.derive.paired import differences
from workflow_scripts.tables.matrices import PAIRED
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.records_in import Records

OVERLAPS = tuple(metric.key for metric in manifolds.METRICS)

MODELS = [ModelEntry(f"m{i}", "sana", f"M{i}", {}) for i in range(5)]


def measured(key, real, generated, cosines, resamples, asked):
    """Return a model's record with the values and replicates that the fidelity stage keeps."""
    units = resamples.units
    kid = kernel_distance(real, generated, units, resamples)
    fid = corrected_distance(real, generated, units)
    overlap = manifold_overlap(real, generated, units=units)
    left = means_without(cosines, asked)
    values = {"fid": fid.value, "fid_corrected": fid.value, "kid": kid.value}
    values |= {"alignment": cosines.mean()} | {name: getattr(overlap, name) for name in OVERLAPS}
    kept = {
        "kid": replicates("bootstrap", kid.replicates, units.fewest),
        "alignment": replicates("jackknife", left, len(left)),
        "fid_corrected": replicates("jackknife", fid.without_groups, len(fid.without_groups)),
    }
    for name, own in overlap.without_groups().items():
        kept[name] = replicates("jackknife", own, len(own))
    held = [Value(name, float(value), "none", 99) for name, value in values.items()]
    details = {"images_sha256": {"real": "r", "generated": "g"}, "replicates": kept}
    return Record("fidelity", key, "rad_dino", "sound", held, details)


def five_equal_models(seed, patients, images, icc, *, by_image=False):
    rng = np.random.default_rng(seed)
    world, scalar = World(6, icc, 0.1), World(1, icc, 0.1)
    cohort, captions = world.cohort(rng, patients, images), scalar.cohort(rng, patients, images)
    units = units_of(cohort.patients, cohort.asked)
    asked = cohort.asked
    if by_image:
        units, asked = units_of(len(cohort.features), len(asked)), np.arange(len(asked))
    resamples = draw_resamples(units, 150, rng)
    records = Records()
    for model in MODELS:
        generated = world.answers(rng, cohort, together=True)
        cosines = scalar.answers(rng, captions, together=True)[:, 0]
        records.add(measured(model.key, cohort.features, generated, cosines, resamples, asked))
    return records


@pytest.mark.parametrize(
    ("patients", "images", "icc", "runs"),
    [
        (30, 6, 0.3, 8),
        pytest.param(30, 6, 0.3, 100, marks=pytest.mark.full),
        pytest.param(30, 10, 0.5, 100, marks=pytest.mark.full),
        pytest.param(40, 17, 0.1, 60, marks=pytest.mark.full),
    ],
)
def test_equal_models_are_rarely_told_apart(patients, images, icc, runs):
    """In no column of Table 1c, and in the ranks over all metrics, in more than 5% of runs."""
    false = {column.metric: 0 for column in PAIRED.columns}
    ranked = 0
    for seed in range(runs):
        records = five_equal_models(seed, patients, images, icc)
        for column in PAIRED.columns:
            found = differences(records, MODELS, column.metric)
            assert all(own.value is not None for own in found.values())
            false[column.metric] += any(own.separated for own in found.values())
        ranked += bool(better_beyond_noise(records, MODELS, RANKED).any())
    assert max(*false.values(), ranked) <= binomial_bound(runs, 0.05), (false, ranked)


@pytest.mark.full
def test_image_by_image_they_would_be():
    ranked = 0
    for seed in range(40):
        records = five_equal_models(seed, 30, 10, 0.5, by_image=True)
        ranked += bool(better_beyond_noise(records, MODELS, RANKED).any())
    assert ranked > binomial_bound(40, 0.05)
