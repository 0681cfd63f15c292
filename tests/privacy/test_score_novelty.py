"""The excess of training captions over held-out ones rises by memorisation only."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.clustered import World, binomial_bound, long_stays
from tests.feature_files import changed
from tests.privacy.conftest import write_h5
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import read_manifest, write_prompts
from workflow_scripts.common.records import read_record
from workflow_scripts.privacy.score_novelty import Side, main, nearness, novelty_values

# Few draws by default, many in the full tier.
RUNS = pytest.mark.parametrize("runs", [25, pytest.param(150, marks=pytest.mark.full)])


def side(world, rng, name, patients, images, replicates, memorised=0.0, shift=0.0):
    """Draw one side: captions of patients with one film each, and a model's images of them."""
    cohort = world.cohort(rng, patients, images)
    made = [
        world.repeats(rng, cohort, world.answers(rng, cohort, shift=shift), memorised)
        for _ in range(replicates)
    ]
    count = len(cohort.asked)
    return Side(
        cohort.features,
        np.char.add(name, cohort.patients.astype(str)),
        np.zeros(count, np.uint16),
        np.concatenate(made),
        np.tile(np.arange(count), replicates),
        np.repeat("", count * replicates),
    )


def both_sides(seed, caption, memorised=0.0, shift=0.0, patients=(30, 30)):
    """Draw both sides: training captions in three replicates, held-out captions in one."""
    rng = np.random.default_rng(seed)
    world = World(8, 0.3 * (1 - caption), caption)
    return (
        side(world, rng, "t", patients[0], 1, 3, memorised, shift),
        side(world, rng, "h", patients[1], long_stays(rng, patients[1], 6.0), 1, 0.0, shift),
    )


def values_of(training, held_out, draws=12):
    shares = nearness(training, held_out, draws)
    return novelty_values(shares, len(training.images), len(held_out.images))


@RUNS
@pytest.mark.parametrize(
    "caption",
    [pytest.param(0.2, marks=pytest.mark.full), pytest.param(0.36, marks=pytest.mark.full), 0.5],
)
def test_following_captions_is_not_called_memorising(caption, runs):
    measured = [values_of(*both_sides(seed, caption)) for seed in range(runs)]
    excess = np.array([values[2].value for values in measured])
    assert abs(excess.mean()) < 3 * excess.std() / runs**0.5
    above = sum(values[2].interval[0] > 0 for values in measured)
    assert above <= binomial_bound(runs, 0.05)
    if caption == 0.5:  # nearer to their own radiographs they are, on both sides alike
        assert np.mean([[v.value for v in values[:2]] for values in measured]) > 0.56


@RUNS
def test_images_far_from_all_radiographs_are_not_called_memorised(runs):
    """A single radiograph, of either side, is then the nearest to all images."""
    excesses = [values_of(*both_sides(seed, 0.36, shift=3.0))[2] for seed in range(runs)]
    assert sum(v.interval[0] > 0 for v in excesses) <= binomial_bound(runs, 0.05)


@pytest.mark.parametrize("runs", [6, pytest.param(40, marks=pytest.mark.full)])
def test_what_is_memorised_is_found(runs):
    excesses = [values_of(*both_sides(seed, 0.36, memorised=0.9))[2] for seed in range(runs)]
    assert all(value.interval[0] > 0 for value in excesses)


def test_copies_are_all_nearer_to_training():
    values = values_of(*both_sides(1, 0.2, memorised=1.0))
    assert values[0].value == 1
    assert values[0].interval[0] > 0.85  # of 30 patients it is not certain
    assert values[2].value == pytest.approx(1 - values[1].value)
    assert {value.n_reference for value in values} == {15}  # half of the patients


def test_the_shares_are_those_of_a_comparison_by_hand():
    """Four patients per side on a line; every draw takes two of each side."""

    def at(*places, findings=(1, 2, 4, 8), name="t"):
        places = np.array(places, float)[:, None]
        names = np.array([f"{name}{i}" for i in range(4)])
        return Side(places, names, np.array(findings, "u2"), places, np.arange(4), np.repeat("", 4))

    training = at(0, 10, 20, 30)
    apart = nearness(training, at(5, 15, 25, 35, name="h"))
    assert (apart.training == 1).all()  # each is its own radiograph
    assert (apart.held_out == 1).all()
    same = nearness(training, replace(training, patients=np.array(["h0", "h1", "h2", "h3"])))
    # An image whose radiograph is on both sides counts half: none, one or both of two.
    assert set(same.training * 2 * 4 % 1) == {0.0}
    assert 0.5 < same.training.mean() < 1
    assert same.training == pytest.approx(same.held_out)


