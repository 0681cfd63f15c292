"""Slopes along the ladders: a planted dependence is found, and the intervals hold it."""

import numpy as np
import pytest

from workflow_scripts.common.records import Record, Value
from workflow_scripts.tables.all_tables import one_table
from workflow_scripts.tables.derive.slopes import FEWEST_STEPS, Axes, Gains, fitted
from workflow_scripts.tables.models import ModelEntry
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

# Texture (dB) and relative Dice of a step: five that are blurred, five that are warped.
BLURRED = [(0.5 + 5 * k, 1 - 0.01 * k) for k in range(5)]
WARPED = [(1 + 0.2 * k, 1 - 0.08 * (k + 1)) for k in range(5)]


def control(key, kind):
    return ModelEntry(key, "control", key, {}, settings={"control": kind})


def run_of(segmentation, classification):
    """A run whose gains are functions of texture and topology lost, in the table's units."""
    records, models = Records("sound"), []
    rng = np.random.default_rng(0)
    steps = [("blurred_real", s) for s in BLURRED] + [("warped_real", s) for s in WARPED]
    # A control that is no step, far off: it must not move the slopes.
    for i, (kind, (decibels, dice)) in enumerate([*steps, ("noise", (60.0, 0.1))]):
        model = control(f"step_{i}", kind)
        models.append(model)
        seen = [
            Value("spectrum_distance", decibels, "lower", 90),
            Value("organ_dice_share", dice, "none", 90),
        ]
        records.add(Record("faithfulness", model.key, "texture", "sound", seen))
        for family, metric, of in (
            ("segmentation/augmented", "dice_gain", segmentation),
            ("classification/augmented", "auroc_gain", classification),
        ):
            gain = of(decibels / 10, (1 - dice) / 0.1) if kind != "noise" else -1.0
            value = Value(metric, gain + 0.002 * rng.standard_normal(), "higher", 90)
            records.add(Record("downstream", model.key, family, "sound", [value]))
    return Run(records, models, "World")


def rows_of(run):
    return {row.key: row.cells for row in one_table("table21c_slopes", run).rows}


def test_segmentation_that_lives_on_texture_is_told_from_classification_that_does_not():
    rows = rows_of(run_of(lambda x, y: -0.05 * x, lambda x, y: -0.01 * y))
    texture, p, topology, _ = rows["segmentation"]
    assert texture.value == pytest.approx(-0.05, abs=0.004)
    assert texture.interval[1] < 0
    assert p.value < 0.001
    assert topology.interval[0] < 0 < topology.interval[1]
    texture, p, topology, _ = rows["classification"]
    assert texture.interval[0] < 0 < texture.interval[1]
    assert topology.value == pytest.approx(-0.01, abs=0.003)
    difference, p, _, _ = rows["difference"]
    assert difference.value == pytest.approx(-0.05, abs=0.005)
    assert difference.interval[1] < 0
    assert p.value < 0.001


def test_tasks_that_suffer_alike_are_not_told_apart():
    rows = rows_of(run_of(lambda x, y: -0.05 * x, lambda x, y: -0.05 * x))
    difference, p, _, _ = rows["difference"]
    assert difference.interval[0] < 0 < difference.interval[1]
    assert p.value > 0.05


def test_a_task_that_did_not_run_and_too_few_steps_say_so():
    run = run_of(lambda x, y: -x, lambda x, y: -x)
    assert "0 step(s)" in rows_of(run)["report_generation"][0].reason
    few = Run(run.records, run.models[: FEWEST_STEPS - 1], "World")
    assert f"{FEWEST_STEPS - 1} step(s)" in rows_of(few)["segmentation"][0].reason


def test_one_ladder_whose_steps_lose_both_at_once_says_that_nothing_parts_them():
    lost = np.linspace(0, 1, 8)
    assert "vary together" in fitted(Axes(np.column_stack([lost, 2 * lost])), Gains(lost**2))


PLACES = np.array([*BLURRED, *WARPED]) / (10, -0.1) + (0, 10)
AXES = Axes(PLACES)


def test_intervals_hold_the_true_slopes_as_often_as_they_promise():
    rng = np.random.default_rng(1)
    truth = np.array([-0.05, 0.02])
    held = np.zeros(2)
    n = 1500
    for _ in range(n):
        gains = PLACES @ truth + 0.03 * rng.standard_normal(len(PLACES))
        held += [
            s.interval[0] <= t <= s.interval[1]
            for s, t in zip(fitted(AXES, Gains(gains)), truth, strict=True)
        ]
    assert (np.abs(held / n - 0.95) < 0.02).all()


def cohort_of(rng, patients, by_patient, by_film, by_seed):
    """Gains at each step on test patients of whom each has slopes of its own, and their draws.

    Args:
        rng: what draws them.
        patients: how many; a patient has one to four films.
        by_patient: standard deviation of a patient's own slopes.
        by_film: of a film's own gain at a step.
        by_seed: of what the seed of a step does to all films.
    """
    films = rng.integers(1, 5, patients)
    own = TRUTH + by_patient * rng.standard_normal((patients, 2))
    level = rng.normal(0, 0.1, patients)  # what a patient does to all steps alike falls out
    sums = films[:, None] * (own @ PLACES.T + level[:, None])
    sums += by_film * np.sqrt(films)[:, None] * rng.standard_normal((patients, len(PLACES)))
    seeds = by_seed * rng.standard_normal(len(PLACES))
    times = rng.multinomial(patients, np.full(patients, 1 / patients), size=200)
    draws = (times @ sums) / (times @ films)[:, None] + seeds
    return Gains(sums.sum(axis=0) / films.sum() + seeds, draws, patients)


