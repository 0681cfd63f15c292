"""The lenses: alarms in excess of those that other prompts' radiographs raise."""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.clustered import World, binomial_bound
from tests.privacy.conftest import World as Files
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, read_record, write_record
from workflow_scripts.privacy.other_prompts import other_radiographs
from workflow_scripts.privacy.private_table import write_private_table
from workflow_scripts.privacy.score import LENSES, OTHERS_SCHEMA, PAIR_SCHEMA, Settings
from workflow_scripts.privacy.score_lenses import (
    METRICS,
    Alarms,
    Risks,
    lens_values,
    main,
    risks,
)
from workflow_scripts.tables.copies import words_of_copies

# Few draws by default, many in the full tier.
RUNS = pytest.mark.parametrize("runs", [50, pytest.param(150, marks=pytest.mark.full)])
DIMENSIONS = 6
"""Number of features of each lens."""


def least(runs):
    """Return the least number of runs that a 95% interval must cover: 3 standard errors below."""
    return runs - binomial_bound(runs, 0.05)


def risks_of(seed, patients=30, replicates=2, sharp=1.0, caption=0.0, copied=0.0, sees=()):
    """Draw the risks of a model's images, against their own radiographs and other prompts'.

    Each of four lenses measures the distance in features of its own. The images show no patient,
    and their spread is `sharp` times that of radiographs. The share `copied` of them are near
    copies, in the features of the lenses in `sees`.
    """
    rng = np.random.default_rng(seed)
    world = World(len(LENSES) * DIMENSIONS, 0.3 * (1 - caption), caption)
    cohort = world.cohort(rng, patients, 1)
    seen = np.repeat([lens in sees for lens in LENSES], DIMENSIONS)
    images = []
    for _ in range(replicates):
        drawn = sharp * world.answers(rng, cohort)
        images.append(np.where(seen, world.repeats(rng, cohort, drawn, copied), drawn))
    names = pd.Index([f"i{k}" for k in range(patients)], name="image_id")
    known = pd.Series([f"p{k}" for k in range(patients)], index=names)
    pairs = other_radiographs(known, np.zeros(patients, np.uint16), seed=seed)
    row = dict(zip(names, range(patients), strict=True))

    def compared(first, second):
        moved = np.array(images)[:, first] - cohort.features[second]
        parts = moved.reshape(replicates, len(first), len(LENSES), DIMENSIONS)
        values = -np.square(parts).sum(axis=3).min(axis=0)
        return Risks(values, known.to_numpy(str)[first], known.to_numpy(str)[second])

    everybody = np.arange(patients)
    own = compared(everybody, everybody)
    return own, compared(*([row[name] for name in pairs[column]] for column in pairs))


def values_of(own, chance, bootstrap=60):
    return lens_values(own, chance, Settings(bootstrap=bootstrap))


@RUNS
@pytest.mark.parametrize("sharp", [1.0, 0.3])
def test_unrelated_images_raise_the_alarm_for_a_twentieth_of_the_prompts(sharp, runs):
    """It holds for each lens and for any of them, and for smooth images, which are near to all."""
    measured = [values_of(*risks_of(seed, sharp=sharp)) for seed in range(runs)]
    shares = np.array([[value.value for value in values] for values in measured])
    error = shares.std(axis=0) / runs**0.5
    assert (shares.mean(axis=0) < 0.05 + 3 * error).all(), shares.mean(axis=0)
    assert shares[:, :-1].mean() > 0.04  # `any` may be below: a tail of a few pairs is coarse
    covered = [[v.interval[0] <= 0.05 <= v.interval[1] for v in values] for values in measured]
    assert (np.sum(covered, axis=0) >= least(runs)).all()


@functools.cache  # for all numbers of patients
def of_many_prompts(copied):
    """Return the share of alarms among the prompts of 1500 patients, some images being copies."""
    how = {"copied": copied, "sees": ("latent",)}
    return np.mean([values_of(*risks_of(9000 + k, 1500, **how), 0)[1].value for k in range(6)])


@pytest.mark.full
@pytest.mark.parametrize("patients", [30, 100, 300])
@pytest.mark.parametrize("copied", [0.0, 0.3])
def test_the_interval_covers_what_many_prompts_give(patients, copied):
    """Some images of the model are copies; 5% of chance pairs raise the alarm."""
    runs = 100 if patients < 300 else 40
    how = {"copied": copied, "sees": ("latent",)}
    truth = of_many_prompts(copied)
    measured = [values_of(*risks_of(seed, patients, **how), bootstrap=100) for seed in range(runs)]
    covered = [v[1].interval[0] <= truth <= v[1].interval[1] for v in measured]
    assert sum(covered) >= least(runs)


