"""Attacks on membership: who is compared, what scores tell, and what is withheld."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from workflow_scripts.cohort.attrition import Attrition
from workflow_scripts.cohort.build_manifest import held_out
from workflow_scripts.cohort.similar import check_similar
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.common.records import read_record
from workflow_scripts.privacy.measures import METRICS
from workflow_scripts.privacy.membership import score_samples
from workflow_scripts.privacy.membership.attack import Estimate, auc, difference, tpr_at
from workflow_scripts.privacy.membership.candidates import draw_candidates, shown_in_training
from workflow_scripts.privacy.membership.losses import FixedDraws, weighted_error
from workflow_scripts.privacy.membership.score_samples import closest_of_others
from workflow_scripts.privacy.membership.values import (
    attack_scores,
    membership_values,
    presumed_values,
    samples_values,
    unknown_values,
)

CPU = torch.device("cpu")


def cohort(patients=120, films=3, seed=0, **changed):
    """Half of the patients in the train split, a quarter each in the other two; all captioned."""
    rng = np.random.default_rng(seed)
    n = patients * films
    patient = np.arange(n) // films
    split = np.where(patient % 2 == 0, "train", np.where(patient % 4 == 1, "validate", "test"))
    marks = np.where(rng.random(n) < 0.3, " ___", "")
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "patient_id": [f"p{k}" for k in patient],
            "path": [f"{k}.png" for k in range(n)],
            "view": np.where(rng.random(n) < 0.5, "AP", "PA"),
            "split": split,
            "caption": ["word " * rng.integers(3, 12) + f"end{mark}" for mark in marks],
            "caption_source": "made up",
            **{name: pd.array(rng.random(n) < 0.2, dtype="Int8") for name in FINDINGS},
        }
    )
    return frame.assign(**changed)


def losses(candidates, lowered, seed=0, base_lowered=0.0, passes=4):
    """Return losses under base and fine-tuned checkpoint; each image has a difficulty of its own.

    Args:
        candidates: see `draw_candidates`.
        lowered: by how much fine-tuning lowers the loss, a number or one for each candidate.
        seed: of the noise.
        base_lowered: the same of members under the base.
        passes: noise levels.
    """
    rng = np.random.default_rng(seed)
    n, member = len(candidates), candidates["member"].to_numpy(float)
    own = 1 + 0.5 * rng.random((n, 1, 1))
    base, tuned = (own + 0.05 * rng.random((n, passes, 3)) for _ in range(2))
    base[..., [0, 2]] -= (base_lowered * member)[:, None, None]
    tuned[..., [0, 2]] -= np.broadcast_to(lowered, n)[:, None, None]
    return base.astype(np.float32), tuned.astype(np.float32)


def values_of(candidates, base, tuned):
    values, checked = membership_values(candidates, attack_scores(base, tuned))
    return {(v.metric, v.subset): v for v in values}, checked


def test_members_and_others_are_alike_and_no_patient_is_drawn_twice():
    manifest = cohort()
    manifest.loc[manifest["patient_id"] == "p1", "split"] = ["train", "test", "test"]
    found = draw_candidates(manifest, 1000, 1)
    assert not found["patient_id"].duplicated().any()
    split = manifest.set_index("image_id")["split"][found["image_id"]].to_numpy()
    assert ((split == "train") == found["member"]).all()
    # p1 has a training film: no training film of another split makes it a stranger.
    assert "p1" not in set(found.loc[~found["member"], "patient_id"])
    sides = [found[found["member"] == side].reset_index(drop=True) for side in (True, False)]
    assert (sides[0]["pair"] == sides[1]["pair"]).all()
    assert (sides[0]["view"] == sides[1]["view"]).mean() > 0.9
    by_chance = cohort(seed=5)
    random = [by_chance[by_chance["split"].eq("train") == side] for side in (True, False)]
    apart = (sides[0][[*FINDINGS]].to_numpy() != sides[1][[*FINDINGS]].to_numpy()).mean()
    strangers = random[0][[*FINDINGS]].to_numpy(int) != random[1][[*FINDINGS]].to_numpy(int)
    assert apart < 0.7 * strangers.mean()
    assert len(draw_candidates(manifest, 20, 1)) == 40


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="an attack needs 10 of each"):
        draw_candidates(cohort(patients=12), 1000, 1)


def test_held_out_patients_leave_training_with_all_their_films():
    manifest = cohort()
    assert held_out(manifest, 0) is manifest
    moved = held_out(manifest, 20)
    split = moved.groupby("patient_id")["split"]
    assert (split.nunique() == 1).all()
    before = manifest[manifest["split"] == "train"]["patient_id"].nunique()
    train = moved[moved["split"] == "train"]
    assert train["patient_id"].nunique() == before - 20
    assert moved.drop(columns="split").equals(manifest.drop(columns="split"))
    # The same patients whatever the captions and the order of films.
    again = held_out(manifest.iloc[::-1], 20)
    assert set(again[again["split"] == "train"]["patient_id"]) == set(train["patient_id"])
    with pytest.raises(InputError, match="held out"):
        held_out(manifest, before - 1)


def test_draws_fix_the_level_and_give_every_image_the_same_noise():
    draws = FixedDraws(0.8, 3, 2, CPU)
    assert draws.uniform().tolist() == pytest.approx([0.8, 0.8])
    assert draws.integers(1000).tolist() == [800, 800]
    assert draws.normal(()).tolist() == pytest.approx([norm.ppf(0.8)] * 2)
    first, second = draws.normal((4, 8, 8))
    assert torch.equal(first, second)
    assert torch.equal(first, FixedDraws(0.1, 3, 1, CPU).normal((4, 8, 8))[0])
    assert not torch.equal(first, FixedDraws(0.8, 4, 1, CPU).normal((4, 8, 8))[0])


def test_low_frequencies_weigh_more():
    rows = torch.arange(16)
    flat = torch.ones(1, 1, 16, 16)
    board = ((rows[:, None] + rows[None, :]) % 2 * 2.0 - 1)[None, None]
    assert weighted_error(flat) > 3 > 0.01 > weighted_error(board)
    white = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert weighted_error(white).mean() == pytest.approx(1, abs=0.05)
    tokens = white.flatten(2).transpose(1, 2)
    assert torch.allclose(weighted_error(tokens), weighted_error(white))


def test_the_area_is_sklearns_and_has_a_length_at_its_ends():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 40) + 1.0, rng.integers(0, 6, 50) + 0.0
    truth = np.r_[np.ones(40), np.zeros(50)]
    found = auc(a, b)
    assert found.value == pytest.approx(roc_auc_score(truth, np.r_[a, b]))
    assert found.low < found.value < found.high
    best, worst = auc(a + 10, b), auc(a - 10, b)
    assert best.value == best.high == 1
    assert 0.85 < best.low < 1
    assert worst.low == pytest.approx(1 - best.high)
    assert worst.high == pytest.approx(1 - best.low)


@pytest.mark.parametrize("patients", [60, 800])
def test_intervals_cover_where_patients_have_many_films(patients):
    """Films of one patient are alike: an attack draws one of each, and its bounds hold.

    With all films as units, the area's interval would miss the truth far more often than 5%.
    """
    rng = np.random.default_rng(1)
    films, shift, rate, runs = 8, 0.8, 0.01, 300
    spread = np.sqrt(0.8**2 + 0.6**2)
    true_area = norm.cdf(shift / (spread * np.sqrt(2)))
    true_rate = norm.sf(norm.isf(rate) - shift / spread)
    kept, area_kept, wrong = 0, 0, 0
    for _ in range(runs):
        sides = [
            0.8 * rng.normal(size=(patients, 1)) + 0.6 * rng.normal(size=(patients, films)) + mean
            for mean in (shift, 0.0)
        ]
        one = [side[:, 0] for side in sides]
        bounds = tpr_at(*one, rate)
        kept += bounds.low <= true_rate <= bounds.high
        area = auc(*one)
        area_kept += area.low <= true_area <= area.high
        every = auc(*[side.ravel() for side in sides])
        wrong += every.low <= true_area <= every.high
    error = 3 * np.sqrt(0.05 * 0.95 / runs)
    assert kept / runs >= 0.95 - error
    assert area_kept / runs >= 0.95 - error
    assert wrong / runs < 0.8


def test_found_at_a_rate_is_counted_by_hand():
    others = np.arange(200.0)
    members = np.array([500.0] * 30 + [198.5] * 20 + [0.0] * 50)
    # 1% of 200 are two false alarms: the threshold is the third highest, 197.
    assert tpr_at(members, others, 0.01).value == 0.5
    # None is allowed at 0.1%: the threshold is the highest, 199.
    assert tpr_at(members, others, 0.001).value == 0.3
    few = tpr_at(members, others[:50], 0.01)
    assert few.low == 0  # 50 non-members say nothing of a rate of 1%
    many = tpr_at(np.repeat(members, 10), np.arange(5000.0) * 0.01, 0.01)
    assert 0.4 < many.low < many.value < many.high < 0.6


def test_a_difference_is_as_wide_as_both():
    found = difference(Estimate(0.7, 0.6, 0.8), Estimate(0.5, 0.4, 0.6))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0586, 0.3414), abs=1e-4)


def test_a_model_that_learned_nothing_of_members_is_at_chance_and_one_that_did_is_caught():
    candidates = draw_candidates(cohort(), 1000, 1)
    found, checked = values_of(candidates, *losses(candidates, 0.2))
    assert checked["withheld"] == {}
    low, high = found["member_loss_calibrated_auc", "all"].interval
    assert low < 0.5 < high
    member = candidates["member"].to_numpy(float)
    found, _ = values_of(candidates, *losses(candidates, 0.2 * member))
    for attack in ("loss_calibrated", "caption", "frequency_calibrated"):
        assert found[f"member_{attack}_auc", "all"].value > 0.98
    # Without the base, how hard an image is by itself blurs what was learned of it.
    assert 0.6 < found["member_loss_auc", "all"].value < 0.95
    assert found["member_loss_calibrated_tpr", "all"].value > 0.9
    assert "fewer than 5" in found["member_loss_calibrated_tpr_low", "all"].reason
    assert found["member_auc", "Edema"].value > 0.95
    assert {metric for metric, _ in found} <= {metric.key for metric in METRICS}


def test_a_split_of_one_view_is_withheld():
    manifest = cohort()
    biased = manifest.assign(view=manifest["view"].where(manifest["split"] != "train", "PA"))
    candidates = draw_candidates(biased, 1000, 1)
    found, _ = values_of(candidates, *losses(candidates, 0.0))
    reported = [v for (metric, _), v in found.items() if "base" not in metric]
    assert all(value.value is None for value in reported)
    assert "the view tells" in found["member_loss_calibrated_auc", "all"].reason
    values, checked = samples_values(candidates, np.zeros(len(candidates)))
    assert all(value.value is None for value in values)
    assert "view" in checked["withheld"]["samples"]


def test_a_base_checkpoint_that_tells_them_apart_withholds_what_rests_on_it():
    candidates = draw_candidates(cohort(), 1000, 1)
    base, tuned = losses(candidates, 0.0, base_lowered=0.4)
    base[..., 1] = tuned[..., 1] = 1.5  # the empty caption tells nothing
    base[..., 2] = tuned[..., 2] = losses(candidates, 0.0)[0][..., 2]
    found, checked = values_of(candidates, base, tuned)
    assert found["member_loss_base_auc", "all"].value > 0.9
    assert "the base checkpoint" in found["member_loss_calibrated_auc", "all"].reason
    assert found["member_auc", "Edema"].reason == found["member_loss_auc", "all"].reason
    # Low frequencies are the same for both: that attack has a fair null.
    assert found["member_frequency_calibrated_auc", "all"].value is not None
    assert "frequency" not in checked["withheld"]


def test_captions_with_marks_that_leak_are_told():
    candidates = draw_candidates(cohort(patients=400), 1000, 1)
    leaked = (candidates["member"] & candidates["marked"]).to_numpy(float)
    found, _ = values_of(candidates, *losses(candidates, 0.2 * leaked))
    assert found["member_marked_auc", "all"].value > 0.95
    low, high = found["member_unmarked_auc", "all"].interval
    assert low < 0.5 < high
    assert found["member_marked_excess", "all"].interval[0] > 0.2
    low, high = found["member_long_excess", "all"].interval
    assert low < 0 < high


def test_a_loss_whose_error_is_not_shown_has_no_frequencies():
    candidates = draw_candidates(cohort(), 1000, 1)
    base, tuned = losses(candidates, 0.0)
    base[..., 2] = tuned[..., 2] = np.nan
    found, _ = values_of(candidates, base, tuned)
    assert "no mean square" in found["member_frequency_calibrated_auc", "all"].reason
    assert found["member_loss_auc", "all"].value is not None


def test_images_alone_reveal_a_radiograph_that_nobody_asked_for():
    rng = np.random.default_rng(0)
    radiographs = rng.normal(size=(40, 8))
    patients = np.array([f"p{k}" for k in range(40)])
    # Each image shows its prompt's radiograph, as a caption makes it; that tells nothing.
    asked = closest_of_others(radiographs, patients, radiographs + 0.01, patients)
    assert asked.min() > 0.5
    # The images of p0's prompts show the others'.
    copied = closest_of_others(radiographs, patients, radiographs + 0.01, np.array(["p0"] * 40))
    assert copied[1:].max() < 0.1 < 0.5 < copied[0]


def test_a_model_that_came_trained_has_no_number_and_the_record_says_why(tmp_path):
    words = ["--model", "radedit", "--protocol", "sound", "--unknown", "it came trained"]
    score_samples.main([*words, "--output", str(tmp_path / "record.json")])
    record = read_record(tmp_path / "record.json")
    assert record.details["members"] == "unknown"
    assert {value.reason for value in record.values} == {"it came trained"}
    declared = {metric.key for metric in METRICS if metric.key.startswith("member_")}
    assert {value.metric for value in record.values} == declared
    assert {value.metric for value in unknown_values("why")} == declared


def test_a_patient_whose_film_training_shows_as_well_is_no_stranger(tmp_path):
    manifest = cohort()
    strangers = draw_candidates(manifest, 1000, 1)
    strangers = set(strangers.loc[~strangers["member"], "patient_id"])
    assert {"p1", "p3", "p5", "p9"} <= strangers
    films = manifest.assign(study_id="s").set_index("patient_id")
    row = films.groupby("patient_id").first()
    columns = ["image_id", "study_id", "split", "path"]
    # p1 has a film of p0's, p5 one of p3's: two patients of training, and two that are not.
    pairs = [("p1", "p0"), ("p5", "p3")]
    identical = pd.concat(
        [row.loc[list(pair), columns].reset_index().assign(group=k) for k, pair in enumerate(pairs)]
    )
    grouped = identical[["group", "image_id", "patient_id", *columns[1:]]]
    grouped.to_csv(tmp_path / "identical_images.csv", index=False)
    films = np.random.default_rng(0).integers(0, 256, (len(manifest), 8, 8), dtype=np.uint8)
    test = manifest.index[manifest["patient_id"] == "p3"]
    films[test[0]] = np.clip(films[0].astype(int) + 3, 0, 255)  # brighter: p3 shows a film of p0
    other = manifest.index[manifest["patient_id"] == "p9"]  # of the validation split
    films[other[1]] = np.clip(films[1].astype(int) + 3, 0, 255)
    check_similar(
        manifest.assign(study_id="s"), films, 0.9, 1.0, Attrition(),
        tmp_path / "similar_images.csv",
    )  # fmt: skip
    copied = [tmp_path / "identical_images.csv", tmp_path / "similar_images.csv"]
    assert shown_in_training(copied[:1]) == {"p1"}
    assert shown_in_training(copied) == {"p1", "p3", "p9"}
    found = draw_candidates(manifest, 1000, 1, shown_in_training(copied))
    assert set(found.loc[~found["member"], "patient_id"]) == strangers - {"p1", "p3", "p9"}
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no table of identical or of similar images"):
        shown_in_training([tmp_path / "other.csv"])
    with pytest.raises(InputError, match="cannot read copies"):
        shown_in_training([tmp_path / "none.csv"])


def test_of_a_model_that_came_trained_the_uncalibrated_attacks_alone_are_reported():
    candidates = draw_candidates(cohort(), 1000, 1)
    member = candidates["member"].to_numpy(float)
    _, found = losses(candidates, 0.5 * member)
    found[..., 2] = np.nan  # the likelihood of tokens is no square
    values, checked, scores = presumed_values(candidates, found)
    told = {(v.metric, v.subset): v for v in values}
    assert len(told) == len(values)
    assert told["member_loss_auc", "all"].value > 0.9
    assert told["member_caption_auc", "all"].value > 0.9
    assert "no mean square" in told["member_frequency_auc", "all"].reason
    kept = {metric for (metric, _), v in told.items() if v.value is not None}
    assert kept == {
        f"member_{name}_{key}" for name in ("loss", "caption") for key in ("auc", "tpr")
    }
    assert "no checkpoint from before" in told["member_loss_calibrated_auc", "all"].reason
    assert {v.metric for v in values} == {v.metric for v in unknown_values("why")}
    assert checked == {"withheld": {}}
    assert set(scores) == {"loss", "caption", "frequency"}


def test_of_a_model_that_came_trained_a_biased_split_is_withheld():
    manifest = cohort()
    biased = manifest.assign(view=manifest["view"].where(manifest["split"] != "train", "PA"))
    candidates = draw_candidates(biased, 1000, 1)
    values, checked, _ = presumed_values(candidates, losses(candidates, 0.0)[1])
    assert all(value.value is None for value in values)
    assert "view" in checked["withheld"]["loss"]
