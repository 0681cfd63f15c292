"""The share of the ceiling above chance recovers the share of images that show what was asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.downstream.classification.metrics import drawn, points
from workflow_scripts.downstream.gains import patient_draws
from workflow_scripts.faithfulness.against_ceiling import (
    LEAST_ABOVE_CHANCE,
    Drawn,
    share_of_ceiling,
    why_not_asked,
)


def scored(rng, labels, shown, patient_of, spread):
    """Return a judge's scores: one higher where the finding is shown, alike within a patient."""
    own = rng.normal(size=patient_of.max() + 1)[patient_of]
    return shown + spread * (0.6 * own + 0.8 * rng.normal(size=len(labels)))


def one_run(rng, share, patients=50, each=4, draws=200):
    """Return the share of a model that shows what was asked with this probability."""
    patient_of = np.repeat(np.arange(patients), each)
    often = rng.beta(2, 2, patients)[patient_of]
    labels = (rng.random(len(patient_of)) < often).astype(float)
    # What is not shown as asked has nothing to do with the label.
    faithful = rng.random(len(labels)) < share
    shown = np.where(faithful, labels, rng.random(len(labels)) < often.mean())
    found, seed = [], int(rng.integers(2**31))
    for what in (shown, labels):
        scores = scored(rng, labels, what, patient_of, 1.0)[:, None]
        sets = drawn(labels[:, None], scores, patient_draws(patient_of, draws, seed))["auroc"]
        found.append(Drawn(points(labels[:, None], scores)["auroc"][0], sets[:, 0]))
    return share_of_ceiling(found[0], found[1], 0.5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_true_share_is_recovered_and_its_interval_covers(share):
    rng = np.random.default_rng(3)
    runs = [one_run(rng, share) for _ in range(60)]
    values = np.array([run.value for run in runs])
    assert abs(values.mean() - share) < 4 * values.std() / len(runs) ** 0.5 + 0.02
    covered = [low <= share <= high for low, high in (run.interval() for run in runs)]
    # 95% of 60 runs less three standard deviations.
    assert np.mean(covered) > 0.95 - 3 * (0.05 * 0.95 / 60) ** 0.5


@settings(max_examples=50, deadline=None)
@given(st.floats(0.55, 1.0), st.floats(0.0, 1.0))
def test_a_ceiling_is_itself_reached_and_chance_is_nothing(ceiling, score):
    draws = np.linspace(ceiling - 0.02, ceiling + 0.02, 9)
    top = Drawn(ceiling, draws)
    reached = share_of_ceiling(top, top, 0.5)
    assert reached.value == pytest.approx(1.0)
    assert reached.draws == pytest.approx(np.ones(9))
    nothing = Drawn(0.5, np.full(9, 0.5))
    assert share_of_ceiling(nothing, top, 0.5).value == 0.0
    assert share_of_ceiling(Drawn(score, draws), top, 0.5).value == pytest.approx(
        (score - 0.5) / (ceiling - 0.5)
    )


def test_a_share_of_correct_answers_is_corrected_as_rogan_and_gladen_do():
    # Of two sides, an image shows the asked one with probability 0.7, else the other one. A judge
    # that is right in 0.8 says so of 0.7 * 0.8 + 0.3 * 0.2 images.
    said = 0.7 * 0.8 + 0.3 * 0.2
    gladen = (said + 0.8 - 1) / (0.8 + 0.8 - 1)
    assert gladen == pytest.approx(0.7)
    # Chance is 0.5: 0.7 right and 0.3 wrong are 0.4 that follow and 0.6 that do not care.
    share = share_of_ceiling(Drawn(said, np.array([said])), Drawn(0.8, np.array([0.8])), 0.5)
    assert share.value == pytest.approx(2 * gladen - 1)


def test_a_judge_that_hardly_tells_it_is_not_asked():
    low = Drawn(0.63, np.linspace(0.56, 0.70, 41))
    assert "cannot tell it on radiographs: 0.63" in str(why_not_asked(low, 0.5))
    high = Drawn(0.75, np.linspace(0.65, 0.85, 41))
    assert why_not_asked(high, 0.5) is None
    assert why_not_asked(Drawn(0.5 + LEAST_ABOVE_CHANCE, np.array([0.6])), 0.5) is None


def test_draws_in_which_the_judge_is_at_chance_say_nothing():
    score, ceiling = Drawn(0.6, np.array([0.6, 0.6])), Drawn(0.7, np.array([0.5, 0.7]))
    share = share_of_ceiling(score, ceiling, 0.5)
    assert np.isnan(share.draws[0])
    assert share.draws[1] == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"a ceiling of 0\.5"):
        share_of_ceiling(score, Drawn(0.5, ceiling.draws), 0.5)