def test_an_image_as_near_to_both_counts_half():
    training, held_out = both_sides(0, 0.2)
    flat = [replace(s, radiographs=0 * s.radiographs) for s in (training, held_out)]
    shares = nearness(*flat, draws=3)
    assert (shares.training == 0.5).all()
    assert (shares.held_out == 0.5).all()


def test_findings_alone_do_not_draw_images_to_training():
    """Most held-out patients lack the finding: without matching, the two sides would differ."""

    def with_finding(of, share, rng):
        has = (rng.random(len(of.patients)) < share).astype(np.uint16)
        return replace(
            of,
            findings=has,
            radiographs=of.radiographs + 3 * has[:, None],
            images=of.images + 3 * has[of.captions, None],
        )

    rng = np.random.default_rng(5)
    training, held_out = both_sides(3, 0.2, patients=(30, 150))
    training, held_out = with_finding(training, 0.9, rng), with_finding(held_out, 0.3, rng)
    blind = [replace(s, findings=0 * s.findings) for s in (training, held_out)]
    means = [nearness(*pair, draws=10).training.mean() for pair in ((training, held_out), blind)]
    assert means[0] < 0.65
    assert means[1] > means[0] + 0.05


def test_each_caption_counts_once_however_many_images_it_has():
    """Ninety images of one caption among a hundred change a share by one patient only."""
    training, held_out = both_sides(2, 0.2)
    many = np.concatenate([np.zeros(90, int), np.arange(30)])
    images = training.images[:30][many]
    images[:90] = training.radiographs[0]
    crowded = replace(training, images=images, captions=many, shown_patients=np.repeat("", 120))
    alone = replace(
        training,
        images=training.images[:30],
        captions=np.arange(30),
        shown_patients=np.repeat("", 40),
    )
    shares = [nearness(s, held_out, draws=30).training.mean() for s in (crowded, alone)]
    assert abs(shares[0] - shares[1]) < 0.08


def test_a_control_that_shows_a_patient_is_not_nearest_to_that_patient():
    training, held_out = both_sides(0, 0.2)
    rng = np.random.default_rng(6)
    # It shows training captions held-out patients, and held-out captions anybody but their own.
    of_held_out = rng.choice(len(held_out.patients), len(training.images))
    of_training = rng.choice(len(training.patients), len(held_out.images))
    shows = (
        replace(
            training,
            images=held_out.radiographs[of_held_out],
            shown_patients=held_out.patients[of_held_out],
        ),
        replace(
            held_out,
            images=training.radiographs[of_training],
            shown_patients=training.patients[of_training],
        ),
    )
    shares = nearness(*shows, draws=30)
    assert shares.training.mean() == pytest.approx(0.5, abs=0.1)
    assert shares.held_out.mean() == pytest.approx(0.5, abs=0.1)
    unnamed = nearness(
        *(replace(s, shown_patients=np.repeat("", len(s.images))) for s in shows), draws=30
    )
    assert unnamed.training.mean() < shares.training.mean() - 0.03
    assert unnamed.held_out.mean() < shares.held_out.mean() - 0.1


def test_copies_of_training_radiographs_count_and_copies_of_held_out_ones_do_not():
    """The control `training_copies` has each prompt's own radiograph, in both prompt sets."""
    copies = [
        replace(
            s, images=s.radiographs, captions=np.arange(len(s.patients)), shown_patients=s.patients
        )
        for s in both_sides(0, 0.2)
    ]
    values = values_of(*copies)
    assert values[0].value == 1
    assert values[1].value < 0.7
    assert values[2].interval[0] > 0


def test_what_cannot_be_compared_is_refused():
    training, held_out = both_sides(0, 0.2)
    with pytest.raises(ValueError, match="on both sides"):
        nearness(training, replace(held_out, patients=np.repeat("t0", len(held_out.patients))))
    few = replace(
        held_out, patients=np.char.add("h", (np.arange(len(held_out.patients)) % 3).astype(str))
    )
    with pytest.raises(ValueError, match="3 patients, fewer than 4"):
        nearness(training, few)


