"""What canaries show of epsilon: the bound's level, its power, and the guesses it rests on."""

import numpy as np
import pytest
from scipy import special

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.private import ORDERS, draw_noise, draw_patients
from workflow_scripts.finetune.settings import PrivacySettings
from workflow_scripts.privacy.audit import (
    area,
    chance_of_guesses,
    epsilon_shown,
    exposure_by_chance,
    exposures,
    guess,
)
from workflow_scripts.privacy.score_guarantee import require_finite


def test_so_many_canaries_show_at_most_so_much():
    assert epsilon_shown(100, 100) == pytest.approx(3.493, abs=1e-3)
    assert epsilon_shown(9000, 9000) > 8 > epsilon_shown(8900, 8900)
    assert epsilon_shown(50, 100) == epsilon_shown(0, 100) == epsilon_shown(0, 0) == 0


def test_a_delta_lowers_what_is_shown():
    shown = [epsilon_shown(98, 100, delta) for delta in (0.0, 1e-4, 1e-2)]
    assert shown[0] > shown[1] > shown[2]
    assert chance_of_guesses(1.0, 0.0, 5, 5) == pytest.approx(special.expit(1.0) ** 5)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_randomised_response_is_overstated_in_five_percent_of_audits_at_most(epsilon):
    """No mechanism with this epsilon gives its coins away more often."""
    rng = np.random.default_rng(1)
    right = rng.binomial(100, special.expit(epsilon), 4000)
    shown = {int(k): epsilon_shown(int(k), 100) for k in np.unique(right)}
    over = np.mean([shown[int(k)] > epsilon for k in right])
    assert over <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def _trained(coins, secret, multiplier, steps=20, rate=0.5):
    """Sum noisy gradients of canaries that are orthogonal: the attack that sees most."""
    total = np.zeros(len(coins))
    for step in range(steps):
        drawn = draw_patients(secret, step, len(coins), rate)
        gradient = np.zeros(len(coins))
        gradient[drawn] = coins[drawn]
        total += gradient + draw_noise(secret, step, [(len(coins),)], multiplier)[0].numpy()
    return total


@pytest.mark.parametrize(("noisy", "most"), [(True, 0.05), (False, None)])
def test_an_audit_fails_where_the_noise_is_switched_off_and_only_there(noisy, most):
    from workflow_scripts.finetune.private import noise_multiplier

    privacy = PrivacySettings(1.0, 1e-6, "patient", 1.0)
    multiplier = noise_multiplier(privacy, 0.5, 20) if noisy else 0.0
    over = []
    for number in range(100):
        coins = np.random.default_rng([7, number]).random(60) < 0.5
        scores = _trained(coins, f"{number + 1:x}", multiplier)
        correct = int((guess(scores, np.ones(60, int)) == coins).sum())
        over.append(epsilon_shown(correct, 60, privacy.delta) > privacy.epsilon)
    assert np.mean(over) <= most if noisy else all(over)


def test_guesses_part_scores_without_a_look_at_coins():
    scores = np.array([0.0, 5.0, 0.1, 5.1, 1.0, 1.1, 9.0])
    groups = np.array([1, 1, 1, 1, 4, 4, 4])
    assert guess(scores, groups).tolist() == [False, True, False, True, False, False, True]


def test_exposure_of_a_canary_that_was_never_planted_is_that_of_chance():
    rng = np.random.default_rng(0)
    planted = np.arange(400) % 2 == 0
    scores = rng.normal(size=400)
    found = exposures(scores, planted)
    assert found[~planted].mean() == pytest.approx(exposure_by_chance(199), abs=0.05)
    assert found[planted].mean() == pytest.approx(exposure_by_chance(200), abs=0.3)
    known = exposures(scores + 100 * planted, planted)
    assert known[planted] == pytest.approx(np.log2(201))
    assert area(scores + 100 * planted, planted) == 1.0
    assert max(ORDERS) > 1000


def test_losses_that_are_not_finite_are_no_guesses_by_chance():
    scores = np.array([0.1, np.nan, 0.3, np.inf])
    with pytest.raises(InputError, match="losses of 2 of 4 canaries are not finite"):
        require_finite(scores, "my_private")
    require_finite(scores[[0, 2]], "my_private")
