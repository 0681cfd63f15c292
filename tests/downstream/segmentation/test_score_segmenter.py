"""Records of Dice: values by hand, empty masks, gains, repeats, and Dice of the labeller."""

import json

import numpy as np
import pytest

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import read_record
from workflow_scripts.downstream.outcomes import write_outcomes
from workflow_scripts.downstream.segmentation import score_labeller

from .conftest import SIZE, bright

BOTH = [50, 0, 30, 0, 0, 8]
TRUE = [50, 40, 40, 0, 0, 20]
PREDICTED = [50, 10, 20, 0, 7, 20]
DICE = [1.0, 0.0, 1.0, None, None, 0.4]


def write(path, *, model="tiny", setting="augmented", seed=1, both=BOTH, exact=None):
    run = {
        "model": model,
        "setting": setting,
        "protocol": "sound",
        "seed": seed,
        "n_images": 12,
        "provenance": {"device": "cpu"},
    }
    none = [None] * len(BOTH)
    columns = {
        "image_id": [f"i{k}" for k in range(len(BOTH))],
        "patient_id": ["a", "a", "b", "c", "d", "e"],
        "predicted": PREDICTED,
        "true": TRUE,
        "both": both,
        "exact_true": none if exact is None else exact[0],
        "exact_both": none if exact is None else exact[1],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_outcomes(path, columns, run)
    return path


def test_the_values_are_those_computed_by_hand(world, tmp_path):
    record = world.score(write(tmp_path / "arm" / "0.parquet"))
    assert (record.stage, record.model, record.family, record.protocol) == (
        "downstream",
        "tiny",
        "segmentation/augmented",
        "sound",
    )
    assert record.get("dice").value == pytest.approx((1 + 0 + 1 + 0.4) / 4)
    assert record.get("dice").n == 4  # two pseudo-masks are empty
    assert record.get("dice_pooled").value == pytest.approx(2 * 88 / (100 + 150))
    assert record.get("n_images").value == 12
    low, high = record.get("dice").interval
    assert 0 <= low < record.get("dice").value < high <= 1
    assert record.details["n_test"] == 6
    assert record.details["n_test_empty"] == 2
    assert record.details["n_test_empty_predicted_empty"] == [1]
    for name in ("dice_exact", "dice_exact_gain", "dice_pooled_exact", "dice_pooled_exact_sd"):
        assert "exact_masks" in record.get(name).reason
    assert "real data alone" in record.get("dice_gain").reason
    assert "one training run" in record.get("dice_sd").reason


def test_gain_and_spread(world, tmp_path):
    better = [50, 20, 30, 0, 0, 20]
    arm = [
        write(tmp_path / "arm" / f"{seed}.parquet", seed=seed, both=both)
        for seed, both in enumerate((BOTH, better))
    ]
    real = write(tmp_path / "real" / "0.parquet", model="real", setting="real_only")
    record = world.score(*arm, baseline=(real,))
    means = np.array([0.6, (1 + 0.8 + 1 + 1) / 4])
    assert record.get("dice").value == pytest.approx(means.mean())
    assert record.get("dice_sd").value == pytest.approx(means.std(ddof=1))
    assert record.get("dice_gain").value == pytest.approx(means.mean() - 0.6)
    same = world.score(write(tmp_path / "same" / "0.parquet"), baseline=(real,))
    assert same.get("dice_gain").value == 0
    assert same.get("dice_gain").interval is None  # it does not vary


def test_runs_that_were_compared_with_other_masks_are_refused(world, tmp_path):
    arm = write(tmp_path / "arm" / "0.parquet")
    real = write(tmp_path / "real" / "0.parquet", exact=([1] * 6, [0] * 6))
    with pytest.raises(InputError, match=r"compared with other masks .*\(exact_true\)"):
        world.score(arm, baseline=(real,))


def test_masks_drawn_by_hand_count_where_there_are_any(world, tmp_path):
    exact = [None, 30, 20, 10, None, None], [None, 10, 20, 0, None, None]
    record = world.score(write(tmp_path / "arm" / "0.parquet", exact=exact))
    dices = [2 * 10 / 40, 2 * 20 / 40, 0]
    assert record.get("dice_exact").value == pytest.approx(np.mean(dices))
    assert record.get("dice_exact").n == record.details["n_test_exact"] == 3


def test_nothing_to_compare_with_is_a_reason_not_a_zero(world, tmp_path):
    path = tmp_path / "arm" / "0.parquet"
    write(path)
    names = ("predicted", "true", "both", "exact_true", "exact_both")
    columns = {name: [0, 0] for name in names}
    run = {
        "model": "real",
        "setting": "real_only",
        "protocol": "sound",
        "seed": 0,
        "n_images": 2,
        "provenance": {"device": "cpu"},
    }
    write_outcomes(path, {"image_id": ["a", "b"], "patient_id": ["p", "q"], **columns}, run)
    record = world.score(path)
    assert record.get("dice").value is None
    assert "empty pseudo-mask" in record.get("dice").reason
    assert "by hand is empty" in record.get("dice_pooled_exact").reason


def test_arms_that_were_tested_on_other_images_are_refused(world, tmp_path):
    arm, real = tmp_path / "arm" / "0.parquet", tmp_path / "real" / "0.parquet"
    write(arm)
    run = json.loads("{}") | {"model": "real", "setting": "real_only", "protocol": "sound"}
    write_outcomes(real, {"image_id": ["z"], "patient_id": ["z"]}, run | {"seed": 1})
    with pytest.raises(InputError, match="not the 1 of the run that it is compared with"):
        world.score(arm, baseline=(real,))


def labeller(world, *words: object):
    path = world.folder / "labeller.json"
    score_labeller.main(
        [
            *("--masks", str(world.real_masks)),
            *("--manifest", str(world.folder / "manifest.parquet")),
            *("--size", str(SIZE), "--protocol", "sound", "--bootstrap", "200", "--seed", "3"),
            *("--output", str(path)),
            *map(str, words),
        ]
    )
    return read_record(path)


def test_the_labellers_own_dice_is_that_of_its_masks(world):
    record = labeller(world, "--exact-masks", world.folder / "exact")
    assert (record.model, record.family) == ("real", "segmentation/labeller")
    expected = []
    for name in world.test_ids:
        drawn, bar = bright(world.images[name]), world.bars[name]
        expected.append(2 * (drawn & bar).sum() / (drawn.sum() + bar.sum()))
    value = record.get("dice_exact")
    assert value.value == pytest.approx(np.mean(expected))
    assert value.interval[0] < value.value < value.interval[1]
    assert record.details["n_test_exact"] == value.n == len(world.test_ids)
    assert "not trained" in record.get("dice_exact_gain").reason
    assert "measured against" in record.get("dice").reason


def test_without_masks_drawn_by_hand_the_labeller_is_unknown(world):
    record = labeller(world)
    assert record.get("dice_exact").value is None
    assert "exact_masks" in record.get("dice_pooled_exact").reason
    assert record.details["n_test_exact"] == 0
