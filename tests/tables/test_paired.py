"""Differences between models: covered, told apart when they are there, not when they are not."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from workflow_scripts.common.records import Record, Value
from workflow_scripts.fidelity.comparison import replicates
from workflow_scripts.fidelity.jackknife import corrected_distance
from workflow_scripts.fidelity.kernel import kernel_distance
from workflow_scripts.fidelity.manifold import manifold_overlap
from workflow_scripts.fidelity.metrics import manifolds
from workflow_scripts.fidelity.resample import draw_resamples, units_of
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.derive.paired import difference, differences
from workflow_scripts.tables.matrices import PAIRED, matrices
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.render.as_csv import to_csv
from workflow_scripts.tables.run import Run

OVERLAPS = tuple(metric.key for metric in manifolds.METRICS)

IMAGES = {"real": "r", "generated": "g"}
METRICS = ("kid", "fid_corrected", *OVERLAPS)


def measured(model, real, generated):
    """Return a model's record with the values and replicates that the fidelity stage keeps."""
    resamples = draw_resamples(units_of(len(real), len(generated)), 200, np.random.default_rng(1))
    kid = kernel_distance(real, generated, resamples.units, resamples)
    corrected = corrected_distance(real, generated)
    overlap = manifold_overlap(real, generated)
    values = {"kid": kid.value, "fid_corrected": corrected.value}
    values |= {name: getattr(overlap, name) for name in OVERLAPS}
    kept = {"kid": replicates("bootstrap", kid.replicates, 100)}
    kept["fid_corrected"] = replicates("jackknife", corrected.without_groups, 20)
    kept |= {
        name: replicates("jackknife", left, 20) for name, left in overlap.without_groups().items()
    }
    return record(model, values, kept)


def record(model, values, kept, images=IMAGES):
    return Record(
        "fidelity",
        model,
        "rad_dino",
        "sound",
        [Value(name, value, "none", 100, "all", 120) for name, value in values.items()],
        {"images_sha256": images, "replicates": kept},
    )


def entry(key, family="stable_diffusion"):
    return ModelEntry(key, family, key.upper(), {})


@pytest.mark.parametrize("rounds", [40, pytest.param(150, marks=pytest.mark.full)])
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_intervals_cover_the_expected_difference(shift, rounds):
    """Two models that answer prompts with noise of their own, the second off by a shift."""
    found = {metric: [] for metric in METRICS}
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        real, prompts = rng.standard_normal((120, 8)), rng.standard_normal((100, 8))
        first, second = (
            0.8 * prompts + 0.6 * rng.standard_normal((100, 8)) + offset for offset in (0, shift)
        )
        pair = measured("a", real, first), measured("b", real, second)
        for metric in METRICS:
            found[metric].append(difference(*pair, metric))
    for metric, all_of_it in found.items():
        values = np.array([own.value for own in all_of_it])
        low, high = np.array([own.interval for own in all_of_it]).T
        covered = ((low <= values.mean()) & (values.mean() <= high)).mean()
        assert covered >= 0.93, (metric, covered)
        assert (high - low).mean() < 2.2 * 3.92 * values.std(), metric
    if shift:
        # Pairing pays: the difference is known better than from either interval alone.
        assert np.mean([own.p < 0.05 for own in found["kid"]]) > 0.9


def normal(value, spread, seed, count=400):
    rng = np.random.default_rng(seed)
    return replicates("bootstrap", value + spread * rng.standard_normal(count), 10_000)


def test_the_difference_of_a_bootstrap_and_of_a_jackknife_by_hand():
    def found_of(kind):
        first, second = (replicates(kind, np.array(part), 3) for part in ([1.0, 2, 4], [1.0, 1, 1]))
        pair = record("a", {"kid": 2}, {"kid": first}), record("b", {"kid": 1}, {"kid": second})
        return difference(*pair, "kid")

    found = found_of("bootstrap")
    # The spread of 0, 1, 3 is the root of 7/3; t(0.975, 2) = 4.302653, as of three patients.
    assert found.value == 1
    assert found.interval == pytest.approx((1 - 4.302653 * 1.527525, 1 + 4.302653 * 1.527525))
    found = found_of("jackknife")
    # 2 x the mean square of 0, 1, 3 about its mean: 2 x 14/9; t(0.975, 2) = 4.302653.
    half = 4.302653 * (28 / 9) ** 0.5
    assert found.interval == pytest.approx((1 - half, 1 + half))
    assert found.reversed().interval == pytest.approx((-1 - half, -1 + half))