@pytest.mark.parametrize("seed", range(4))
def test_copies_always_raise_the_alarm_of_the_lens_that_sees_them_and_of_any(seed):
    own, chance = risks_of(seed, copied=1.0, sees=("mirrored",))
    by_metric = {value.metric: value for value in values_of(own, chance)}
    assert by_metric["mirrored_seen"].value == by_metric["any_seen"].value == 1
    assert 0.85 < by_metric["any_seen"].interval[0] < 1  # of 30 patients it is not certain
    assert by_metric["pixel_seen"].value < 0.3
    assert (by_metric["any_seen"].n, by_metric["any_seen"].n_reference) == (30, 150)


def test_alarms_are_those_of_tail_ranks_counted_one_by_one():
    own, chance = risks_of(3, copied=0.3, sees=("reid", "pixel"))
    many = len(chance.values) + 1
    raised = Alarms(own, chance).raised(np.ones(many - 1))
    chance_ranks = [min(np.sum(chance.values >= x, axis=0)) / many for x in chance.values]
    for prompt, x in enumerate(own.values):
        ranks = (1 + np.sum(chance.values >= x, axis=0)) / many
        of_any = (1 + sum(rank <= ranks.min() + 1e-12 for rank in chance_ranks)) / many
        assert raised[:, prompt].tolist() == [*(ranks <= 0.05), of_any <= 0.05]
    # A pair of weight two is two pairs.
    twice = np.where(np.arange(many - 1) < 40, 2.0, 1.0)
    rows = np.repeat(np.arange(many - 1), twice.astype(int))
    longer = Risks(chance.values[rows], chance.prompts[rows], chance.compared[rows])
    assert (Alarms(own, chance).raised(twice) == Alarms(own, longer).raised(twice[rows] ** 0)).all()


def test_the_scale_of_a_lens_does_not_matter():
    own, chance = risks_of(5, copied=0.5, sees=("reid",))
    moved = [Risks(np.exp(r.values * [1, 2, 3, 0.5]), r.prompts, r.compared) for r in (own, chance)]
    weights = np.ones(len(chance.values))
    assert (Alarms(own, chance).raised(weights) == Alarms(*moved).raised(weights)).all()


def test_a_lens_that_cannot_tell_sees_nothing():
    """If all scores are equal, no prompt is riskier than chance."""
    own, chance = (Risks(0 * r.values, r.prompts, r.compared) for r in risks_of(0))
    assert {value.value for value in values_of(own, chance)} == {0}


def test_the_interval_counts_that_chance_is_a_sample():
    """Twenty radiographs estimate chance less precisely than a hundred."""
    own, chance = risks_of(1, 100)
    few = np.isin(chance.compared, [f"p{k}" for k in range(20)])
    fewer = Risks(chance.values[few], chance.prompts[few], chance.compared[few])
    widths = []
    for known in (chance, fewer):
        values = values_of(own, known, 300)[:-1]
        # In units of what the share itself would give, were the alarm known.
        units = [(v.value * (1 - v.value) / 100) ** 0.5 for v in values]
        widths.append(np.mean([np.ptp(v.interval) / u for v, u in zip(values, units, strict=True)]))
    assert widths[1] > 1.3 * widths[0] > 1.3 * 2 * 1.96


