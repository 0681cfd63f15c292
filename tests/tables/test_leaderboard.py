"""Intervals of ranks: exact against all orders that are possible, and covering a known truth."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from workflow_scripts.common.records import Record, Value
from workflow_scripts.fidelity.comparison import replicates
from workflow_scripts.tables.all_tables import LEADERBOARD, RANKED, one_table
from workflow_scripts.tables.derive.leaderboard import better_beyond_noise, rank_bounds
from workflow_scripts.tables.models import parse_models
from workflow_scripts.tables.records_in import Records
from workflow_scripts.tables.run import Run

OWN = [metric for metric in RANKED if metric.family == "rad_dino"]
SIGNS = np.array([-1 if metric.direction == "higher" else 1 for metric in OWN])
BOOTSTRAPPED = ("kid", "alignment")


def models_of(count):
    return parse_models(json.dumps([{"key": f"m{i}", "family": "sana"} for i in range(count)]))


def rank(values):
    return stats.rankdata(values, method="min", axis=0)


# What known differences leave open


def orders(models):
    """Return the ranks of every order of the models, ties included, once each."""
    every = itertools.product(range(models), repeat=models)
    return np.unique([rank(np.array(levels)) for levels in every], axis=0)


@pytest.mark.parametrize("seed", range(30))
def test_bounds_are_those_of_all_orders_that_agree_with_what_is_known(seed):
    rng = np.random.default_rng(seed)
    n, metrics = 4, 2
    every = orders(n)
    better = np.zeros((metrics, n, n), dtype=bool)
    for m in range(metrics):
        truth = every[rng.integers(len(every))]
        better[m] = (truth[:, None] < truth[None, :]) & (rng.random((n, n)) < 0.5)
    possible = []
    for known in better:
        agree = [order for order in every if (order[:, None] < order[None, :])[known].all()]
        possible.append(np.array(agree))
    found = rank_bounds(better)
    for m in range(metrics):
        assert found.low[:, m].tolist() == possible[m].min(axis=0).tolist()
        assert found.high[:, m].tolist() == possible[m].max(axis=0).tolist()
    both = (possible[0][:, None] + possible[1][None, :]).reshape(-1, n)
    assert found.average_low.tolist() == (both.min(axis=0) / 2).tolist()
    assert found.average_high.tolist() == (both.max(axis=0) / 2).tolist()
    # Who is ahead in every pair of orders is ahead for certain, and only they are.
    ahead = (both[:, :, None] < both[:, None, :]).all(axis=0)
    assert found.final_low.tolist() == (1 + ahead.sum(axis=0)).tolist()
    assert found.final_high.tolist() == (n - ahead.sum(axis=1)).tolist()


def test_what_follows_from_two_differences_is_known():
    better = np.zeros((1, 3, 3), dtype=bool)
    better[0, 0, 1] = better[0, 1, 2] = True
    found = rank_bounds(better)
    assert (found.low[:, 0].tolist(), found.high[:, 0].tolist()) == ([1, 2, 3], [1, 2, 3])


# The truth is known


def simulated(expected, rng, prompts=200, noise=1.0):
    """Return records of models whose images have these expected values, (models, metrics).

    Of a prompt's noise half is shared by the models, and half of that by the metrics, which the
    intervals do not know.
    """
    models, metrics = expected.shape
    shared = rng.standard_normal((prompts, 1, 1)) + rng.standard_normal((prompts, 1, metrics))
    own = rng.standard_normal((prompts, models, 1))
    own = (own + rng.standard_normal((prompts, models, metrics))) / 2**0.5
    images = expected + noise * (shared / 2**0.5 + own) / 2**0.5
    values = images.mean(axis=0)
    drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=200) / prompts
    resampled = np.einsum("rp,pmk->rmk", drawn, images, optimize=True)
    groups = images.reshape(20, -1, models, metrics).mean(axis=1)
    left = (20 * values - groups) / 19
    records = Records()
    for i in range(models):
        kept = {}
        for k, metric in enumerate(OWN):
            if metric.metric in BOOTSTRAPPED:
                kept[metric.metric] = replicates("bootstrap", resampled[:, i, k], prompts)
            else:
                name = "fid_corrected" if metric.metric == "fid" else metric.metric
                kept[name] = replicates("jackknife", left[:, i, k], 20)
        held = [Value(m.metric, float(v), "none", 99) for m, v in zip(OWN, values[i], strict=True)]
        details = {"images_sha256": {"real": "r", "generated": "g"}, "replicates": kept}
        records.add(Record("fidelity", f"m{i}", "rad_dino", "sound", held, details))
    return records, models_of(models)


def cells_of(table):
    return {row.key: {cell.column.header: cell for cell in row.cells} for row in table.rows}


def board(records, models):
    return cells_of(one_table(LEADERBOARD.stem, Run(records, models, "World")))


ALL_EQUAL = np.zeros((5, len(OWN)))
CLOSE = np.arange(5)[:, None] * 0.1 * SIGNS  # 1.4 standard errors of a difference from one to next
TWO_EQUAL = np.array([0, 0, 0.3, 1, 2])[:, None] * SIGNS
MIXED = np.random.default_rng(7).permuted(np.tile(np.arange(5), (len(OWN), 1)), axis=1).T * 0.3


@pytest.mark.parametrize("rounds", [30, pytest.param(120, marks=pytest.mark.full)])
@pytest.mark.parametrize("expected", [ALL_EQUAL, CLOSE, TWO_EQUAL, MIXED])
def test_all_intervals_hold_the_truth_together_as_often_as_they_promise(expected, rounds):
    by_metric = rank(expected * SIGNS)
    average = by_metric.mean(axis=1)
    final = rank(average)
    held = 0
    for seed in range(rounds):
        found = board(*simulated(expected, np.random.default_rng(seed)))
        inside = []
        for i in range(len(expected)):
            own = found[f"m{i}"]
            truth = {"Rank": final[i], "Average Rank": average[i]}
            truth |= {m.header: by_metric[i, k] for k, m in enumerate(OWN)}
            for header, value in truth.items():
                low, high = own[header].interval
                inside.append(low <= value <= high)
        held += all(inside)
    # Four standard errors of the count below 95%.
    assert held >= 0.95 * rounds - 4 * (0.95 * 0.05 * rounds) ** 0.5


def test_equal_models_share_ranks_and_far_ones_have_one_rank_each():
    found = board(*simulated(np.array([0, 0, 30, 60.0])[:, None] * SIGNS, np.random.default_rng(1)))
    for header in ("Rank", "Average Rank", *(metric.header for metric in OWN)):
        first, second = found["m0"][header].interval, found["m1"][header].interval
        assert first[0] <= second[1]
        assert second[0] <= first[1]
        assert found["m2"][header].interval == (3, 3)
        assert found["m3"][header].interval == (4, 4)


def test_the_board_has_the_best_first_and_is_the_same_each_time():
    records, models = simulated(np.array([60, 0, 30.0])[:, None] * SIGNS, np.random.default_rng(1))
    table = one_table(LEADERBOARD.stem, Run(records, models, "World"))
    assert [row.key for row in table.rows] == ["m1", "m2", "m0"]
    assert table == one_table(LEADERBOARD.stem, Run(records, models, "World"))
    turned = board(records, models[::-1])
    assert {key: own["Rank"].interval for key, own in turned.items()} == {
        row.key: row.cells[0].interval for row in table.rows
    }


def test_without_known_noise_a_metric_leaves_every_rank_open():
    records, models = simulated(np.array([0, 30, 60.0])[:, None] * SIGNS, np.random.default_rng(1))
    few = Records()
    for record in records.all():
        kept = {k: v for k, v in record.details["replicates"].items() if k != "fid_corrected"}
        few.add(replace(record, details=record.details | {"replicates": kept}))
    found = board(few, models)
    assert [own["FID (RadDino)"].interval for own in found.values()] == [(1, 3)] * 3
    assert [own["FID (RadDino)"].value for own in found.values()] == [1, 2, 3]
    # By the six other metrics they are far apart, so that FID alone cannot change their order.
    assert [own["Rank"].interval for own in found.values()] == [(1, 1), (2, 2), (3, 3)]
    assert found["m0"]["Average Rank"].interval == (1, pytest.approx(9 / 7))


def test_models_that_answered_other_prompts_are_not_told_apart():
    records, models = simulated(np.array([0, 30.0])[:, None] * SIGNS, np.random.default_rng(1))
    other = Records()
    for record in records.all():
        images = {"real": "r", "generated": record.model}
        other.add(replace(record, details=record.details | {"images_sha256": images}))
    assert not better_beyond_noise(other, models, RANKED).any()
    found = board(other, models)
    assert found["m0"]["Rank"].interval == (1, 2)


def test_a_model_without_a_metric_is_not_on_the_board():
    records, models = simulated(np.array([0, 30.0])[:, None] * SIGNS, np.random.default_rng(1))
    with_gap = Records()
    for record in records.all():
        values = list(record.values)
        if record.model == "m0":
            values[0] = replace(values[0], value=None, reason="1 image")
        with_gap.add(replace(record, values=values))
    found = board(with_gap, models)
    assert list(found) == ["m1", "m0"]
    assert (found["m1"]["Rank"].value, found["m1"]["Rank"].interval) == (1, (1, 1))
    assert {cell.reason for cell in found["m0"].values()} == {"1 image"}


def test_a_model_of_few_images_is_not_ranked():
    records, models = simulated(np.array([0, 30.0])[:, None] * SIGNS, np.random.default_rng(1))
    few = Records()
    for record in records.all():
        n = 9 if record.model == "m0" else 10
        few.add(replace(record, values=[replace(value, n=n) for value in record.values]))
    found = board(few, models)
    assert {cell.reason for cell in found["m0"].values()} == {"of fewer than 10 images: not ranked"}
    assert found["m1"]["Rank"].value == 1


def test_the_columns_are_those_of_table_8():
    headers = [column.header for column in LEADERBOARD.columns]
    assert headers[:2] == ["Rank", "Average Rank"]
    assert headers[2:] == [
        "FID (Inception)",
        "FID (RadDino)",
        "KID (Inception)",
        "KID (RadDino)",
        "Alignment Score",
        "Precision",
        "Recall",
        "Density",
        "Coverage",
    ]