def test_a_model_does_not_differ_from_itself():
    kept = {"kid": normal(1, 0.1, 0)}
    found = difference(record("a", {"kid": 1}, kept), record("b", {"kid": 1}, kept), "kid")
    assert (found.value, found.interval, found.p, found.separated) == (0, (0, 0), 1, False)


def test_what_cannot_be_compared_says_why():
    kept = {"kid": normal(1, 0.1, 0)}
    own = record("a", {"kid": 1}, kept)
    other = record("b", {"kid": 1}, kept, {"real": "r", "generated": "of other prompts"})
    assert "same prompts" in difference(own, other, "kid").reason
    absent = replace(own, model="c", values=[Value("kid", None, "none", 1, reason="only 1 image")])
    assert difference(own, absent, "kid").reason == "c: only 1 image"
    without = replace(own, details={"images_sha256": IMAGES})
    assert "interval" in difference(own, without, "kid").reason
    assert "no recall" in difference(own, own, "recall").reason


def made(values, spread=0.1, families=None):
    records, models = Records(), []
    for seed, (key, value) in enumerate(values.items()):
        kept = {column.metric: normal(value, spread, seed) for column in PAIRED.columns}
        named = {column.metric: value for column in PAIRED.columns}
        records.add(record(key, named, kept))
        models.append(entry(key, (families or {}).get(key, "stable_diffusion")))
    return records, models


def test_holm_looks_at_all_pairs():
    # p of a - b about 0.02: told apart where it is the only pair, not among ten.
    gap = 2.33 * 0.1 * 2**0.5
    records, models = made({"a": 1.0, "b": 1.0 + gap})
    assert differences(records, models, PAIRED.columns[0].metric)["a", "b"].separated
    records, models = made({"a": 1.0, "b": 1.0 + gap, "c": 1.1, "d": 1.2, "e": 1.15})
    found = differences(records, models, PAIRED.columns[0].metric)
    assert found["a", "b"].p < 0.05
    assert not any(own.separated for own in found.values())
    # A control far away does not make the models' pairs easier or harder.
    records, models = made({"a": 1.0, "b": 1.0 + gap, "z": 9.0}, families={"z": "control"})
    found = differences(records, models, PAIRED.columns[0].metric)
    assert found["a", "b"].separated
    assert found["a", "z"].separated


def test_the_matrix_has_the_best_first_and_both_directions():
    records, models = made({"far": 3.0, "near": 1.0, "z": 0.5}, families={"z": "control"})
    kid, *_, coverage = matrices(Run(records, models, "World"))
    assert [own.key for own in kid.entries] == ["near", "far", "z"]
    assert [own.key for own in coverage.entries] == ["far", "near", "z"]
    assert kid.cells[0][0] is None
    assert (kid.cells[0][1].value, kid.cells[1][0].value) == (-2, 2)
    assert kid.cells[0][1].interval == tuple(-bound for bound in kid.cells[1][0].interval[::-1])


def test_the_table_has_a_row_for_each_pair_of_models():
    records, models = made({"a": 1.0, "b": 3.0, "c": 1.01, "z": 9.0}, families={"z": "control"})
    table = one_table(PAIRED.stem, Run(records, models, "World"))
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [row["Pair"] for row in rows] == ["A − B", "A − C", "B − C"]
    assert float(rows[0]["KID ↓"]) == -2
    assert float(rows[0]["KID ↓ [low]"]) < -2 < float(rows[0]["KID ↓ [high]"])
    assert [row.cells[0].beyond_noise for row in table.rows] == [True, False, True]
    assert "Best in bold" not in table.caption
    assert one_table(PAIRED.stem, Run(records, models[:1], "World")).rows == ()