# The script


def ask_test_prompts(world, answered=True):
    """Write test prompts of the held-out radiographs and a model's images of them."""
    manifest = read_manifest(world.flags.manifest)
    test = manifest[manifest["split"] == "test"].assign(replicate=0, seed=7, second_wording=False)
    test["prompt_id"] = [f"test-{name}-r00" for name in test["image_id"]]
    test["caption"] = [f"caption {name}" for name in test["image_id"]]
    again = test.iloc[:1].assign(prompt_id="test-again-r00", second_wording=True)
    prompts = pd.concat([test, again], ignore_index=True)
    path = world.root / "test.parquet"
    write_prompts(prompts, path)
    folder = world.root / "answers/model"
    ids = list(prompts["prompt_id"]) if answered else ["test-again-r00"]
    points = np.random.default_rng(11).standard_normal((len(ids), 8))
    write_h5(folder, "rad_dino", points, ids, purpose="fidelity")
    return path, folder


def run(world, held_out, prompts, answers=None, protocol="sound"):
    output = world.root / "novelty.json"
    flags = world.flags
    main(
        [
            *("--model", "model", "--protocol", protocol, "--manifest", str(flags.manifest)),
            *("--prompts", str(flags.prompts), "--held-out-prompts", str(prompts)),
            *("--real", str(flags.real), "--held-out", str(held_out)),
            *("--generated", str(flags.generated), "--output", str(output)),
            *(("--answers", str(answers)) if answers else ()),
        ]
    )
    return read_record(output)


def test_the_record_holds_both_sides_and_the_excess(world):
    world.give_copies()
    held_out = world.hold_out([f"h{i}" for i in range(8)])
    record = run(world, held_out, *ask_test_prompts(world))
    assert record.family == "novelty"
    training, other, excess = (
        record.get(f"nearer_to_{of}") for of in ("training", "held_out", "training_excess")
    )
    assert training.value == 1  # each copy is at distance 0 of its own
    assert excess.value == pytest.approx(training.value - other.value)
    assert excess.interval[0] <= excess.value <= excess.interval[1]
    assert (training.n, other.n) == (18, 8)  # the second wording does not count
    assert training.n_reference == record.details["patients"] == 3
    assert len(record.provenance["inputs"]) == 4


def test_without_images_of_held_out_captions_the_excess_says_why(world):
    world.give_copies()
    held_out = world.hold_out([f"h{i}" for i in range(8)])
    prompts, nothing = ask_test_prompts(world, answered=False)
    for folder, reason in ((None, "no test images"), (nothing, "no held-out caption has an image")):
        record = run(world, held_out, prompts, folder)
        assert record.get("nearer_to_training").value == 1
        for name in ("nearer_to_held_out", "nearer_to_training_excess"):
            assert reason in record.get(name).reason


def test_as_published_prepares_test_images_otherwise_and_the_excess_says_so(world):
    world.give_copies("as_published")
    held_out = world.hold_out([f"h{i}" for i in range(8)], "as_published")
    record = run(world, held_out, *ask_test_prompts(world), protocol="as_published")
    assert "prepared otherwise" in record.get("nearer_to_training_excess").reason


@pytest.mark.parametrize("attribute", ["weights_sha256", "collection", "purpose"])
def test_features_of_another_origin_are_refused(world, attribute):
    world.give_copies()
    held_out = world.hold_out([f"h{i}" for i in range(8)])
    prompts, answers = ask_test_prompts(world)
    for folder in (answers, held_out):
        with changed(folder / "rad_dino.h5") as file:
            file.attrs[attribute] = "another"
        with pytest.raises(InputError, match=attribute):
            run(world, held_out, prompts, answers)


def test_too_few_patients_leave_the_reason(world):
    world.give_copies()
    held_out = world.hold_out(["h0", "h0", "h1"])
    record = run(world, held_out, *ask_test_prompts(world))
    assert {v.reason for v in record.values} == {"fewer than 4 patients have held-out captions"}


def test_training_patients_never_count_as_held_out(world):
    world.give_copies()
    with pytest.raises(InputError, match="share 1 patient"):
        world.hold_out(["pi0", "h1", "h2", "h3"])