def test_the_prompts_of_one_patient_are_one_unit():
    own, chance = risks_of(2, 100, copied=1.0, sees=("reid",))
    fewer = [
        Risks(
            r.values,
            *(np.array([str(int(x[1:]) // 4) for x in y]) for y in (r.prompts, r.compared)),
        )
        for r in (own, chance)
    ]
    low, few_low = (values_of(*pair)[0].interval[0] for pair in ((own, chance), fewer))
    assert low == pytest.approx(100 / (100 + 1.96**2))  # Wilson's of all of 100, and of 25
    assert few_low == pytest.approx(25 / (25 + 1.96**2))


def test_few_prompts_or_pairs_leave_the_reason():
    own, chance = risks_of(0, 19)
    assert {v.reason for v in values_of(own, chance)} == {
        "prompts of 19 patients: at least 20 are needed"
    }
    own, chance = risks_of(0, 20)
    few = Risks(chance.values[:99], chance.prompts[:99], chance.compared[:99])
    assert {v.reason for v in values_of(own, few)} == {
        "99 pairs with other prompts' radiographs: 100 are needed"
    }
    assert all(v.reason is None for v in values_of(own, chance))
    assert tuple(v.metric for v in values_of(own, chance)) == METRICS


# The tables and the script


def table(images, others=None, replicates=2, **lenses):
    n = len(images) * replicates
    frame = pd.DataFrame({"image_id": np.repeat(images, replicates)})
    frame["replicate"] = np.tile(np.arange(replicates, dtype=np.int32), len(images))
    frame["prompt_id"] = frame["image_id"] + "-" + frame["replicate"].astype(str)
    if others is not None:
        frame["other_image_id"] = np.repeat(others, replicates)
    for lens in LENSES:
        frame[lens] = lenses.get(lens, np.arange(n, dtype=float))
    return frame


def test_the_riskiest_image_of_a_prompt_counts_before_each_radiograph():
    patient_of = pd.Series({"a": "p", "b": "q"})
    own = risks(table(["a", "b"], reid=[0.1, 0.4, 0.3, 0.2], latent=[5.0, 6, 8, 7]), patient_of)
    assert own.values[:, :2].tolist() == [[0.4, -5], [0.3, -7]]
    assert own.prompts.tolist() == own.compared.tolist() == ["p", "q"]
    pairs = table(["a", "a", "b"], ["b", "a", "a"], reid=[0.1, 0.2, 0.3, 0.4, 0.6, 0.5])
    chance = risks(pairs, patient_of)
    assert chance.values[:, 0].tolist() == [0.2, 0.4, 0.6]
    assert chance.prompts.tolist() == ["p", "p", "q"]
    assert chance.compared.tolist() == ["q", "p", "p"]


def test_the_record_from_the_command_line(tmp_path):
    files = Files(tmp_path)
    images = files.images + files._add([f"t{k}" for k in range(24)], "train")
    own = table(images, latent=np.zeros(60))
    first = np.repeat(images, 4)
    second = np.concatenate([np.roll(images, -k)[[j]] for j in range(30) for k in range(1, 5)])
    others = table(first, second)
    paths = [tmp_path / "pairs.parquet", tmp_path / "others.parquet"]
    write_private_table(own, PAIR_SCHEMA, paths[0])
    write_private_table(others, OTHERS_SCHEMA, paths[1])
    output, beside = tmp_path / "lenses.json", tmp_path / "m.json"
    read = dict.fromkeys(("encoder", "weights_sha256", "preprocessing", "collection"), "x")
    read |= {"collection_sha256": "c", "repeated_images": 12, "constant_images": 3}
    pairwise = Record("privacy", "m", "pairwise", "sound", [], provenance={"inputs": [read]})
    write_record(pairwise, beside)
    words = ["--model", "m", "--protocol", "sound", "--manifest", str(files.flags.manifest)]
    words += ["--pairs", str(paths[0]), "--others", str(paths[1]), "--output", str(output)]
    words += ["--record", str(beside)]
    main(words)
    record = read_record(output)
    assert (record.stage, record.family) == ("privacy", "lenses")
    seen = record.get("latent_seen")
    assert (seen.value, seen.n, seen.n_reference) == (1, 30, 120)
    assert record.provenance["inputs"] == [read]
    assert words_of_copies([("M", record)]).endswith(": M: 12 repeat another, 3 blank.")
    for other in ({"model": "n"}, {"protocol": "as_published"}, {"family": "closest"}):
        write_record(replace(pairwise, **other), beside)
        with pytest.raises(InputError, match=r"a record of privacy, .*, not of privacy, pairwise"):
            main(words)
    write_record(pairwise, beside)
    write_private_table(others.assign(image_id="another"), OTHERS_SCHEMA, paths[1])
    with pytest.raises(InputError, match="of other prompts than the pairs"):
        main(words)
    write_private_table(others.assign(other_image_id="nobody"), OTHERS_SCHEMA, paths[1])
    with pytest.raises(InputError, match="not in the manifest"):
        main(words)
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    with pytest.raises(InputError, match="cannot read a table of pairs"):
        main(words)