TRUTH = np.array([-0.05, 0.02])


@pytest.mark.parametrize(
    ("patients", "by_patient", "by_film", "by_seed"),
    [
        (60, 0.10, 0.05, 0.005),  # patients turn the line
        (60, 0.0, 0.02, 0.03),  # seeds alone
        (60, 0.05, 0.3, 0.03),  # both, and films
        (60, 0.0, 0.3, 0.0),  # films alone, which are in the scatter and in the draws
        (25, 0.10, 0.1, 0.02),
    ],
)
def test_intervals_hold_the_slopes_of_all_patients_whether_patients_or_seeds_turn_them(
    patients, by_patient, by_film, by_seed
):
    rng = np.random.default_rng(2)
    held, n = np.zeros(2), 400
    for _ in range(n):
        gains = cohort_of(rng, patients, by_patient, by_film, by_seed)
        held += [
            s.interval[0] <= t <= s.interval[1]
            for s, t in zip(fitted(AXES, gains), TRUTH, strict=True)
        ]
    assert (held / n > 0.92).all(), held / n
    assert (held / n < 0.995).all(), held / n


def test_the_scatter_of_steps_alone_misses_what_patients_do_to_all_steps_together():
    rng = np.random.default_rng(3)
    held, n = 0, 200
    for _ in range(n):
        gains = cohort_of(rng, 60, 0.10, 0.05, 0.005)
        slope = fitted(AXES, Gains(gains.values))[0]
        assert slope.kind.endswith("for these test patients")
        assert fitted(AXES, gains)[0].kind.endswith(
            "over test patients and steps, axes as measured"
        )
        held += slope.interval[0] <= TRUTH[0] <= slope.interval[1]
    assert held / n < 0.7


def measured_axes(rng, patients, by_patient, suffer):
    """Gains and axes of a cohort whose patients lose texture and topology unlike one another.

    Args:
        rng: what draws them.
        patients: how many; a film each.
        by_patient: standard deviation of the factor by which a patient's film loses more, and
            of its own loss at a step, in a tenth of the axes' units.
        suffer: whether a patient who loses more also gains less by it.
    """
    factors = 1 + by_patient * rng.standard_normal((patients, 1, 2))
    lost = PLACES * factors + 0.1 * by_patient * rng.standard_normal((patients, *PLACES.shape))
    shown = lost if suffer else np.broadcast_to(PLACES, lost.shape)
    gains = shown @ TRUTH + 0.01 * rng.standard_normal(lost.shape[:2])
    seeds = 0.001 * rng.standard_normal(len(PLACES))
    times = rng.multinomial(patients, np.full(patients, 1 / patients), size=200) / patients
    axes = Axes(lost.mean(axis=0), np.einsum("bp,psk->bsk", times, lost), ("sets",))
    return axes, Gains(gains.mean(axis=0) + seeds, times @ gains + seeds, patients, ("sets",))


@pytest.mark.parametrize("suffer", [False, True])
def test_the_error_of_the_axes_is_in_the_intervals(suffer):
    """Texture measured on 40 patients, of whom one loses 0.6 of another's: errors of a tenth."""
    rng = np.random.default_rng(4)
    held, known, n = np.zeros(2), np.zeros(2), 200
    for _ in range(n):
        axes, gains = measured_axes(rng, 40, 0.6, suffer)
        fit, blind = fitted(axes, gains), fitted(Axes(axes.values), gains)
        assert fit[0].kind.endswith("over test patients and steps")
        held += [s.interval[0] <= t <= s.interval[1] for s, t in zip(fit, TRUTH, strict=True)]
        known += [s.interval[0] <= t <= s.interval[1] for s, t in zip(blind, TRUTH, strict=True)]
    assert (held / n > 0.92).all(), held / n
    if suffer:  # gain and axis err together: axes taken as known make the intervals too wide
        assert (known / n > 0.99).all(), known / n
        assert (held / n < 0.99).all(), held / n
    else:
        assert known[0] / n < 0.8, known / n


def test_error_of_the_axes_draws_slopes_to_zero_by_its_share_and_no_more():
    rng = np.random.default_rng(5)
    found, shares = [], []
    for _ in range(150):
        axes, gains = measured_axes(rng, 40, 0.6, suffer=False)
        found.append(np.array([slope.value for slope in fitted(axes, gains)]) / TRUTH)
        errors = axes.draws.var(axis=0).mean(axis=0)
        shares.append(errors / axes.values.var(axis=0))
    share = np.mean(shares, axis=0).max()
    assert 0 < share < 0.05
    drawn_to_zero = 1 - np.mean(found, axis=0)
    errors = np.std(found, axis=0) / len(found) ** 0.5
    assert (np.abs(drawn_to_zero) < share + 3 * errors).all(), (drawn_to_zero, share, errors)


def test_axes_on_other_sets_are_independent_of_the_gains_draws():
    axes, gains = measured_axes(np.random.default_rng(6), 40, 0.6, suffer=True)
    apart = Axes(axes.values, axes.draws, ("other sets",))
    same, other = (fitted(one, gains)[0].interval for one in (axes, apart))
    # Errors that cancel where patients are the same ones do not where they are not.
    assert np.ptp(other) > 1.2 * np.ptp(same)
    few = Axes(axes.values, axes.draws[:50], ("sets",))
    assert fitted(few, gains)[0].kind.endswith("axes as measured")
